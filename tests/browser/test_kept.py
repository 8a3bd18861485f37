"""What somebody is at stays: drafts, corrections half written, comparisons, ticks; and trouble is always said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from feedback.store import Store
from tests.browser.site import Site
from tests.browser.steps import answer, ask, bring, say, sign_in

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def kim(site: Site) -> str:
    """Somebody who does several things at once."""
    site.add("Kim")
    return "Kim"


@pytest.fixture
def chat(page: Page, site: Site, kim: str) -> Page:
    """The chat page, signed in."""
    sign_in(page, site, kim)
    expect(page.get_by_role("heading", name=f"Hello, {kim}.")).to_be_visible()
    return page


def column(page: Page, title: str, act: str) -> None:
    """Do something with a chat in the left column."""
    entry = page.locator("#side .talks li", has_text=title).first
    entry.hover()
    entry.locator(".more-of > summary").click()
    entry.get_by_role("button", name=act).click()


def test_a_session_that_ended_is_said_and_the_draft_stays(chat: Page, site: Site) -> None:
    box = chat.get_by_role("textbox", name="Message")
    cookies = chat.context.cookies()
    chat.context.clear_cookies()
    box.fill("Is anybody there?")
    box.press("Enter")
    trouble = chat.locator("#trouble")
    expect(trouble).to_contain_text("Your session has ended. Sign in again.")
    expect(trouble.get_by_role("link", name="Sign in")).to_have_attribute("href", "/sign-in")
    expect(box).to_have_value("Is anybody there?")
    chat.context.add_cookies(cookies)  # as after signing in elsewhere
    box.press("Enter")
    answer(chat, "Is anybody there?")
    expect(trouble).to_have_count(0)


def test_a_server_that_is_away_is_said_and_the_draft_comes_back_with_the_page(chat: Page) -> None:
    chat.get_by_role("button", name="About this chat").click()
    chat.get_by_label("Don't learn from this chat").check()
    chat.get_by_label("How should it answer in this chat?").fill("In verse.")
    box = chat.get_by_role("textbox", name="Message")
    box.fill("A long letter")
    away = re.compile("/gradio_api/run/")
    chat.route(away, lambda route: route.abort("connectionrefused"))
    box.press("Enter")
    expect(chat.locator("#trouble")).to_contain_text("The server does not answer. What you wrote is kept")
    expect(chat.locator(".toast-wrap")).not_to_be_visible()
    chat.unroute(away)
    chat.reload()
    expect(box).to_have_value("A long letter")
    expect(chat.get_by_label("How should it answer in this chat?")).to_have_value("In verse.")
    expect(chat.get_by_label("Don't learn from this chat")).to_be_checked()
    chat.locator("#side").get_by_role("link", name="My assistant").click()
    chat.locator("#side").get_by_role("link", name="Chat", exact=True).click()
    expect(box).to_have_value("A long letter")
    chat.get_by_role("button", name="Sign out").click()
    expect(chat.get_by_label("Password")).to_be_visible()
    assert chat.evaluate("sessionStorage.length") == 0


def test_a_draft_whose_settings_do_not_come_back_stays_until_they_do(chat: Page) -> None:
    """Nothing that was written under a promise is put where it would be learned from."""
    chat.get_by_role("button", name="About this chat").click()
    chat.get_by_label("Don't learn from this chat").check()
    box = chat.get_by_role("textbox", name="Message")
    box.fill("Between us")
    draft = "sessionStorage.getItem('mynah-draft')"
    folded = "addEventListener('click', (event) => event.target.closest('#about') && event.stopPropagation(), true)"
    chat.context.add_init_script(f"if (!sessionStorage.getItem('mended')) {folded}")
    chat.reload()
    expect(chat.get_by_role("heading", name="Hello, Kim.")).to_be_visible()
    chat.wait_for_timeout(6000)  # it is tried for five seconds
    expect(box).to_have_value("")
    assert "Between us" in chat.evaluate(draft)
    chat.evaluate("sessionStorage.setItem('mended', 'yes')")
    chat.reload()
    expect(box).to_have_value("Between us")
    expect(chat.get_by_label("Don't learn from this chat")).to_be_checked()
    chat.reload()
    expect(box).to_have_value("Between us")
    box.fill("")


def test_a_proxy_that_answers_instead_is_said(chat: Page) -> None:
    def instead(route: Route) -> None:
        route.fulfill(status=413, body="<html>Too large</html>")

    chat.route(re.compile("/gradio_api/run/"), instead)
    say(chat, "Hello?")
    expect(chat.locator("#trouble")).to_contain_text("The server answers, but not as it should.")


def test_what_is_too_long_for_the_server_is_said_in_its_words(chat: Page) -> None:
    """As the HTTP API says it: the refusal comes before anything of Gradio's."""
    say(chat, "word " * 900_000)
    expect(chat.locator("#trouble")).to_contain_text("The body is larger than 4 MB; send less.")


