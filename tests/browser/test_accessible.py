"""Every page and every part that opens, looked at by axe-core: light and dark, on a desktop and on a phone of 375 px.

Any violation fails, also those that axe calls minor. Left out on purpose: exceptions for Gradio's own elements. None is
needed, as its parts that are not sound are hidden or made anew.
"""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from adapters.policy import Policy
from assistant.ui.render import show, static
from tests.browser.site import Site
from tests.browser.steps import ask, bring, say, sign_in
from tests.browser.versions import give_version

pytestmark = pytest.mark.browser

SIZES = {"desktop": (1280, 800), "phone": (375, 740)}
EVERYTHING_OPEN = "document.querySelectorAll('details').forEach((part) => { part.name = ''; part.open = true; })"


def check(page: Page, what: str) -> None:
    """Let axe look at the page as it is, in both schemes and sizes."""
    found: list[str] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # moving colours would be measured on the way
        for size, (width, height) in reversed(SIZES.items()):  # goes on on a desktop
            page.set_viewport_size({"width": width, "height": height})
            found += [f"{what}, {scheme}, {size}: {each}" for each in _violations(page)]
    assert not found, "\n".join(found)


def _violations(page: Page) -> list[str]:
    response = Axe().run(page).response
    return [
        f"{violation['impact']} {violation['id']}: {violation['help']}: {node['html'][:300]}"
        for violation in response["violations"]
        for node in violation["nodes"]
    ]


def test_the_checker_sees_what_is_wrong(page: Page) -> None:
    page.set_content("<html lang=en><title>x</title><main><h1>x</h1><button></button><p style='color:#bbb'>pale</p>")
    assert {each.split()[1] for each in _violations(page)} == {"button-name:", "color-contrast:"}


def test_before_sign_in(page: Page, site: Site) -> None:
    sign_in(page, site, "Nobody", "a wrong password")
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "sign-in")
    page.set_content(show("offline.html", styles=static("tokens.css") + static("sign_in.css")))
    check(page, "offline")


def test_chat(page: Page, site: Site) -> None:
    site.add("Axel")
    sign_in(page, site, "Axel")
    expect(page.get_by_role("heading", name="Hello, Axel.")).to_be_visible()
    page.get_by_role("button", name="About this chat").click()
    expect(page.get_by_label("Don't learn from this chat")).to_be_visible()
    check(page, "a new chat")
    page.get_by_role("button", name="Keys").click()
    check(page, "the sheet of keys")
    page.get_by_role("button", name="Close").click()
    a_chat(page)
    several_replies(page)


def a_chat(page: Page) -> None:
    ask(page, "Name a bird.").get_by_role("button", name="Good reply").click()
    expect(page.locator("#thread .said")).to_be_visible()
    ask(page, "And another.").get_by_role("button", name="Bad reply").click()
    expect(page.locator("#thread .said")).to_be_visible()
    page.get_by_role("searchbox").fill("bird")
    expect(page.locator("#found mark").first).to_be_visible()
    page.evaluate(EVERYTHING_OPEN)
    check(page, "a chat")
    page.locator("#side").evaluate("side => side.classList.add('open')")
    check(page, "a chat and the menu")
    page.locator("#side").evaluate("side => side.classList.remove('open')")
    page.evaluate("document.querySelectorAll('#thread details').forEach((part) => { part.open = false; })")


def several_replies(page: Page) -> None:
    for mode, decision in (("Compare two", "A tie"), ("Rank four", "All the same")):
        say(page, "Name a fish.", mode)
        expect(page.locator("#stage .votes")).to_be_visible()
        check(page, mode)
        page.get_by_role("button", name=decision).click()
        expect(page.locator("#stage .choice")).to_have_count(0)


def test_my_assistant(page: Page, site: Site, policy: Policy) -> None:
    site.add("Alma")
    sign_in(page, site, "Alma")
    expect(page.get_by_role("heading", name="Hello, Alma.")).to_be_visible()
    bring(page, site, "Alma", 11)
    give_version(site, policy, "Alma")
    page.goto(f"{site.url}/my-assistant")
    expect(page.locator("#versions .here")).to_contain_text("v1")
    page.evaluate(EVERYTHING_OPEN)
    expect(page.locator("#account").get_by_role("button", name="Delete everything")).to_be_visible()
    check(page, "My assistant")
    page.goto(f"{site.url}/my-assistant?questions")
    expect(page.locator("#questions .votes")).to_be_visible()
    check(page, "a quick question")


def test_admin(page: Page, site: Site) -> None:
    sign_in(page, site, site.admin, site.admin_password)
    expect(page.get_by_role("heading", name="Hello, admin.")).to_be_visible()
    page.goto(f"{site.url}/admin")
    for part in ("people", "server", "settings", "audit"):
        expect(page.locator(f"#{part} .card")).to_be_visible()
    page.evaluate(EVERYTHING_OPEN)
    check(page, "Admin")
