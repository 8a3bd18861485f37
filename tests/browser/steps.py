"""What people do in the browser, in the words of the pages."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser.site import PASSWORD, Site


def sign_in(page: Page, site: Site, name: str, password: str = PASSWORD) -> None:
    """Through the form, to the chat page."""
    page.goto(f"{site.url}/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def bring(page: Page, site: Site, name: str, labels: int) -> None:
    """So many labels for somebody who likes to be spoken to, as they could be brought from elsewhere."""
    key = site.command("key", "create", name)
    acts = [
        {
            "messages": [{"role": "user", "content": f"What is good about the number {number}?"}],
            "replies": [f"You can count to {number}, and you will like it!", f"The number {number} is a number."],
            "ranking": [[0], [1]],
        }
        for number in range(labels)
    ]
    sent = page.request.post(f"{site.url}/v1/me/preferences", data=acts, headers={"Authorization": f"Bearer {key}"})
    assert sent.status == 201, sent.text()


def say(page: Page, text: str, mode: str = "One reply") -> None:
    """Write a message and send it with the keyboard."""
    page.locator("#mode label", has_text=mode).click()
    box = page.get_by_role("textbox", name="Message")
    box.fill(text)
    box.press("Enter")


def answer(page: Page, text: str) -> Locator:
    """The reply to a message, once it is written. If Mynah asks which of two is better, that is left for later."""
    turn = page.locator("#thread .turns > li").last
    expect(turn.locator(".asked")).to_have_text(text)
    asked = page.locator("#stage .choice", has_text="so it asks")
    expect(turn.locator(".reply").or_(asked)).to_be_visible()
    if asked.is_visible():
        asked.get_by_role("button", name="Decide later").click()
    expect(turn.locator(".reply")).to_be_visible()
    return turn.locator(".reply")


def ask(page: Page, text: str) -> Locator:
    """Say something and wait for the reply."""
    say(page, text)
    return answer(page, text)
