"""A person's chats: found again, renamed, archived, deleted and brought back, exported, branched, and set up later."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.site import PASSWORD, Site
from tests.browser.steps import ask, sign_in

pytestmark = pytest.mark.browser

WRITTEN = """Here is **code**:

```python
def area(r):
    return 3.14 * r ** 2
```

The area is $\\pi r^2$, and it costs $5 or $10.

$$
\\frac{1}{3}
$$
"""


@pytest.fixture(scope="module")
def dee(site: Site) -> str:
    """Somebody with several chats."""
    site.add("Dee")
    return "Dee"


@pytest.fixture
def chat(page: Page, site: Site, dee: str) -> Page:
    """The chat page, signed in."""
    sign_in(page, site, dee)
    expect(page.get_by_role("heading", name=f"Hello, {dee}.")).to_be_visible()
    return page


def menu(page: Page) -> Locator:
    """What can be done with the open chat, unfolded."""
    entry = page.locator("#side li.here")
    entry.hover()
    entry.locator(".more-of > summary").click()
    return entry.locator(".tools-of")


def listed(page: Page) -> Locator:
    """The chats in the left column that are not archived."""
    return page.locator("#side .talks > ul > li")


def test_search_finds_words_and_chinese_and_shows_the_message(chat: Page) -> None:
    ask(chat, "我想看电影")
    chat.locator("#side").get_by_role("link", name="New chat").click()
    expect(chat.locator(".welcome")).to_be_visible()
    ask(chat, "Where is the lighthouse?")
    search = chat.get_by_role("searchbox", name="Search your chats")
    search.fill("电影")
    hit = chat.locator("#found .hits li")
    expect(hit).to_have_count(1)
    expect(hit.locator("mark").first).to_have_text("电影")
    search.fill('LIGHTH"')
    expect(hit.locator("mark")).to_have_count(0)  # the quote is text, and nobody wrote it
    search.fill("LIGHTH")
    expect(hit.locator("mark").first).to_have_text("lighth", ignore_case=True)  # the reply may say it too
    search.fill("电影")
    expect(hit.locator("mark").first).to_have_text("电影")
    hit.get_by_role("link").click()
    expect(chat.locator("#thread .hit")).to_contain_text("电影")  # the question, or a reply that says it too
    expect(search).to_have_value("电影")
    search.fill("absolutely nothing")
    expect(chat.locator("#found")).to_contain_text("Nothing found.")
    search.press("Escape")
    expect(chat.locator("#found")).to_be_empty()


def test_rename_archive_delete_and_undo(chat: Page) -> None:
    ask(chat, "Name a river.")
    form = menu(chat)
    form.get_by_label("Title").fill("Rivers & <b>lakes</b>")
    form.get_by_role("button", name="Rename").click()
    expect(chat.locator("#side li.here > a")).to_have_text("Rivers & <b>lakes</b>")
    count = listed(chat).count()
    menu(chat).get_by_role("button", name="Archive").click()
    expect(listed(chat)).to_have_count(count - 1)
    expect(chat.locator("#thread .reply")).to_be_visible()  # it stays open
    menu(chat).get_by_role("button", name="Back from the archive").click()
    expect(listed(chat)).to_have_count(count)
    menu(chat).get_by_role("button", name="Delete").click()
    expect(chat.locator(".welcome")).to_be_visible()
    expect(listed(chat)).to_have_count(count - 1)
    chat.reload()
    chat.locator("#side .gone").get_by_role("button", name="Undo").click()
    expect(listed(chat)).to_have_count(count)
    chat.locator("#side").get_by_role("link", name="Rivers").click()
    expect(chat.locator("#thread .asked")).to_have_text("Name a river.")


def test_exports_come_through_a_checked_route(chat: Page, site: Site) -> None:
    ask(chat, "Name a mountain.")
    entry = menu(chat)
    with chat.expect_download() as download:
        entry.get_by_role("link", name="Markdown").click()
    assert download.value.suggested_filename == "Name a mountain.md"
    text = download.value.path().read_text()
    assert text.startswith("# Name a mountain.") and "## Dee\n\nName a mountain.\n\n## Mynah (" in text
    conversation = parse_qs(urlsplit(chat.url).query)["c"][0]
    answer = chat.request.get(f"{site.url}/conversations/{conversation}.json")
    assert [message["role"] for message in json.loads(answer.text())["messages"]] == ["user", "assistant"]
    site.add("Ulf")
    with httpx.Client(base_url=site.url, headers={"Origin": site.url}, timeout=30) as client:
        paths = [f"/conversations/{conversation}.md", f"/conversations/{conversation}.json", "/search?q=mountain"]
        assert [client.get(path).status_code for path in paths] == [401] * 3
        client.post("/sign-in", data={"name": "Ulf", "password": PASSWORD})
        assert [client.get(path).status_code for path in paths] == [404, 404, 200]
        assert "mountain." not in client.get(paths[2]).text
        assert client.get(f"/conversations/{conversation}.zip").status_code == 404


def test_an_earlier_message_is_edited_and_the_old_branch_stays(chat: Page) -> None:
    ask(chat, "Name a colour.")
    ask(chat, "And another one.")
    first = chat.locator("#thread .turns > li").first
    first.hover()
    first.get_by_label("Edit your message").click()
    first.get_by_label("Ask this instead").fill("Name a fruit.")
    first.get_by_role("button", name="Ask again").click()
    expect(chat.locator("#thread .asked")).to_have_text(["Name a fruit."])
    expect(chat.locator("#thread .reply")).to_be_visible()
    expect(chat.locator(".of-asked .flip")).to_contain_text("2 / 2")
    chat.get_by_role("button", name="Earlier version of this message").click()
    expect(chat.locator("#thread .asked")).to_have_text(["Name a colour.", "And another one."])
    chat.reload()
    expect(chat.locator("#thread .asked")).to_have_text(["Name a colour.", "And another one."])
    chat.get_by_role("button", name="Later version of this message").click()
    expect(chat.locator("#thread .asked")).to_have_text(["Name a fruit."])


def test_what_is_set_for_a_chat_can_be_changed_later(chat: Page) -> None:
    reply = ask(chat, "Name a bird.")
    expect(reply.get_by_role("button", name="Good reply")).to_be_visible()
    chat.get_by_role("button", name="About this chat").click()
    how = chat.get_by_label("How should it answer in this chat?")
    how.fill("Answer in verse.")
    expect(how).to_have_value("Answer in verse.")
    with chat.expect_response(lambda answer: "Answer in verse." in (answer.request.post_data or "")):
        how.blur()
    chat.get_by_label("Don't learn from this chat").check()
    expect(chat.get_by_text("Mynah does not learn from this chat, so")).to_be_visible()
    expect(chat.get_by_role("button", name="Good reply")).to_have_count(0)
    chat.reload()
    chat.get_by_role("button", name="About this chat").click()
    expect(chat.get_by_label("How should it answer in this chat?")).to_have_value("Answer in verse.")
    expect(chat.get_by_label("Don't learn from this chat")).to_be_checked()
    chat.locator("#side").get_by_role("link", name="New chat").click()
    expect(chat.get_by_label("How should it answer in this chat?")).to_have_value("")
    expect(chat.get_by_label("Don't learn from this chat")).not_to_be_checked()


def test_code_is_coloured_and_copied_and_maths_is_drawn(chat: Page) -> None:
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"])
    reply = ask(chat, "What is the area of a circle?")
    reply.get_by_label("Correct the reply").click()
    reply.get_by_label("The reply as it should have been").fill(WRITTEN)
    reply.get_by_role("button", name="Teach this").click()
    reply = chat.locator("#thread .reply").last
    expect(reply.locator("math")).to_have_count(2)
    assert reply.locator("mfrac").bounding_box()["height"] > 20  # type: ignore[index]
    expect(reply.locator(".code .k").first).to_have_text("def")
    expect(reply).to_contain_text("it costs $5 or $10.")
    reply.get_by_role("button", name="Copy the code").click()
    assert chat.evaluate("navigator.clipboard.readText()") == "def area(r):\n    return 3.14 * r ** 2\n"
    reply.get_by_role("button", name="Copy", exact=True).click()
    assert chat.evaluate("navigator.clipboard.readText()").startswith("Here is **code**:")


def test_a_phone_has_all_of_it_in_a_drawer(new_page: Callable[..., Page], site: Site, dee: str) -> None:
    page = new_page(375, 740, color_scheme="dark", has_touch=True)
    sign_in(page, site, dee)
    ask(page, "Name a tree. " + "x" * 400)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    search = page.get_by_role("searchbox", name="Search your chats")
    expect(search).not_to_be_visible()
    page.get_by_role("button", name="Menu").tap()
    search.fill("tree")
    expect(page.locator("#found .hits mark").first).to_have_text("tree", ignore_case=True)
    page.locator("#side li.here .more-of > summary").tap()
    page.locator("#side li.here").get_by_role("button", name="Delete").tap()
    page.locator("#side .gone").first.get_by_role("button", name="Undo").tap()
    page.locator("#side").get_by_role("link", name="Name a tree.").first.tap()
    expect(search).not_to_be_visible()  # the drawer closes over what was opened
    expect(page.locator("#thread .asked")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 375
