"""A new person's first day, from the admin who adds them to the version that is theirs, and the admin's part in it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import PASSWORD, Site
from tests.browser.steps import answer, ask, say, sign_in

pytestmark = pytest.mark.browser
UPDATE_MS = 360_000  # a small update; other tests run beside it


def test_first_day(site: Site, new_page: Callable[..., Page]) -> None:
    admin, page = new_page(), new_page()
    add_by_admin(admin, site)
    sign_in(page, site, "Ada")
    thumb_with_a_reason(page)
    compare_two(page)
    rank_four(page)
    teach_by_editing(page)
    see_what_was_learned(page, site)
    update_and_roll_back(page)
    chat_with_the_version(page, site)
    export_by_admin(admin, site)


def add_by_admin(page: Page, site: Site) -> None:
    sign_in(page, site, site.admin, site.admin_password)
    page.locator("#side").get_by_role("link", name="Admin").click()
    expect(page.get_by_role("heading", name="Add somebody")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("Ada")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Ada can sign in now.")).to_be_visible()


def thumb_with_a_reason(page: Page) -> None:
    expect(page.get_by_role("heading", name="Hello, Ada.")).to_be_visible()
    say(page, "What do bees eat?")
    expect(page.locator("#stage .writing .text")).to_contain_text(" ")  # words appear while it is still written
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    reply = answer(page, "What do bees eat?")
    reply.get_by_role("button", name="Good reply").click()
    expect(reply.get_by_role("status")).to_contain_text("Learned from 1 click.")
    expect(reply.get_by_role("button", name="Good reply")).to_have_attribute("aria-pressed", "true")
    expect(reply.get_by_role("button", name="Good reply")).to_have_css(  # with the pointer still over it
        "background-color", "rgb(245, 165, 36)"
    )
    reply.get_by_role("button", name="clear").click()
    expect(reply.get_by_role("button", name="clear")).to_have_attribute("aria-pressed", "true")
    reply.get_by_label("Comment").fill("Just what I wanted to know")
    reply.get_by_role("button", name="Save").click()
    expect(reply.get_by_label("Comment")).to_have_value("Just what I wanted to know")
    page.reload()
    reply = answer(page, "What do bees eat?")  # the address remembers the chat, the server the thumb
    expect(reply.get_by_role("button", name="clear")).to_have_attribute("aria-pressed", "true")
    reply.get_by_role("button", name="Good reply").click()
    expect(reply.get_by_role("status")).to_contain_text("Taken back.")
    reply.get_by_role("button", name="Bad reply").click()
    expect(reply.get_by_role("status")).to_contain_text("Learned from 1 click.")


def compare_two(page: Page) -> None:
    say(page, "And in winter?", "Compare two")
    expect(page.get_by_role("heading", name="Which one do you like better?")).to_be_visible()
    left, right = page.locator("#stage .draft .text").all_inner_texts()
    assert "base" not in page.locator("#stage").inner_text(), "who wrote which is told only afterwards"
    drafts = page.locator("#stage .draft")
    drafts.first.evaluate("draft => draft.style.minHeight = '3000px'")
    page.get_by_role("button", name="Left is better").scroll_into_view_if_needed()
    expect(drafts.nth(1).locator(".text")).to_be_in_viewport()  # beside a long one the short one stays in sight
    page.get_by_role("button", name="Left is better").click()
    reply = answer(page, "And in winter?")
    expect(reply.get_by_role("status")).to_contain_text("Learned from 2 clicks.")
    expect(reply.get_by_role("status")).to_contain_text("Left: ")
    assert reply.locator(".text").inner_text() == left
    reply.get_by_role("button", name="Earlier reply").or_(reply.get_by_role("button", name="Later reply")).and_(
        page.locator(":enabled")
    ).click()
    expect(page.locator("#thread .reply .text").last).to_have_text(right, use_inner_text=True)


def rank_four(page: Page) -> None:
    say(page, "Who keeps bees?", "Rank four")
    drafts = page.locator("#stage .choice .draft")
    expect(drafts).to_have_count(4)
    best = drafts.nth(2).locator(".text").inner_text()
    for draft, place in zip(drafts.all(), ("2", "3", "1", "3"), strict=True):
        draft.get_by_role("radio", name=place).check(force=True)
    page.get_by_role("button", name="Save the order").click()
    reply = answer(page, "Who keeps bees?")
    expect(reply.get_by_role("status")).to_contain_text("Learned from 3 clicks.")
    assert reply.locator(".text").inner_text() == best


def teach_by_editing(page: Page) -> None:
    reply = page.locator("#thread .reply").last
    reply.get_by_label("Correct the reply").click()
    reply.get_by_label("The reply as it should have been").fill("You keep bees. **Anybody** can!")
    reply.get_by_role("button", name="Teach this").click()
    reply = page.locator("#thread .reply").last
    expect(reply.get_by_role("status")).to_contain_text("Learned from 4 clicks.")
    expect(reply.locator(".text")).to_have_text("You keep bees. Anybody can!")


def see_what_was_learned(page: Page, site: Site) -> None:
    page.locator("#side").get_by_role("link", name="My assistant").click()
    expect(page.get_by_text("From 4 clicks.")).to_be_visible()
    expect(page.locator("#taste .trait").first.get_by_role("img")).to_be_visible()
    expect(page.get_by_text("you have given 4")).to_be_visible()
    trait = page.locator("#taste .trait").first
    trait.get_by_label("Correct:").click()
    trait.get_by_role("slider").fill("0.9")
    expect(page.locator("#taste .said")).to_be_visible()
    expect(page.locator("#taste .trait").first).to_contain_text("set by you")
    page.get_by_role("button", name="New key").click()
    key = page.locator("#account .secret code").inner_text()
    acts = [
        {
            "messages": [{"role": "user", "content": f"What is good about the number {number}?"}],
            "replies": [f"You can count to {number}, and you will like it!", f"The number {number} is a number."],
            "ranking": [[0], [1]],
        }
        for number in range(8)
    ]
    sent = page.request.post(f"{site.url}/v1/me/preferences", data=acts, headers={"Authorization": f"Bearer {key}"})
    assert sent.status == 201, sent.text()
    expect(page.get_by_role("button", name="Update now")).to_be_visible()  # the page looks by itself
    expect(page.get_by_text("From 12 clicks.")).to_be_visible()


def update_and_roll_back(page: Page) -> None:
    page.get_by_role("button", name="Update now").click()
    expect(page.get_by_role("progressbar", name="Progress of the update")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel the update")).to_be_visible()
    expect(page.get_by_text("Done: the new version is in use")).to_be_visible(timeout=UPDATE_MS)
    expect(page.locator("#update .checks li").first).to_be_visible()
    expect(page.locator("#plot-reward")).to_be_visible()
    expect(page.locator("#versions .here")).to_contain_text("v1")
    page.get_by_role("button", name="Go back to base").click()
    expect(page.get_by_text("From the next reply on, base answers.")).to_be_visible()
    expect(page.locator("#versions .here")).to_contain_text("base")
    page.get_by_role("button", name="Use v1").click()
    expect(page.locator("#versions .here")).to_contain_text("v1")


def chat_with_the_version(page: Page, site: Site) -> None:
    page.locator("#side").get_by_role("link", name="New chat").click()
    expect(ask(page, "What is honey?").locator(".by")).to_contain_text("v1")


def export_by_admin(page: Page, site: Site) -> None:
    page.reload()
    entry = page.locator(".people > li").filter(has=page.get_by_text("Ada", exact=True))
    entry.get_by_text("1 version").click()
    with page.expect_download(timeout=180_000) as download:  # it is made and checked first
        entry.get_by_role("link", name="Adapter (PEFT)").click()
    names = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())).namelist()
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(names)
