"""Text that is shown while it is being written: whole characters only, never a part of a stop string, and no loop.

A token may hold half a character, which decodes to U+FFFD until the other half comes; and what looks like the first
letters of a stop string may turn out to be one. Both are held back until it is clear. A small model may go round in
a circle up to its limit: that ends the reply before it. Pure: decoding is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from feedback.errors import InvalidInput

MAX_STOPS, MAX_STOP_CHARACTERS = 4, 200
UNFINISHED = "\ufffd"
TIMES, LENGTH = 3, 240  # a loop says its phrase so often and is so many characters long
PHRASE, LETTERS = range(24, 201), 8  # characters of a phrase, and unlike letters in it
WORDS, UNLIKE = 60, 12  # a circle: so many words in one line, and no more than so many unlike ones among them
REFRAIN, SAID = 5, 5  # a refrain: a sentence of so many words or more, and how often it is said
SENTENCE = re.compile(r"[^.!?\n]+[.!?]")


class TextStream:
    """What may be shown of one reply so far."""

    def __init__(self, stops: Sequence[str] = (), question: str = "") -> None:
        """stops: strings that end the reply; neither they nor what follows is ever shown. question: what is made of its
        words may be said again and again."""
        self.stops, self._asked = tuple(stops), set(_words(question))
        self.shown = ""
        self.cut = False

    def push(self, text: str, *, final: bool = False) -> str:
        """Take the whole text decoded so far; returns what is newly safe to show.

        final: nothing follows, so what was held back is due. After a stop string or a loop (`cut`) nothing is shown.
        """
        if self.cut:
            return ""
        met = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if met:
            self.cut = True
            safe = text[: min(met)]
        elif final:
            safe = text
        else:
            safe = text.rstrip(UNFINISHED)
            safe = safe[: len(safe) - self._pending(safe)]
        new = safe[len(self.shown) :]
        self.shown += new
        if new and not self.cut:
            phrase = looped(self.shown)
            again = _words(phrase + phrase)[1:-1] if phrase else circled(self.shown) or refrain(self.shown)
            self.cut = bool(again) and not self._asked.issuperset(again)
        return new

    def _pending(self, text: str) -> int:
        """Length of the longest ending that may yet grow into a stop string."""
        longest = max((len(stop) - 1 for stop in self.stops), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.stops):
                return size
        return 0


def looped(text: str) -> str:
    """The phrase that a text ends by saying over and over, "" where there is none.

    Rules and tables are none, nor are three like lines of a program.
    """
    for size in PHRASE:
        phrase, times = text[-size:], max(TIMES, -(-LENGTH // size))
        if text.endswith(phrase * times) and len({letter for letter in phrase if letter.isalpha()}) >= LETTERS:
            return phrase
    return ""


def circled(text: str) -> list[str]:
    """The words that the last line of a text ends by putting in one order after the other, empty where it does not.

    Of 2,031 texts of people and large models nine have such a line, and all nine are loops (LOG.md). Words with digits
    are left out, so that one may count.
    """
    line = text[text.rfind("\n") + 1 :]
    last = [word for word in _words(line) if not any(map(str.isdigit, word))][-WORDS:]
    few = set(last)
    return last if len(last) == WORDS and len(few) <= UNLIKE and len(set("".join(few))) >= LETTERS else []


def refrain(text: str) -> list[str]:
    """The words of the sentence that a text ends with, where it has said that again and again, with others between.

    Of 1,472 texts of people and large models nineteen hold such a sentence, loops and rows of tables (LOG.md). Words
    with digits are none of a refrain, so that one may count.
    """
    if not text.endswith((".", "!", "?")):
        return []
    said = [_words(sentence) for sentence in SENTENCE.findall(text)]
    last = said[-1] if said else []
    counts = any(map(str.isdigit, "".join(last)))
    return last if len(last) >= REFRAIN and not counts and said.count(last) >= SAID else []


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def check_stops(raw: object) -> tuple[str, ...]:
    """The `stop` of a request: none, a string or a few of them. Raises InvalidInput."""
    stops = [raw] if isinstance(raw, str) else raw
    if stops is None:
        return ()
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidInput("stop must be a string or a list of strings that are not empty.", param="stop")
    if len(stops) > MAX_STOPS or any(len(stop) > MAX_STOP_CHARACTERS for stop in stops):
        raise InvalidInput(
            f"stop takes at most {MAX_STOPS} strings of at most {MAX_STOP_CHARACTERS} characters.", param="stop"
        )
    return tuple(stops)
