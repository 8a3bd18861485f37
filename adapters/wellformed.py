"""When a reply is broken, whatever anybody's taste: the measures and thresholds, in this one place.

They guard the reward (a policy must not earn by ending in mid-sentence), the re-ranking of drafts, the gate and every
win rate we report: a broken reply never wins against a sound one. A reply that was cut by the token limit is not
broken by that.

Words that do not exist are told from others by how many tokens they take: a tokenizer knows long words that people use
as one or two pieces. Other languages than the tokenizer's own take more pieces too, so what a reply holds of such words
only counts beside what the base says to the same prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from feedback.traits import Reading, repeated_share

# Words a sentence cannot end with.
_DANGLING_WORDS = (
    "a an the and or but of to in on at by for with from as is are was were be been that which who this these those "
    "it's its their your my our his her such than if when while because into about between can will would could should "
    "not very more most also"
)
_DANGLING = frozenset(_DANGLING_WORDS.split())
# What a sentence ends with; emoji are an end, too, with what they are put together from.
_EMOJI = r"\u20e3\u231a-\u23ff\u2600-\u27bf\u2b05-\u2b55\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f"
_CLOSED = re.compile(rf"[.!?…。！？:;)\]}}\"”'’`*>|{_EMOJI}]\s*$")
_PROSE_WORDS = 6  # a last line this long without an end mark is prose that broke off, not a title, an item or a word
REPEATED_SHARE = 0.35  # of the word triples said before; the base's own replies lie below in about 95%
# A run of letters of a script that puts spaces between words, long enough to hold something twice.
_RUN = re.compile(r"[A-Za-z\u00c0-\u024f\u0370-\u052f]{12,}")
LONGEST_WORD = 40  # letters; what dictionaries hold is shorter, compounds and names in code included
_SYLLABLES = 4  # letters of what a word can say twice
_SAID_TWICE = 0.25  # share of a word's runs of four letters that came before in it; of words that exist, below 0.1
_LONG = re.compile(r"[A-Za-z\u00c0-\u024f\u0370-\u052f]{9,}")
_PER_PIECE = 3.0  # letters a token; of the base's own long words 2% have fewer


@dataclass(frozen=True)
class Flaws:
    """What is wrong with one reply."""

    broken_end: bool
    off_subject: bool
    repetitive: bool
    jumbled: bool

    @property
    def broken(self) -> bool:
        """Unsound enough to lose: it stopped in mid-sentence, left the subject or holds a word that goes on and on."""
        return self.broken_end or self.off_subject or self.jumbled


def find_flaws(text: str, ended: bool, subject: float, subject_floor: float) -> Flaws:
    """Judge one reply.

    ended: it ended by itself (not cut by a limit); subject: `Latents.subject` of the reply; subject_floor: the value
    below which only 5% of the base's own replies to their prompts lie.
    """
    return Flaws(
        broken_end=ends_broken(text, ended),
        off_subject=subject < subject_floor,
        repetitive=repetition(text) > REPEATED_SHARE,
        jumbled=jumbled(text),
    )


def ends_broken(text: str, ended: bool) -> bool:
    """Whether a reply ended by itself in mid-sentence (or said nothing at all)."""
    if not ended:
        return False
    stripped = text.strip()
    if not stripped:
        return True
    if _CLOSED.search(stripped):
        return False
    if stripped[-1] in ",-–—(&/":
        return True
    last_line = stripped.splitlines()[-1]
    words = Reading(last_line).words
    if words and words[-1] in _DANGLING:
        return True
    is_item = bool(re.match(r"\s*([-*•+#|]|\d{1,2}[.)])", last_line))
    return len(words) >= _PROSE_WORDS and not is_item


def repetition(text: str) -> float:
    """Share of word triples that were said before, 0 to 1."""
    return repeated_share(Reading(text).words, 3)


def jumbled(text: str) -> bool:
    """Whether a reply holds a word longer than any, or one that says itself again and again."""
    return any(len(run) > LONGEST_WORD or _says_itself_again(run.lower()) for run in _RUN.findall(text))


def _says_itself_again(word: str) -> bool:
    grams = [word[i : i + _SYLLABLES] for i in range(len(word) - _SYLLABLES + 1)]
    return 1 - len(set(grams)) / len(grams) > _SAID_TWICE


def coined_share(text: str, pieces: Callable[[str], int]) -> float:
    """Share of the words that are long and made of many small pieces, as words are that do not exist.

    pieces: how many tokens a word takes behind a space. A reply of few words counts as one of twelve.
    """
    long = (word.lower() if word.isupper() else word for word in _LONG.findall(text))
    return sum(len(word) < _PER_PIECE * pieces(word) for word in long) / max(len(Reading(text).words), 12)
