"""Parts of the pages that need no browser: Markdown, words, origins, votes, replies under way."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import gradio as gr
import pytest
from starlette.requests import Request

from assistant.ui.chat_view import Place, place
from assistant.ui.live import LiveTurn
from assistant.ui.render import markdown
from assistant.ui.session import same_origin
from assistant.ui.verdicts import placed, voted
from assistant.ui.words import ago, duration, wrote
from feedback.errors import Busy, InvalidInput


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**bold** and `code`", "<strong>bold</strong> and <code>code</code>"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("<b onclick=x>b</b>", "&lt;b onclick=x&gt;"),
        (
            "[here](https://example.org)",
            'href="https://example.org" rel="noopener noreferrer nofollow" target="_blank"',
        ),
        ("![cat](https://example.org/c.png)", '<a href="https://example.org/c.png"'),
        ("```python\nprint(1)\n```", '<span class="nb">print</span>'),
        ("```nonsense\n<b>\n```", "&lt;b&gt;"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "<td>1</td>"),
        ("```python\nprint(1)\n```", 'data-act="copy" aria-label="Copy the code"'),
        ("```<b>\nx\n```", "<span>&lt;b&gt;</span>"),
        ("Let $x^2$ be", "<msup><mi>x</mi><mn>2</mn></msup>"),
        (r"\(a\) and \[b\]", '<math display="block"><mrow><mi>b</mi></mrow></math>'),
        ("$$\n\\frac{a}{b}\n\n- c\n$$\nthen", "</mfrac><mo>−</mo><mi>c</mi></mrow></math></div>\n<p>then</p>"),
        ("- one\n  $$\n  x\n  $$\n- two", "<li>two</li>"),
        ("It costs $5 and $10, or $5-$10.", "It costs $5 and $10, or $5-$10."),
        ("`$x$` and \\$5$", "<code>$x$</code> and $5$"),
        ("$$ unclosed\n\nmore", "<p>$$ unclosed</p>"),
        ("$a_1_2$", '<code class="formula">a_1_2</code>'),
        (r"$\frac{$", r'<code class="formula">\frac{</code>'),
        ("$" + "{" * 1500 + "$", '<code class="formula">{{'),
        ("$" + "x" * 3000 + "$", '<code class="formula">xx'),
        (r"$\newcommand{\a}{\b\b}\a$", r'<code class="formula">\newcommand'),
        (r"$\text{<script>alert(1)</script>&lt;}$", "<mtext>&lt;script&gt;alert(1)&lt;/script&gt;&lt;</mtext>"),
        (r"$\href{javascript:alert(1)}{x}$", "<mrow><mi>x</mi></mrow>"),
        (r"$\style{position:fixed}{x}\class{y}{z}$", "<mrow><mrow><mi>x</mi></mrow><mrow><mi>z</mi></mrow></mrow>"),
        (r"$\color{red}{x}$", '<mstyle mathcolor="red">'),
        (r"$\color{red;x:url(y)}{x}$", "<mstyle><mrow>"),
    ],
)
def test_markdown_is_shown_and_nothing_else(text: str, expected: str) -> None:
    shown = markdown(text)
    assert expected in shown
    for never in ("<img", "<script", "javascript:", "style=", "onclick="):
        assert never not in shown.replace("onclick=x&gt;", "")


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "vbscript:x"])
def test_links_that_run_are_no_links(address: str) -> None:
    assert "<a" not in markdown(f"[x]({address})") and "<a" not in markdown(f"![x]({address})")


@pytest.mark.parametrize(
    "scheme", ["search-ms", "ms-msdt", "ms-word", "tel", "ftp", "smb", "FILE", "x", "data:image/png"]
)
def test_links_that_start_programs_are_no_links(scheme: str) -> None:
    for text in (f"[x]({scheme}:y)", f"![x]({scheme}:y)", f"<{scheme}:yy>", f"[x]\n\n[x]: {scheme}:y"):
        assert "<a" not in markdown(text), text


@pytest.mark.parametrize(
    "address",
    ["https://a.b/c:d", "HTTP://a.b", "mailto:a@b.c", "/here", "here/a:b", "?a=b:c", "#here:there", "//a.b/c"],
)
def test_links_to_the_web_to_mail_and_within_are_links(address: str) -> None:
    assert f'<a href="{address}"' in markdown(f"[x]({address})")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Breaks off what takes far too long."""

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


