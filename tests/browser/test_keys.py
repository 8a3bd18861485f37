"""By keyboard alone: the sheet of keys, thumbs, votes, an order; and Mynah asking for a comparison by itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import Site
from tests.browser.steps import answer, ask, say, sign_in

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def fay(site: Site) -> str:
    """Somebody without a mouse."""
    site.add("Gwen")
    return "Gwen"


@pytest.fixture
def chat(page: Page, site: Site, fay: str) -> Page:
    """The chat page, signed in."""
    sign_in(page, site, fay)
    expect(page.get_by_role("heading", name=f"Hello, {fay}.")).to_be_visible()
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()  # one can begin to write at once
    return page


def test_a_sheet_lists_the_keys_and_they_do_what_it_says(chat: Page) -> None:
    reply = ask(chat, "Name a bird.")
    box = chat.get_by_role("textbox", name="Message")
    box.press("?")
    expect(box).to_have_value("?")  # typing is typing
    box.fill("")
    box.press("Escape")
    chat.keyboard.press("?")
    sheet = chat.get_by_role("dialog", name="Keys")
    expect(sheet.locator("dt").first).to_have_text("1")
    chat.keyboard.press("Escape")
    expect(sheet).to_have_count(0)
    chat.keyboard.press("+")
    expect(reply.get_by_role("button", name="Good reply")).to_have_attribute("aria-pressed", "true")
    chat.keyboard.press("-")
    expect(reply.get_by_role("button", name="Bad reply")).to_have_attribute("aria-pressed", "true")
    chat.keyboard.press("e")
    field = chat.get_by_label("Ask this instead")
    expect(field).to_be_focused()
    field.press("Escape")
    expect(field).not_to_be_visible()
    chat.keyboard.press("r")
    expect(chat.locator(".flip")).to_contain_text("2 / 2")
    chat.keyboard.press("/")
    expect(chat.get_by_role("searchbox", name="Search your chats")).to_be_focused()
    chat.keyboard.press("Escape")
    chat.keyboard.press("n")
    expect(chat.locator(".welcome")).to_be_visible()
    chat.keyboard.press("m")
    expect(box).to_be_focused()


def test_single_keys_can_be_turned_off(chat: Page) -> None:
    chat.get_by_role("button", name="Keys").click()
    chat.get_by_label("Single keys work where I am not typing").uncheck()
    chat.get_by_role("button", name="Close").click()
    chat.keyboard.press("m")
    expect(chat.get_by_role("textbox", name="Message")).not_to_be_focused()
    chat.keyboard.press("?")
    expect(chat.get_by_label("Single keys work where I am not typing")).not_to_be_checked()


@pytest.mark.parametrize(("key", "shown"), [("1", 0), ("2", 1), ("0", 0)])
def test_a_comparison_is_decided_with_one_key(chat: Page, key: str, shown: int) -> None:
    say(chat, "Name a fish.", "Compare two")
    expect(chat.get_by_role("heading", name="Which one do you like better?")).to_be_focused()
    texts = chat.locator("#stage .draft .text").all_inner_texts()
    chat.keyboard.press(key)
    reply = answer(chat, "Name a fish.")
    expect(reply.get_by_role("status")).to_contain_text("Learned from")
    assert reply.locator(".text").inner_text() == texts[shown]


def test_an_order_is_given_with_keys(chat: Page) -> None:
    say(chat, "Name a flower.", "Rank four")
    expect(chat.get_by_role("heading", name="Put them in order")).to_be_focused()
    best = chat.locator("#stage .draft .text").nth(1).inner_text()
    for presses in (2, 1, 3, 4):  # places of A, B, C and D, by arrow keys within each group
        chat.keyboard.press("Tab")
        chat.keyboard.press("Space")
        for _ in range(presses - 1):
            chat.keyboard.press("ArrowRight")
    chat.keyboard.press("Tab")
    expect(chat.get_by_role("button", name="Save the order")).to_be_focused()
    chat.keyboard.press("Enter")
    reply = answer(chat, "Name a flower.")
    expect(reply.get_by_role("status")).to_contain_text("Learned from")
    assert reply.locator(".text").inner_text() == best


def test_mynah_asks_by_itself_until_it_is_told_not_to(chat: Page, site: Site) -> None:
    ask(chat, "Hello.").get_by_role("button", name="Good reply").click()
    for number in range(4):
        due(site)
        say(chat, f"Tell me about animal number {number}.")
        expect(chat.locator("#thread .turns > li")).to_have_count(number + 2)
        expect(
            chat.locator("#stage .choice").or_(chat.locator("#thread .turns > li:last-child .reply"))
        ).to_be_visible()
        if chat.locator("#stage .choice").count():
            break  # two replies of a few words may be too alike to ask about
    expect(chat.locator("#stage")).to_contain_text("Your answer would teach Mynah something, so it asks.")
    expect(chat.locator("#stage .draft")).to_have_count(2)
    chat.get_by_role("button", name="Don't ask me").click()
    expect(chat.locator("#stage .choice")).to_have_count(0)
    expect(chat.locator("#thread .reply")).to_have_count(chat.locator("#thread .asked").count())
    due(site)
    ask(chat, "And one more.")
    chat.reload()
    chat.get_by_role("button", name="About this chat").click()
    expect(chat.get_by_label("let Mynah ask me")).not_to_be_checked()


def due(site: Site) -> None:
    """As if four turns had passed since Mynah asked last."""
    with sqlite3.connect(Path(site.environment["MYNAH_DATA_DIR"]) / "mynah.db", timeout=30) as database:
        database.execute("update user_settings set value = '4' where name = 'turns_since_asked'")
    database.close()
