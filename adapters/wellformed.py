"""When a reply is broken, whatever anybody's taste: the measures and thresholds, in this one place.

They guard the reward (a policy must not earn by ending in mid-sentence), the re-ranking of drafts, the gate and every
win rate we report: a broken reply never wins against a sound one. A reply that was cut by the token limit is not
broken by that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from feedback.traits import Reading, repeated_share

# Words a sentence cannot end with.
_DANGLING_WORDS = (
    "a an the and or but of to in on at by for with from as is are was were be been that which who this these those "
    "it's its their your my our his her such than if when while because into about between can will would could should "
    "not very more most also"
)
_DANGLING = frozenset(_DANGLING_WORDS.split())
_CLOSED = re.compile(r"[.!?…。！？:;)\]}\"”'’`*>|]\s*$")
_PROSE_WORDS = 6  # a last line this long without an end mark is prose that broke off, not a title, an item or a word
REPEATED_SHARE = 0.35  # of the word triples said before; the base's own replies lie below in about 95%


@dataclass(frozen=True)
class Flaws:
    """What is wrong with one reply."""

    broken_end: bool
    off_subject: bool
    repetitive: bool

    @property
    def broken(self) -> bool:
        """Unsound enough to lose: it stopped in mid-sentence or left the subject."""
        return self.broken_end or self.off_subject


def find_flaws(text: str, ended: bool, subject: float, subject_floor: float) -> Flaws:
    """Judge one reply.

    ended: it ended by itself (not cut by a limit); subject: `Latents.subject` of the reply; subject_floor: the value
    below which only 5% of the base's own replies to their prompts lie.
    """
    return Flaws(
        broken_end=ends_broken(text, ended),
        off_subject=subject < subject_floor,
        repetitive=repetition(text) > REPEATED_SHARE,
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
