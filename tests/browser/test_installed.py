"""Mynah as an app: what a browser needs to install it, and what it says when the server cannot be reached."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.browser.door import Door
from tests.browser.site import FLAGS, PASSWORD, Site
from tests.browser.steps import ask, sign_in

pytestmark = pytest.mark.browser


@pytest.fixture
def door(site: Site) -> Iterator[Door]:
    """The way to the server."""
    door = Door(site.url)
    yield door
    door.shut()


@pytest.fixture
def page(browser: Browser, chromium: str, tmp_path: Path) -> Iterator[Page]:
    """A browser with a profile on disk: nothing is installed from a private window."""
    context = browser.browser_type.launch_persistent_context(tmp_path, executable_path=chromium, args=FLAGS)
    yield context.pages[0]
    context.close()


def in_charge(page: Page) -> None:
    """Wait until the worker looks after the page."""
    page.evaluate("navigator.serviceWorker.ready")
    page.wait_for_function("navigator.serviceWorker.controller !== null")


def test_the_browser_offers_to_install_it(page: Page, site: Site) -> None:
    devtools = page.context.new_cdp_session(page)
    page.goto(f"{site.url}/metrics")  # a page without a manifest, to see that the browser would complain
    assert devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    site.add("Ivo")
    page.goto(f"{site.url}/sign-in")
    _check_installable(page, site, devtools)
    sign_in(page, site, "Ivo")
    expect(page.get_by_role("heading", name="Hello, Ivo.")).to_be_visible()
    _check_installable(page, site, devtools)


def _check_installable(page: Page, site: Site, devtools: CDPSession) -> None:
    in_charge(page)
    assert devtools.send("Page.getInstallabilityErrors")["installabilityErrors"] == []
    found = devtools.send("Page.getAppManifest")
    assert found["url"] == f"{site.url}/manifest.json" and found["errors"] == []
    assert json.loads(found["data"])["name"] == "Mynah"


def test_icons_are_what_the_manifest_says_before_sign_in(site: Site) -> None:
    icons = httpx.get(f"{site.url}/manifest.json").json()["icons"]
    assert {(icon["sizes"], icon["purpose"]) for icon in icons} == {
        ("192x192", "any"),
        ("512x512", "any"),
        ("512x512", "maskable"),
    }
    for icon in icons:
        answer = httpx.get(f"{site.url}{icon['src']}")
        assert answer.headers["content-type"] == icon["type"]
        picture = Image.open(io.BytesIO(answer.content))
        assert "{}x{}".format(*picture.size) == icon["sizes"]
        corner = picture.convert("RGBA").getpixel((0, 0))
        assert isinstance(corner, tuple)
        assert corner[3] == (255 if icon["purpose"] == "maskable" else 0)  # the phone cuts the one, the other is round
    assert httpx.get(f"{site.url}/icons/other.png").status_code == 404
    assert httpx.get(f"{site.url}/icons/../logo.svg").status_code == 404


def test_a_page_says_that_the_server_is_away_until_it_is_back(page: Page, site: Site, door: Door) -> None:
    site.add("Una")
    page.goto(f"{door.url}/sign-in")
    page.get_by_label("Name").fill("Una")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    in_charge(page)
    ask(page, "This stays on the server.")
    door.shut()
    page.reload()
    expect(page.get_by_text("The server cannot be reached.")).to_be_visible()
    expect(page.get_by_text("This stays on the server.")).to_have_count(0)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("The server cannot be reached.")).to_be_visible()
    door.open()
    expect(page.locator("#thread .asked")).to_have_text("This stays on the server.")
    assert page.evaluate("caches.keys()") == []