LONGEST = 32_000
PIECES = (
    "$$x\n", "\\[x\n", "$$", "\\(", "\\[", "$", "$1$ ", "[", "![", "[a](", "[a][", "[\\(", "*", "_", "**a", "*a_",
    "`", "`a``", "<", "<a", "&", "> ", "> a\nb\n", "- ", "1. ", "* a\n", "- > ", "- [", "[a]: b\n", "|",
    "|a|b|\n", "|\n|-\n", "a\n", "~~~\n",
)  # fmt: skip
HOSTILE = {
    **{piece: piece * (LONGEST // len(piece)) for piece in PIECES},
    "brackets before stars": "[" * 300 + "*" * (LONGEST - 300),
    "nested lists": "".join("  " * (depth % 40) + "- a\n" for depth in range(720)),
    "lines after a nested quotation": ">" * 100 + "a\n" * (LONGEST // 2 - 50),
    "a table": "|a|b|\n|-|-|\n" + "|1|2|\n" * 5000,
    "a wide table": "|" + "a|" * 5000 + "\n|" + "-|" * 5000 + "\n" + "a\n" * 5000,
    "closers that come too late": "\\[x\n" * 7000 + "x\\] y\n" * 500,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_no_text_takes_long(what: str) -> None:
    """Each takes a second at most, hours before."""
    with within(20):
        assert "<script" not in markdown(HOSTILE[what])


def test_what_would_take_long_is_shown_as_it_was_written() -> None:
    shown = markdown(HOSTILE["lines after a nested quotation"])
    assert shown.startswith("<p>&gt;&gt;&gt;") and "<blockquote>" not in shown and shown.count("<br>\na") > 15_000
    shown = markdown("![" * 10_000 + "<b>**b**")
    assert shown == "<p>" + "![" * 10_000 + "&lt;b&gt;**b**</p>\n"
    assert "<strong>b</strong>" in markdown("[a](https://b.c) [x] " * 1000 + "**b**"), "and that is not much"


def test_long_code_has_no_colours() -> None:
    short, long = (markdown("```java\n" + "a < " * count + "\n```") for count in (500, 8000))
    assert '<span class="' in short and '<span class="' not in long and long.count("a &lt; ") == 8000


@pytest.mark.parametrize("opened", ["$$", "\\["])
def test_a_formula_ends_not_too_far_down(opened: str) -> None:
    close = {"$$": "$$"}.get(opened, "\\]")
    assert '<div class="formula"><math' in markdown(f"{opened}\n" + "x\n" * 300 + close)
    assert '<div class="formula">' not in markdown(f"{opened}\n" + "x\n" * 1200 + close)


@pytest.mark.parametrize(
    ("method", "headers", "ours"),
    [
        ("POST", {"origin": "http://mynah.local:7860"}, True),
        ("POST", {"origin": "http://evil.example"}, False),
        ("POST", {"origin": "null"}, False),
        ("POST", {"origin": "http://mynah.local"}, False),
        ("POST", {"referer": "http://mynah.local:7860/my-assistant"}, True),
        ("POST", {"referer": "http://evil.example/http://mynah.local:7860"}, False),
        ("POST", {"sec-fetch-site": "cross-site"}, False),
        ("POST", {}, False),
        ("GET", {}, True),
        ("GET", {"sec-fetch-site": "same-origin"}, True),
        ("GET", {"sec-fetch-site": "cross-site"}, False),
    ],
)
def test_origin(method: str, headers: dict[str, str], ours: bool) -> None:
    raw = [(b"host", b"mynah.local:7860"), *((name.encode(), value.encode()) for name, value in headers.items())]
    assert same_origin(Request({"type": "http", "method": method, "headers": raw})) is ours


def test_votes_as_tiers() -> None:
    assert voted(["a", "b"], "left") == [["a"], ["b"]]
    assert voted(["a", "b"], "right") == [["b"], ["a"]]
    assert voted(["a", "b"], "tie") == voted(["a", "b"], "neither") == [["a", "b"]]


def test_places_as_tiers() -> None:
    order = ["a", "b", "c", "d"]
    assert placed(order, press(a="2", b="1", c="2")) == [["b"], ["a", "c"]]
    with pytest.raises(InvalidInput, match="at least two"):
        placed(order, press(a="1"))


def press(**values: str) -> gr.EventData:
    """An event of a panel."""
    return gr.EventData(None, values)


def test_words() -> None:
    now = datetime.now(UTC)
    assert ago((now - timedelta(seconds=5)).isoformat()) == "just now"
    assert ago((now - timedelta(minutes=1, seconds=2)).isoformat().replace("+00:00", "Z")) == "1 minute ago"
    assert ago((now - timedelta(hours=5)).isoformat()) == "5 hours ago"
    assert ago("2024-03-09T00:00:00Z") == "9 Mar 2024"
    assert (
        duration(None) == "" and duration(20) == "less than a minute left" and duration(130) == "about 2 minutes left"
    )
    assert wrote("adapter+rerank", 3)[0] == "v3 · best of 16"


class _Turn:
    """Two drafts in three pieces; then, if asked to, a failure."""

    reply_ids: Sequence[str] = ("r1", "r2")
    progress = 0.5
    streams = True
    asked = may_ask = False

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def pieces(self) -> Iterator[tuple[int, str]]:
        yield from [(0, ""), (0, "one"), (1, "two"), (0, " more")]
        if self.error:
            raise self.error

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("error", [None, Busy("Too much at once."), ZeroDivisionError("a defect")])
def test_a_live_turn_keeps_what_was_written(error: Any) -> None:
    live = LiveTurn(_Turn(error), "?")
    assert live.percent == 50
    live.gather()
    assert live.done and live.texts == ["one more", "two"] and live.percent == 0
    assert (live.error is None) == (error is None)
    assert live.error is None or "defect" not in live.error.message


class _Rival(_Turn):
    """One reply; when all is written there is a rival to compare it with, if that would teach something."""

    reply_ids: Sequence[str] = ("r1",)
    streams, may_ask = False, True

    def __init__(self, worth: bool) -> None:
        super().__init__()
        self.worth = worth

    def pieces(self) -> Iterator[tuple[int, str]]:
        yield 0, "one"
        if self.worth:
            self.reply_ids, self.asked = ("r1", "r2"), True
            yield 1, "two"


@pytest.mark.parametrize("worth", [True, False])
def test_a_turn_that_asks_is_one_reply_until_its_end(worth: bool) -> None:
    live = LiveTurn(_Rival(worth), "?")
    assert live.reply_ids == ["r1"]
    live.gather()
    assert live.texts == ["one"] and live.reply_ids == ["r1"]
    assert live.to_compare == (["r1", "r2"] if worth else []) and live.asked is worth and not live.seen_growing


def test_replies_that_were_read_as_they_grew_keep_their_places() -> None:
    live = LiveTurn(_Turn(), "?")
    live.gather()
    assert live.to_compare == ["r1", "r2"] and live.seen_growing and not live.asked


def test_places() -> None:
    assert place(["a"], "a") is None and place(["a", "b"], "c") is None
    assert place(["a", "b", "c"], "a") == Place(1, 3, "", "b")
    assert place(["a", "b", "c"], "b") == Place(2, 3, "a", "c")
    assert place(["a", "b", "c"], "c") == Place(3, 3, "b", "")
