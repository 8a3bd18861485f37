"""Replies under way: stop, reload, another one; chats that are kept out of learning; wrong input; narrow screens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import Site
from tests.browser.steps import answer, ask, say, sign_in

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def cy(site: Site) -> str:
    """Somebody who chats."""
    site.add("Cy")
    return "Cy"


@pytest.fixture
def chat(page: Page, site: Site, cy: str) -> Page:
    """The chat page, signed in."""
    sign_in(page, site, cy)
    expect(page.get_by_role("heading", name=f"Hello, {cy}.")).to_be_visible()
    return page


def test_stop_keeps_what_was_written(chat: Page) -> None:
    say(chat, "Tell me a long story about a mill.")
    expect(chat.locator("#stage .writing .text")).to_contain_text(" ")
    chat.keyboard.press("Escape")
    reply = answer(chat, "Tell me a long story about a mill.")
    assert 0 < len(reply.locator(".text").inner_text().split()) < 30
    expect(chat.get_by_role("button", name="Send")).to_be_visible()


def test_a_reload_finds_the_reply_still_being_written(chat: Page) -> None:
    say(chat, "Tell me about the sea.")
    expect(chat.locator("#stage .writing")).to_be_visible()
    chat.wait_for_url("**/?c=*")
    chat.reload()
    expect(chat.get_by_text("Tell me about the sea.").last).to_be_visible()
    assert answer(chat, "Tell me about the sea.").locator(".text").inner_text()
    expect(chat.locator("#thread .asked")).to_have_count(1)


def test_another_reply_and_back(chat: Page) -> None:
    first = ask(chat, "Name a colour.").locator(".text").inner_text()
    chat.get_by_role("button", name="Write another reply").click()
    expect(chat.locator(".flip")).to_contain_text("2 / 2")
    chat.get_by_role("button", name="Earlier reply").click()
    expect(chat.locator(".flip")).to_contain_text("1 / 2")
    assert chat.locator("#thread .reply .text").inner_text() == first


def test_a_chat_that_is_not_learned_from(chat: Page) -> None:
    chat.get_by_role("button", name="About this chat").click()
    chat.get_by_label("Don't learn from this chat").check()
    ask(chat, "A secret.")
    expect(chat.get_by_text("Mynah does not learn from this chat")).to_be_visible()
    expect(chat.get_by_role("button", name="Good reply")).to_have_count(0)
    chat.locator("#side .here").hover()
    chat.locator("#side .here .more-of > summary").click()
    chat.locator("#side .here").get_by_role("button", name="Delete").click()
    expect(chat.locator("#side .talks").get_by_role("link", name="A secret.")).to_have_count(0)


def test_wrong_input_is_told_and_lost_nowhere(chat: Page) -> None:
    say(chat, "x" * 100_000)
    expect(chat.get_by_role("alert")).to_contain_text("characters")
    expect(chat.get_by_role("alert")).not_to_contain_text("Traceback")
    assert len(chat.get_by_role("textbox", name="Message").input_value()) == 100_000
    expect(chat.locator("#side .talks li")).to_have_count(chat.locator("#side .talks li:not(.here)").count())


def test_markup_in_a_message_stays_text(chat: Page) -> None:
    ask(chat, "<img src=x onerror=alert(1)> <b>bold</b>")
    expect(chat.locator("#thread img")).to_have_count(0)


def test_phone_in_the_dark(new_page: Callable[..., Page], site: Site, cy: str) -> None:
    page = new_page(375, 740, color_scheme="dark")
    sign_in(page, site, cy)
    for path, sight in (("/", ".welcome"), ("/my-assistant", "#taste .card")):
        page.goto(f"{site.url}{path}")
        expect(page.locator(sight)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 375, path
        assert page.evaluate("document.body.classList.contains('dark')")
    page.get_by_role("button", name="Menu").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
