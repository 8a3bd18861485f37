"""A real server with the real model in a process of its own, and a real Chromium in front of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from adapters.base_model import BaseFiles
from tests.assistant.serving import OPEN_GATE, own_models, tiny_numbers
from tests.browser.site import FLAGS, Site, serving

PATIENCE_MS = 60_000  # on a loaded machine a reply takes its time


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's Chromium, or the one MYNAH_TEST_CHROMIUM names; without any the tests are skipped, but not in CI."""
    found = os.environ.get("MYNAH_TEST_CHROMIUM") or shutil.which("chromium")
    if found is None:
        missing = "There is no Chromium here; deploy/install-chromium.sh says how to get one."
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture(scope="session")
def site(chromium: str, base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with short replies and updates of some seconds, for all tests here."""
    folder = tmp_path_factory.mktemp("site")
    numbers = folder / "update.json"
    numbers.write_text(json.dumps(tiny_numbers(OPEN_GATE)))
    models = own_models(base_files, folder / "models")
    with serving(folder, models_dir=models, update_config=numbers, updates="off", max_tokens=32) as running:
        yield running


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser for all tests; each person gets a context of their own."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def new_page(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Opens pages, each in a browser of its own; afterwards nothing may have failed or been fetched from elsewhere."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def watch(page: Page) -> None:
        ours = (site.url, "data:", "blob:")
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
        page.on("request", lambda request: None if request.url.startswith(ours) else complaints.append(request.url))
        page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if r.status >= 500 else None)

    def make(width: int = 1280, height: int = 800, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        watch(page)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A desktop browser with nobody signed in."""
    return new_page()
