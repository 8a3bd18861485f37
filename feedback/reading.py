"""A reply as its readers take it in: words, sentences, lines, list items.

Left out on purpose: tokenizers and language models. These splits are rough (“Dr.” ends a sentence), the same for every
reply, and cheap enough for thousands of drafts a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

_CJK = r"\u3400-\u9fff\u3040-\u30ff"
_WORD = re.compile(rf"[^\W\d_{_CJK}]+(?:['’][^\W\d_{_CJK}]+)?|[{_CJK}]")
_SENTENCE = re.compile(r"[.!?]+(?=[\s\"')\]]|$)|[。！？]+")
_ITEM = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)])\s+\S")
EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")


@dataclass(frozen=True)
class Reading:
    """A reply, split once for all traits."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        """Lower-case words; a Chinese or Japanese character counts as one."""
        return [word.lower().replace("’", "'") for word in _WORD.findall(self.text)]

    @cached_property
    def sentences(self) -> list[str]:
        """Pieces between sentence ends or line breaks, without the empty ones."""
        pieces = (piece for line in self.text.splitlines() for piece in _SENTENCE.split(line))
        return [piece.strip() for piece in pieces if _WORD.search(piece)]

    @cached_property
    def lines(self) -> list[str]:
        """Lines that hold something."""
        return [line for line in self.text.splitlines() if line.strip()]

    @cached_property
    def items(self) -> int:
        """List items: lines that start with a bullet or a number."""
        return sum(bool(_ITEM.match(line)) for line in self.lines)

    def rate(self, vocabulary: frozenset[str]) -> float:
        """Root of the share of words that are in a vocabulary, times ten: 1.0 is one word in a hundred."""
        hits = sum(word in vocabulary for word in self.words)
        return self.root_rate(hits)

    def root_rate(self, hits: int) -> float:
        """The same transform for anything counted."""
        return 10.0 * math.sqrt(hits / max(len(self.words), 12))


def repeated_share(words: Iterable[str], n: int) -> float:
    """Share of n-grams that occurred earlier in the same text, 0 (all new) to 1."""
    sequence = list(words)
    grams = [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
