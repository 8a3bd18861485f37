"""What the browser app feels like: opening it, clicking, searching, and thirty people one after another.

    python -m benchmarks.browser_load            # some minutes on two idle cores
    python -m benchmarks.browser_load --quick    # fewer of everything

A real Chromium (Debian's, or the one MYNAH_TEST_CHROMIUM names) in front of a real server with the real base. Replies
are short, since how fast the model writes is not of interest here. A page counts as usable when it can be written to,
a click as acknowledged when the page has been painted with what was learned. Left out on purpose: many people at the
same moment, which is a matter of the model.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from adapters.files import write_json
from benchmarks.report import columns
from benchmarks.search_load import CONVERSATIONS, MESSAGES, QUERIES, fill
from benchmarks.server import ADMIN, Server
from benchmarks.work import RESULTS, commit, machine
from feedback.errors import MynahError, NotFound
from feedback.store import Store

PASSWORD = "a password for a benchmark"
PATIENCE_MS = 120_000
GOALS = {"page_s": 2.0, "click_ms": 150.0, "search_server_ms": 100.0, "search_page_ms": 100.0, "errors": 0}

# Both run in the page and answer with milliseconds; the frame after a change is when it is painted.
CLICK = """which => new Promise((resolve) => {
  const last = '#thread .turns > li:last-child ';
  const button = document.querySelector(`${last}.thumb.${which}`);
  const begun = performance.now();
  new MutationObserver((_, watching) => {
    if (document.querySelector(`${last}.thumb.${which}`)?.getAttribute('aria-pressed') !== 'true') return;
    if (!document.querySelector(`${last}.said`)) return;
    watching.disconnect();
    requestAnimationFrame(() => resolve(performance.now() - begun));
  }).observe(document.body, { childList: true, subtree: true, attributes: true });
  button.click();
})"""
SEARCH = """typed => new Promise((resolve) => {
  const box = document.getElementById('search');
  const begun = performance.now();
  new MutationObserver((_, watching) => {
    watching.disconnect();
    requestAnimationFrame(() => resolve(performance.now() - begun));
  }).observe(document.getElementById('found'), { childList: true });
  box.value = typed;
  box.dispatchEvent(new Event('input', { bubbles: true }));
})"""


@dataclass(frozen=True)
class Size:
    """How many of each."""

    pages: int
    clicks: int
    searches: int  # of each query
    people: int


FULL, QUICK = Size(pages=10, clicks=40, searches=10, people=30), Size(pages=3, clicks=8, searches=2, people=3)


class Visits:
    """Browsers of people, each with nothing kept from before, and what went wrong in them."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.address = address
        self.errors: list[str] = []
        self._browser = browser

    @contextmanager
    def of(self, name: str) -> Iterator[Page]:
        """A signed-in person's page, still empty."""
        context = self._browser.new_context(viewport={"width": 1280, "height": 800})
        try:
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("pageerror", lambda error: self.errors.append(f"script: {error}"))
            page.on("response", lambda answer: self._look(answer.status, answer.url))
            self._sign_in(context, name)
            yield page
        finally:
            context.close()

    def open(self, page: Page) -> float:
        """Go to the chat page; seconds until it can be written to."""
        started = time.perf_counter()
        page.goto(self.address)
        page.locator("#box textarea:enabled").wait_for()
        page.locator(".welcome").wait_for()
        return time.perf_counter() - started

    def _sign_in(self, context: BrowserContext, name: str) -> None:
        form: dict[str, str | float | bool] = {"name": name, "password": PASSWORD}
        headers = {"Origin": self.address}
        answer = context.request.post(f"{self.address}/sign-in", form=form, headers=headers, max_redirects=0)
        if answer.status != 303:
            raise MynahError(f"{name} could not sign in: the server answered {answer.status}.")

    def _look(self, status: int, url: str) -> None:
        if status >= 400:
            self.errors.append(f"{status} {url.removeprefix(self.address)}")


def first_pages(visits: Visits, name: str, count: int) -> list[float]:
    """Seconds until the page is usable, each in a new browser; one before them warms the server."""
    times = []
    for _ in range(count + 1):
        with visits.of(name) as page:
            times.append(visits.open(page))
    return times[1:]


def talk(page: Page, text: str) -> None:
    """Ask, and wait for the reply; where Mynah asks for a comparison, decide later."""
    page.locator("#box textarea").fill(text)
    page.locator("#box textarea").press("Enter")
    reply = page.locator("#thread .turns > li:last-child .thumb.up")
    later = page.locator("#stage .choice .skip")
    reply.or_(later).wait_for()
    if later.is_visible():
        later.click()
        reply.wait_for()


def clicks(visits: Visits, name: str, count: int) -> list[float]:
    """Milliseconds from a thumb to its acknowledgement, up and down in turn."""
    with visits.of(name) as page:
        visits.open(page)
        talk(page, "Name a bird.")
        return [float(page.evaluate(CLICK, "down" if number % 2 else "up")) for number in range(count)]