def test_tidying_the_column_leaves_a_new_chat_as_it_was_set(chat: Page) -> None:
    ask(chat, "Name a stone.")
    chat.locator("#side").get_by_role("link", name="New chat").click()
    expect(chat.locator(".welcome")).to_be_visible()
    chat.get_by_role("button", name="About this chat").click()
    chat.get_by_label("Don't learn from this chat").check()
    chat.get_by_label("How should it answer in this chat?").fill("In one word.")
    column(chat, "Name a stone.", "Archive")
    expect(chat.locator("#side .archive")).to_be_visible()
    expect(chat.get_by_label("Don't learn from this chat")).to_be_checked()
    expect(chat.get_by_label("How should it answer in this chat?")).to_have_value("In one word.")


def test_a_chat_that_is_not_learned_from_asks_nothing(chat: Page) -> None:
    chat.get_by_role("button", name="About this chat").click()
    chat.get_by_label("Don't learn from this chat").check()
    say(chat, "Name a metal.", "Compare two")
    answer(chat, "Name a metal.")
    expect(chat.locator("#stage .choice")).to_have_count(0)
    expect(chat.locator("#thread .flip").last).to_contain_text("/ 2")
    chat.get_by_label("Don't learn from this chat").uncheck()
    expect(chat.get_by_text("Mynah does not learn from this chat, so")).to_have_count(0)
    expect(chat.get_by_role("button", name="Compare the replies")).to_have_count(0)  # written under a promise


def test_a_comparison_stays_blind_and_stays(chat: Page) -> None:
    ask(chat, "Name a fish.")
    say(chat, "And another.", "Compare two")
    choice = chat.locator("#stage .choice")
    expect(choice).to_be_visible()
    chat.locator("#thread .reply").first.get_by_role("button", name="Good reply").click()
    expect(chat.locator("#thread .said").first).to_be_visible()
    expect(choice).to_be_visible()
    expect(chat.locator("#thread .turns > li").last.locator(".by")).not_to_be_visible()
    order = choice.locator("[data-order]").first.get_attribute("data-order")
    form = chat.locator("#side li.here")
    form.hover()
    form.locator(".more-of > summary").click()
    form.get_by_label("Title").fill("Fishes")
    form.get_by_role("button", name="Rename").click()
    expect(chat.locator("#side li.here > a")).to_have_text("Fishes")
    assert choice.locator("[data-order]").first.get_attribute("data-order") == order
    choice.get_by_role("button", name="Left is better").click()
    expect(chat.locator("#thread .turns > li").last.locator(".by")).to_be_visible()


def test_what_is_being_corrected_stays_with_its_reply(chat: Page) -> None:
    ask(chat, "Name a dance.")
    chat.locator("#side").get_by_role("link", name="New chat").click()
    expect(chat.locator(".welcome")).to_be_visible()
    reply = ask(chat, "Name a song.")
    reply.get_by_label("Correct the reply").click()
    field = reply.get_by_label("The reply as it should have been")
    written = field.input_value()
    field.fill("Waltzing Matilda.")
    say(chat, "Who wrote it?")  # while the next reply is written and comes
    chat.locator("#thread .turns > li").nth(1).locator(".reply").wait_for()
    expect(chat.locator("#thread .reply").first.get_by_label("The reply as it should have been")).to_have_value(
        "Waltzing Matilda."
    )
    chat.locator("#thread .reply").first.get_by_role("button", name="Cancel").click()
    chat.locator("#thread .reply").first.get_by_label("Correct the reply").click()
    expect(chat.locator("#thread .reply").first.get_by_label("The reply as it should have been")).to_have_value(written)
    chat.locator("#thread .reply").first.get_by_label("The reply as it should have been").fill("Another song.")
    chat.locator("#side").get_by_role("link", name="Name a dance.").click()
    expect(chat.locator("#thread .asked")).to_have_text(["Name a dance."])
    other = chat.locator("#thread .reply").first
    other.get_by_label("Correct the reply").click()
    expect(other.get_by_label("The reply as it should have been")).not_to_have_value("Another song.")


