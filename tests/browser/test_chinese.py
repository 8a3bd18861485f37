"""A day in Simplified Chinese: whoever's browser asks for it reads no English but what people and the model wrote."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.site import PASSWORD, Site
from tests.browser.steps import bring

pytestmark = pytest.mark.browser

# What people and the model wrote, names, keys, code, and the list of pages that Gradio has and Mynah hides.
WRITTEN = (
    ".reply .text, .asked, #thread h1, #thread textarea, .talks li a, .talks summary, q, .me .name, .face, .mark, "
    ".brand, code, kbd, nav:not(#side nav), #heard"
)
OURS = {"Mynah", "Mei", "API", "JSON", "Markdown", "OpenAI", "zip"}


def test_a_day_in_chinese(site: Site, new_page: Callable[..., Page]) -> None:
    site.add("Mei")
    page = new_page(locale="zh-CN")
    wrong_password(page, site)
    page.get_by_label("密码").fill(PASSWORD)
    page.get_by_role("button", name="登录").click()
    expect(page.get_by_role("heading", name="你好，Mei。")).to_be_visible()
    expect(page.get_by_role("textbox", name="消息")).to_have_attribute("placeholder", "给 Mynah 写点什么…")
    no_english(page)
    give_a_thumb(page)
    compare_two(page)
    read_the_keys(page)
    open_my_assistant(page, site)
    there_is_nothing(page, site)


def wrong_password(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/sign-in")
    page.get_by_label("用户名").fill("Mei")
    page.get_by_label("密码").fill("not the password")
    page.get_by_role("button", name="登录").click()
    expect(page.get_by_role("alert")).to_have_text("用户名或密码错误。")
    no_english(page)


def give_a_thumb(page: Page) -> None:
    reply = ask(page, "What do bees eat?", "一个回复")
    reply.get_by_role("button", name="好的回复", exact=True).click()
    expect(reply.get_by_role("status")).to_contain_text("已从 1 次反馈中学习。")
    reply.get_by_role("button", name="清楚").click()
    expect(reply.get_by_role("button", name="清楚")).to_have_attribute("aria-pressed", "true")
    no_english(page)
    page.get_by_role("button", name="发送").click()
    expect(page.get_by_role("alert")).to_contain_text("还没有可发送的内容，请先写一条消息。")


def compare_two(page: Page) -> None:
    say(page, "And in winter?", "比较两个")
    expect(page.get_by_role("heading", name="你更喜欢哪一个？")).to_be_visible()
    no_english(page)
    page.get_by_role("button", name="左边更好").click()
    said = page.locator("#thread .reply").last.get_by_role("status")
    expect(said).to_contain_text("已从 2 次反馈中学习。")
    expect(said).to_contain_text("左：")
    no_english(page)


def read_the_keys(page: Page) -> None:
    page.locator("#side").get_by_role("button", name="快捷键").click()
    expect(page.get_by_role("heading", name="快捷键")).to_be_visible()
    no_english(page)
    page.get_by_role("button", name="关闭").click()


def open_my_assistant(page: Page, site: Site) -> None:
    bring(page, site, "Mei", 10)
    page.locator("#side").get_by_role("link", name="我的助手").click()
    expect(page.get_by_role("heading", name="我的助手")).to_be_visible()
    expect(page.get_by_text("来自 12 次反馈。")).to_be_visible()
    expect(page.get_by_role("button", name="立即更新")).to_be_visible()
    page.locator("#taste details.more > summary").click()
    expect(page.locator("#taste .trait", has_text="第二人称")).to_be_visible()
    no_english(page)
    page.get_by_text("删除我的账号").click()
    page.get_by_label("你的用户名").fill("Nobody")
    page.get_by_role("button", name="全部删除").click()
    expect(page.get_by_role("alert")).to_contain_text("请准确输入你的用户名 Mei。")


def there_is_nothing(page: Page, site: Site) -> None:
    answer = page.goto(f"{site.url}/nowhere")
    assert answer is not None and answer.status == 404
    expect(page.get_by_role("heading", name="这里什么也没有")).to_be_visible()
    no_english(page)


def test_the_admins_page_in_chinese(site: Site, new_page: Callable[..., Page]) -> None:
    page = new_page(locale="zh-CN")
    page.goto(f"{site.url}/sign-in")
    page.get_by_label("用户名").fill(site.admin)
    page.get_by_label("密码").fill(site.admin_password)
    page.get_by_role("button", name="登录").click()
    page.locator("#side").get_by_role("link", name="管理").click()
    expect(page.get_by_role("heading", name="管理", exact=True)).to_be_visible()
    page.get_by_role("button", name="生成链接").click()
    expect(page.locator("#people .secret")).to_contain_text("邀请链接。")
    expect(page.locator("#audit tbody tr").first).to_contain_text("邀请了他人")
    for heading in ("用户", "设置", "本服务器", "管理员操作记录"):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()


def say(page: Page, text: str, mode: str) -> None:
    page.locator("#mode label", has_text=mode).click()
    box = page.get_by_role("textbox", name="消息")
    box.fill(text)
    box.press("Enter")


def ask(page: Page, text: str, mode: str) -> Locator:
    say(page, text, mode)
    turn = page.locator("#thread .turns > li").last
    expect(turn.locator(".asked")).to_have_text(text)
    expect(turn.locator(".reply")).to_be_visible()
    return turn.locator(".reply")


def no_english(page: Page) -> None:
    """The page says its language, and no word on it is English: to be seen, as a label or as a hint."""
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    shown = page.evaluate(
        """(written) => {
            const copy = document.body.cloneNode(true);
            const others = copy.querySelectorAll(`script, style, svg, noscript, template, ${written}`);
            others.forEach((part) => part.remove());
            const labels = [...copy.querySelectorAll('[aria-label], [title], [placeholder]')].flatMap((part) =>
                ['aria-label', 'title', 'placeholder'].map((name) => part.getAttribute(name) ?? ''));
            return [copy.textContent, ...labels].join('\\n');
        }""",
        WRITTEN,
    )
    words = set(re.findall(r"[A-Za-z]{3,}", shown)) - OURS
    assert not words, f"English on {page.url}: {sorted(words)}"