def searches(visits: Visits, name: str, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a search over HTTP, and from the last key to the painted hits."""
    with visits.of(name) as page:
        visits.open(page)
        cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
        queries = [query for _ in range(rounds) for query in QUERIES]
        with httpx.Client(base_url=visits.address, cookies=cookies, timeout=60) as client:
            over_http = [_search(client, query) for query in queries]
        return over_http, [float(page.evaluate(SEARCH, query)) for query in queries]


def _search(client: httpx.Client, query: str) -> float:
    started = time.perf_counter()
    answer = client.get("/search", params={"q": query, "page": "chat"})
    spent = (time.perf_counter() - started) * 1000
    if "<mark>" not in answer.raise_for_status().text:
        raise MynahError(f"The search for {query!r} found nothing; the benchmark's own text holds it.")
    return spent


def people_in_turn(visits: Visits, names: list[str]) -> list[float]:
    """Everybody opens the page, asks one thing and gives a thumb; seconds each took."""
    times = []
    for name in names:
        started = time.perf_counter()
        with visits.of(name) as page:
            visits.open(page)
            talk(page, "What is good about the sea?")
            page.evaluate(CLICK, "up")
            visits.errors += page.locator(".notice").all_inner_texts()
        times.append(time.perf_counter() - started)
    return times


def measure(size: Size) -> dict[str, Any]:
    """All figures."""
    names = [f"person {number + 1}" for number in range(size.people)]
    with (
        tempfile.TemporaryDirectory(prefix="mynah-browser-") as folder,
        Server(Path(folder), "--updates", "off", "--max-tokens", "24") as server,
        sync_playwright() as playwright,
    ):
        keeper = server.client(ADMIN)
        for name in ("reader", *names):
            keeper.post("/v1/admin/users", {"name": name, "password": PASSWORD})
        keeper.close()
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        visits = Visits(browser, server.address)
        pages = first_pages(visits, "reader", size.pages)
        acknowledged = clicks(visits, "reader", size.clicks)
        _fill(Path(folder), "reader")
        over_http, in_page = searches(visits, "reader", size.searches)
        turns = people_in_turn(visits, names)
        version = browser.version
        browser.close()
    return {
        "page_s": median(pages),
        "page_s_worst": max(pages),
        "click_ms": median(acknowledged),
        "click_ms_worst": max(acknowledged),
        "search_server_ms": median(over_http),
        "search_server_ms_worst": max(over_http),
        "search_page_ms": median(in_page),
        "search_page_ms_worst": max(in_page),
        "people": len(names),
        "person_s": median(turns),
        "errors": len(visits.errors),
        "errors_in_words": visits.errors[:20],
        "chromium": version,
    }


def chromium() -> str:
    """Where Chromium is. Raises NotFound."""
    found = os.environ.get("MYNAH_TEST_CHROMIUM") or shutil.which("chromium")
    if found is None:
        raise NotFound("There is no Chromium here; deploy/install-chromium.sh says how to get one.")
    return found


def _fill(folder: Path, name: str) -> None:
    """Give somebody a long history, beside the running server."""
    store = Store(folder / "mynah.db")
    try:
        user = store.people.find(name)
        assert user is not None
        fill(store, user.id)
    finally:
        store.close()


def table(found: dict[str, Any]) -> str:
    """What was measured beside what is aimed at."""
    rows: list[tuple[str, str, str, int]] = [
        ("the first page can be used, median", "page_s", "s", 2),
        ("a thumb is acknowledged, median", "click_ms", "ms", 0),
        (
            f"a search over {MESSAGES:,} messages in {CONVERSATIONS} chats, over HTTP, median",
            "search_server_ms",
            "ms",
            0,
        ),
        ("  from the last key to the painted hits, median", "search_page_ms", "ms", 0),
        (f"errors while {found['people']} people chat in turn", "errors", "", 0),
    ]
    lines = []
    for what, name, unit, digits in rows:
        goal = GOALS[name]
        reached = "yes" if found[name] <= goal else "no"
        worst = f"{found[f'{name}_worst']:.{digits}f} {unit}" if f"{name}_worst" in found else ""
        lines.append([what, f"{found[name]:.{digits}f} {unit}".strip(), worst, f"{goal:g} {unit}".strip(), reached])
    return columns(["what", "measured", "worst", "goal", "reached"], lines)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer of everything")
    quick = parser.parse_args().quick
    found = measure(QUICK if quick else FULL) | {"commit": commit(), "machine": machine(), "quick": quick}
    write_json(RESULTS / ("work/browser_load-quick.json" if quick else "browser_load.json"), found)
    print(table(found))


if __name__ == "__main__":
    main()