def test_what_was_refused_is_not_lost(chat: Page) -> None:
    ask(chat, "Name a poet.")
    first = chat.locator("#thread .turns > li").first
    first.hover()
    first.get_by_label("Edit your message").click()
    field = first.get_by_label("Ask this instead")
    field.fill("Name a painter.")
    away = re.compile("/gradio_api/run/")
    chat.route(away, lambda route: route.fulfill(status=413, body="too large"))
    first.get_by_role("button", name="Ask again").click()
    expect(chat.locator("#trouble")).to_be_visible()
    chat.unroute(away)
    ask(chat, "Name another.")  # draws the thread anew
    expect(field).to_have_value("Name a painter.")
    chat.reload()
    expect(field).to_be_visible()
    expect(field).to_have_value("Name a painter.")
    first.get_by_role("button", name="Ask again").click()
    expect(chat.locator("#thread .asked")).to_have_text(["Name a painter."])


def test_a_comparison_goes_where_nothing_is_learned(chat: Page) -> None:
    ask(chat, "Name a hat.")
    say(chat, "And another hat.", "Compare two")
    expect(chat.locator("#stage .choice")).to_be_visible()
    chat.get_by_role("button", name="About this chat").click()
    chat.get_by_label("Don't learn from this chat").check()
    expect(chat.locator("#stage .choice")).to_have_count(0)
    expect(chat.locator("#thread .reply")).to_have_count(2)


def test_a_reply_that_has_come_is_said(chat: Page) -> None:
    reply = ask(chat, "Name a game.")
    expect(chat.get_by_role("status").filter(has_text="Mynah has replied:")).to_contain_text(
        reply.locator(".text").inner_text().split("\n")[0][:40]
    )
    said = chat.locator("#heard").inner_text()
    say(chat, "Name another game.")
    chat.locator("#side").get_by_role("link", name="New chat").click()  # before it has come
    expect(chat.locator(".welcome")).to_be_visible()
    assert chat.locator("#heard").inner_text() in ("", said), "nothing has come here"


def test_a_double_click_answers_no_question(chat: Page, site: Site) -> None:
    chat.goto(f"{site.url}/my-assistant")
    chat.get_by_role("button", name="New key").click()
    revoke = chat.locator("#account [data-act=revoke]")
    expect(revoke).to_have_count(1)
    revoke.dblclick()
    chat.wait_for_timeout(1000)
    expect(revoke).to_have_class(re.compile("sure"))
    revoke.click()
    expect(revoke).to_have_count(0)


def test_a_taste_is_set_by_the_arrow_keys(page: Page, site: Site) -> None:
    site.add("Lou")
    sign_in(page, site, "Lou")
    expect(page.get_by_role("heading", name="Hello, Lou.")).to_be_visible()
    bring(page, site, "Lou", 6)
    page.goto(f"{site.url}/my-assistant")
    trait = page.locator("#taste .trait").nth(3)
    title = trait.locator("strong").inner_text()
    trait.get_by_label("Correct:").click()
    slider = trait.get_by_role("slider")
    before = float(slider.input_value())
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    moved = page.locator("#taste .trait", has=page.get_by_text(title, exact=True))
    expect(moved).to_contain_text("set by you")
    expect(moved.get_by_role("slider")).to_be_focused()
    assert float(moved.get_by_role("slider").input_value()) == pytest.approx(min(before + 0.3, 1.0))
    page.keyboard.press("ArrowLeft")
    expect(moved.get_by_role("slider")).to_have_value(f"{min(before + 0.3, 1.0) - 0.1:.1f}")


def test_chats_beyond_the_newest_are_there_when_asked_for(page: Page, site: Site) -> None:
    site.add("Old")
    store = Store(Path(site.environment["MYNAH_DATA_DIR"]) / "mynah.db")
    (user,) = [user for user in store.people.all() if user.name == "Old"]
    with store.database.transaction():
        for number in range(205):
            store.chats.start(user.id, f"Chat {number}")
    store.close()
    sign_in(page, site, "Old")
    chats = page.locator("#side .talks > ul > li")
    expect(chats).to_have_count(200)
    page.get_by_role("button", name="Show 5 older").click()
    expect(chats).to_have_count(205)
    column(page, "Chat 3", "Archive")
    expect(chats).to_have_count(204)
