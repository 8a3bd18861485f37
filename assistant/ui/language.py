"""What the browser app says, in the reader's language: English as it stands in the code, or Simplified Chinese.

    say("Hello, {name}.", name=user.name)            # a text of these pages
    counted(3, "{count} click", "{count} clicks")    # other languages have one form: that of many
    told("There is no version v3.")                  # a finished English sentence of the services, or one of a table

The English text is the key in i18n/zh_CN.json. A sentence of the services is found by its pattern, so that logs, the
HTTP API and the command line stay English and know nothing of this; what has no translation stays English too.

The language is the browser's first one and nobody's setting, by the rule that `gr.I18n` follows in the browser for what
Gradio's components hold (events.py); both read the same dictionary. Left out on purpose: Chinese locales other than
zh-CN, for which Gradio has no Simplified Chinese of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

ENGLISH, CHINESE = "en", "zh-CN"
HOLE = re.compile(r"\{\w+\}")  # a placeholder
_FILE = Path(__file__).parent / "i18n" / "zh_CN.json"

_language: ContextVar[str] = ContextVar("language", default=ENGLISH)


PARTS: dict[str, dict[str, str]] = json.loads(_FILE.read_text(encoding="utf-8"))
DICTIONARY = {english: chinese for part in PARTS.values() for english, chinese in part.items()}


def language() -> str:
    """The reader's language, as in the attribute lang of HTML."""
    return _language.get()


@contextmanager
def spoken(accept_language: str) -> Iterator[None]:
    """Say everything in the language of a request, until its end. accept_language: the header, "" without one."""
    first = accept_language.split(",")[0].split(";")[0].strip()
    before = _language.set(CHINESE if first.lower() == CHINESE.lower() else ENGLISH)
    try:
        yield
    finally:
        _language.reset(before)


def say(text: str, **values: Any) -> str:
    """A text of the pages with its placeholders filled in."""
    found = template(text)
    return found.format(**values) if values else found


def counted(count: int, one: str, many: str) -> str:
    """A text about so many of something."""
    return say(one if count == 1 and language() == ENGLISH else many, count=count)


def template(text: str) -> str:
    """A text of the pages, its placeholders left open."""
    return DICTIONARY.get(text, text) if language() == CHINESE else text


def told(sentence: str) -> str:
    """A finished English text, of the services or of a table."""
    return sentence if language() == ENGLISH else DICTIONARY.get(sentence) or _service(sentence)


def _service(sentence: str) -> str:
    """A text of the services. What stands in the holes of its pattern is told too, where the services say it."""
    for part in ("services", "traits"):
        if sentence in PARTS[part]:
            return PARTS[part][sentence]
    for pattern, chinese in _patterns():
        if found := pattern.fullmatch(sentence):
            return chinese.format(**{name: _service(value) for name, value in found.groupdict().items()})
    return sentence


def joined(*sentences: str) -> str:
    """Sentences one after the other; Chinese puts no space between them."""
    return ("" if language() == CHINESE else " ").join(filter(None, sentences))


def listed(phrases: list[str]) -> str:
    """ "a, b and c"."""
    if len(phrases) == 1:
        return phrases[0]
    return say("{several} and {last}", several=say(", ").join(phrases[:-1]), last=phrases[-1])


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The services' texts that have placeholders, the ones with the most words of their own first."""
    texts = (text for text in PARTS["services"] if HOLE.search(text))
    open_texts = sorted(texts, key=lambda text: -len(HOLE.sub("", text)))
    return [(_pattern(text), DICTIONARY[text]) for text in open_texts]


def _pattern(text: str) -> re.Pattern[str]:
    named = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(text))
    return re.compile(named, re.DOTALL)
