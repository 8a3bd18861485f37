"""What the pages say in Chinese: every text has its translation, and each is found again. No browser needed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from adapters.checks import GateConfig, check_foretold, check_length, check_preference
from assistant.learning import Ack
from assistant.probation import Count, Standing, Thumbs, _told
from assistant.profile import _words
from assistant.ui.language import CHINESE, DICTIONARY, HOLE, PARTS, language, say, spoken, told
from assistant.ui.render import show
from assistant.ui.verdicts import learned
from assistant.ui.words import ago, duration, trait_title, who, wrote
from tests.browser import texts


@pytest.fixture
def chinese() -> Iterator[None]:
    with spoken("zh-CN,zh;q=0.9,en;q=0.8"):
        yield


def test_every_text_has_a_translation() -> None:
    said = texts.pages() | texts.tables()
    assert len(said) > 400, "the search for texts has lost some"
    assert sorted(said - DICTIONARY.keys()) == []
    assert sorted(texts.traits() - PARTS["traits"].keys()) == []
    assert sorted(texts.services() - {texts.bare(text) for text in PARTS["services"]}) == []


def test_no_translation_is_unused_or_given_twice() -> None:
    said = texts.pages() | texts.tables() | texts.traits()
    services = texts.services()
    assert [text for text in DICTIONARY if text not in said and texts.bare(text) not in services] == []
    assert len(DICTIONARY) == sum(map(len, PARTS.values()))


def test_placeholders_and_tags_agree() -> None:
    for english, translated in DICTIONARY.items():
        assert translated.strip(), english
        assert sorted(HOLE.findall(english)) == sorted(HOLE.findall(translated)), english
        assert sorted(re.findall("<[^>]+>", english)) == sorted(re.findall("<[^>]+>", translated)), english
        assert '"' not in translated, f"{english}: it may stand in an attribute"


@pytest.mark.parametrize("path", texts.TEMPLATES, ids=lambda path: path.name)
def test_templates_say_nothing_by_themselves(path: texts.Path) -> None:
    assert texts.spoken_outside(path.read_text("utf-8")) == []


def test_the_language_is_the_browsers_first_one() -> None:
    for header, expected in (
        ("zh-CN", "zh-CN"),
        ("zh-CN;q=0.9, en", "zh-CN"),
        ("en-GB,zh-CN;q=0.9", "en"),
        ("zh-TW,zh;q=0.9", "en"),
        ("", "en"),
    ):
        with spoken(header):
            assert language() == expected
    assert language() == "en"


@pytest.mark.usefixtures("chinese")
def test_sentences_of_services_are_told() -> None:
    assert told("There is no version v3.") == "没有版本 v3。"
    assert told("Now clearly for shorter replies.") == "现在明显喜欢更短的回复。"
    assert told("The title has 1,234 characters; at most 200 are taken. Shorten it.").startswith("标题有 1,234 个字符")
    assert told("when you ask, after 3 more labels") == "再给出3 次反馈后，在你要求时"
    assert told("Mynah is busy: 3 of your own requests are waiting already. Try again in 9 s.").startswith("Mynah 正忙")
    assert told("Nothing was deleted: type your name, admin, exactly as it stands there.").endswith("用户名 admin。")
    assert told("Nobody ever said this.") == "Nobody ever said this."


@pytest.mark.usefixtures("chinese")
def test_checks_of_the_gate_are_told() -> None:
    config = GateConfig()
    foretold = (check_foretold(nats, 30, config) for nats in (0.3, -2.0))
    for check in (check_length(1.2, config), check_preference(0.93, 0.61, 30, config), *foretold):
        assert told(check.words) != check.words and "  " not in told(check.words)
    assert told(check_length(1.2, GateConfig()).words) == "它的回复长度是基础模型的 1.20 倍；允许范围为 0.25 到 2。"


@pytest.mark.usefixtures("chinese")
def test_the_end_of_a_trial_is_told() -> None:
    counts = Count(5, 0, 1), Count(3, 9, 0), Count()
    for count, thumbs in zip(counts, (None, Thumbs(3, 8, 6, 8), Thumbs(1, 2)), strict=True):
        trial = Standing(3, 2, True, count, count, thumbs)
        for words in (trial.words, *(_told(trial, ended) for ended in ("confirmed", "rolled back"))):
            assert not re.search(r"[A-Za-z]{2}", told(words).replace("Mynah", "")), words
    assert told(_told(Standing(3, None, True, counts[0], counts[0], None), "confirmed")) == (
        "版本 3 留用：它的回复与基础模型比较 5 次，胜 5 次（另有 1 次平局）。"
    )


@pytest.mark.usefixtures("chinese")
def test_words_in_chinese() -> None:
    assert (
        learned(Ack("f_1", 2, 9.0, "No longer sure about emoji."))
        == "已从 2 次反馈中学习。不再确定你是否喜欢使用表情符号。"
    )
    assert ago("2024-03-09T00:00:00Z") == "2024 年 3 月 9 日" and duration(61) == "剩余约 1 分钟"
    assert wrote("adapter+rerank", 3)[0] == "v3 · 16 选 1" and wrote("base", None)[0] == "基础模型"
    assert trait_title("people") == "人物" and say("People") == "用户"
    assert told(_words("lists", 4, True, True, False, "")) == "明显喜欢使用列表"
    assert told(_words("", 0, False, False, False, "lists")) == "这里的其他人喜欢使用列表"
    assert who("admin") == "admin" and who("the command line") == "命令行"


@pytest.mark.usefixtures("chinese")
def test_what_people_wrote_is_escaped_in_translations_too() -> None:
    html = show("thread.html", user={"name": "<b>Ada</b>"}, learn=True, turns=[], new=True, unknown=True)
    assert "你好，&lt;b&gt;Ada&lt;/b&gt;。" in html and "<b>" not in html


@pytest.mark.usefixtures("chinese")
def test_the_sign_in_page_says_its_language() -> None:
    values = {"error": "", "name": "", "invitation": "", "joining": False, "open": True, "styles": ""}
    assert f'<html lang="{CHINESE}">' in show("sign_in.html", **values)
