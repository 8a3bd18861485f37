"""Text as the search index holds it, and what a person typed as a query for it. Pure functions; the SQL is in store/.

SQLite's FTS5 finds words between spaces; Chinese, Japanese and Korean are written without. So a run of such characters
is indexed as its pairs, with the last character once more alone: 看电影 becomes "看电 电影 影". A word of two
characters is then one token, a longer one a phrase of pairs that follow each other, a single one the start of a pair.

Left out on purpose: operators. Whatever is typed is text to be found; quotes, AND, NEAR and * mean nothing special.
"""

from __future__ import annotations

import re
import unicodedata

_RUN = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]+")
MOST_TERMS = 12
BEFORE, AFTER = 36, 90  # characters of a snippet around the first hit


def indexed(text: str) -> str:
    """A text with its Chinese, Japanese and Korean runs as pairs."""
    return _RUN.sub(lambda run: f" {_pairs(run[0])} {run[0][-1]} ", text.replace("\0", " "))


def terms(typed: str) -> list[str]:
    """What a person looks for: the parts between spaces, or between scripts, that hold a letter or a digit."""
    spaced = _RUN.sub(r" \g<0> ", unicodedata.normalize("NFC", typed.replace("\0", " ")))
    return [part for part in spaced.split() if any(c.isalnum() for c in part)][:MOST_TERMS]


def query(typed: str) -> str:
    """What was typed as an FTS5 expression: every part must occur, each may go on. "" for nothing."""
    found = []
    for part in terms(typed):
        words = _pairs(part) if _RUN.match(part) else part.replace('"', " ").strip()
        found.append(f'"{words}"*')
    return " ".join(found)


def snippet(text: str, typed: str) -> list[tuple[str, bool]]:
    """A piece of the text around the first hit, cut into (words, is it a hit)."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    folded = _folded(line)
    spans = _spans(folded, [_folded(part) for part in terms(typed)])
    start = max(0, spans[0][0] - BEFORE) if spans else 0
    end = min(len(line), (spans[0][1] if spans else 0) + AFTER)
    while start and end - start < BEFORE + AFTER and not line[start - 1].isspace():
        start -= 1  # not from within a word
    pieces: list[tuple[str, bool]] = [("…", False)] if start else []
    at = start
    for left, right in spans:
        if right > end:
            break
        pieces += [(line[at:left], False), (line[left:right], True)]
        at = right
    pieces.append((line[at:end] + ("…" if end < len(line) else ""), False))
    return [(words, hit) for words, hit in pieces if words]


def _pairs(run: str) -> str:
    return " ".join(run[place : place + 2] for place in range(len(run) - 1)) or run


def _folded(text: str) -> str:
    """Lower case without accents, character for character, so that places stay the same."""
    return "".join(unicodedata.normalize("NFD", c.lower())[:1] or c for c in text)


def _spans(folded: str, wanted: list[str]) -> list[tuple[int, int]]:
    """Where the parts start a word (or stand anywhere, for scripts without spaces), in order, not overlapping."""
    found: list[tuple[int, int]] = []
    for part in wanted:
        start = "" if _RUN.match(part) else r"(?<!\w)"
        found += [match.span() for match in re.finditer(start + re.escape(part), folded)]
    apart: list[tuple[int, int]] = []
    for left, right in sorted(found):
        if not apart or left >= apart[-1][1]:
            apart.append((left, right))
    return apart
