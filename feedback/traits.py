"""Named, readable measures of a reply.

Every trait is a small function of the text alone, cheap enough for thousands of drafts a second, and has words for
"more of it" and "less of it", so that what was learned can be said to the person. Rates are a share of the words and
go through a square root, which keeps one lucky word in a short reply from counting like a habit.

Left out on purpose: anything about truth or safety. Those are never a matter of taste (see adapters/safety.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from feedback import words
from feedback.reading import EMOJI, Reading, repeated_share
from feedback.vocabulary import measure_words

__all__ = ["BUMP_NAMES", "SCALES", "TRAITS", "TRAIT_NAMES", "Reading", "Scale", "Trait", "measure", "repeated_share"]

_OPENERS = re.compile(
    r"^\s*(sure|certainly|of course|absolutely|great question|yes|no problem|here (is|are)|i'd be)\b", re.IGNORECASE
)
_FORMAL, _STEPS, _PAST = (frozenset(each.split()) for each in (words.FORMAL, words.STEPS, words.PAST))


@dataclass(frozen=True)
class Trait:
    """A measure, and how to say that someone wants more or less of it."""

    name: str
    measure: Callable[[Reading], float]
    more: str
    less: str
    about: str


TRAITS: dict[str, Trait] = {}


def _trait(more: str, less: str) -> Callable[[Callable[[Reading], float]], Callable[[Reading], float]]:
    def register(measure: Callable[[Reading], float]) -> Callable[[Reading], float]:
        name = measure.__name__
        TRAITS[name] = Trait(name, measure, more, less, (measure.__doc__ or "").strip())
        return measure

    return register


def _about(name: str, vocabulary: str, more: str, less: str) -> None:
    """A trait that is the rate of some words."""
    listed = vocabulary.split()
    known = frozenset(listed)
    TRAITS[name] = Trait(name, lambda r: r.rate(known), more, less, f"Rate of {', '.join(listed[:4])} and the like.")


# ---- form ---------------------------------------------------------------------------------------------------------


@_trait("longer replies", "shorter replies")
def length(r: Reading) -> float:
    """Logarithm of the number of words."""
    return math.log(len(r.words) + 1)


@_trait("more sentences", "fewer sentences")
def sentences(r: Reading) -> float:
    """Logarithm of the number of sentences."""
    return math.log(len(r.sentences) + 1)


@_trait("longer sentences", "shorter sentences")
def sentence_length(r: Reading) -> float:
    """Logarithm of the mean number of words a sentence."""
    return math.log(len(r.words) / max(len(r.sentences), 1) + 1)


@_trait("more list items", "fewer list items")
def items(r: Reading) -> float:
    """Logarithm of the number of list items."""
    return math.log(r.items + 1)


@_trait("lists", "running text instead of lists")
def lists(r: Reading) -> float:
    """Share of the lines that are list items."""
    return r.items / max(len(r.lines), 1)


@_trait("headings", "no headings")
def headings(r: Reading) -> float:
    """Lines that are headings: # marks, or a short line that ends with a colon."""
    marks = (line.startswith("#") or (line.rstrip(" *").endswith(":") and len(line.split()) <= 8) for line in r.lines)
    return math.sqrt(sum(marks))


@_trait("bold and other emphasis", "plain text without emphasis")
def emphasis(r: Reading) -> float:
    """Pairs of Markdown stars or words in capitals."""
    capitals = sum(word.isupper() and len(word) > 3 for word in re.findall(r"[A-Za-z]+", r.text))
    return r.root_rate(r.text.count("**") // 2 + capitals)


@_trait("more paragraphs", "fewer paragraphs")
def paragraphs(r: Reading) -> float:
    """Logarithm of the number of blocks between blank lines."""
    return math.log(len(re.findall(r"\n\s*\n", r.text.strip())) + 1)


@_trait("code", "no code")
def code(r: Reading) -> float:
    """Code fences, back-ticks and lines that look like code."""
    looks = sum(bool(re.search(r"[;{}]\s*$|^\s*(def|class|import|return|for|if)\b.*[:(]", line)) for line in r.lines)
    return math.sqrt(r.text.count("`") / 2 + looks)


@_trait("questions back to you", "no questions back")
def questions(r: Reading) -> float:
    """Question marks a sentence, square root."""
    return math.sqrt((r.text.count("?") + r.text.count("？")) / max(len(r.sentences), 1))


@_trait("exclamation marks", "no exclamation marks")
def exclamation(r: Reading) -> float:
    """Exclamation marks a sentence, square root."""
    return math.sqrt((r.text.count("!") + r.text.count("！")) / max(len(r.sentences), 1))


@_trait("simple, short words", "longer, richer words")
def simple_words(r: Reading) -> float:
    """Share of the words of at most five letters."""
    return sum(len(word) <= 5 for word in r.words) / max(len(r.words), 1)


@_trait("long words", "no long words")
def long_words(r: Reading) -> float:
    """Share of the words of nine letters or more, square root."""
    return r.root_rate(sum(len(word) >= 9 for word in r.words))


@_trait("longer words", "shorter words")
def word_length(r: Reading) -> float:
    """Mean number of letters a word."""
    return sum(map(len, r.words)) / max(len(r.words), 1)


@_trait("varied words", "plain, repeated words")
def variety(r: Reading) -> float:
    """Different words over the root of all words (Guiraud's index)."""
    return len(set(r.words)) / math.sqrt(max(len(r.words), 1))


@_trait("a formal tone", "a casual tone")
def formality(r: Reading) -> float:
    """Rate of formal connectives and verbs, less contractions."""
    contractions = sum("'" in word for word in r.words)
    return r.rate(_FORMAL) - r.root_rate(contractions)


@_trait("emoji", "no emoji")
def emoji(r: Reading) -> float:
    """Root of the number of emoji."""
    return math.sqrt(len(EMOJI.findall(r.text)))


@_trait("step-by-step answers", "no step-by-step wording")
def steps(r: Reading) -> float:
    """Rate of first, then, next, finally, and numbered lines."""
    numbered = sum(bool(re.match(r"\s*(\d{1,2}[.)]|step\s+\d)", line, re.I)) for line in r.lines)
    return r.rate(_STEPS) + r.root_rate(numbered)


@_trait("numbers and figures", "no numbers")
def numbers(r: Reading) -> float:
    """Rate of numbers, those of a numbered list not counted."""
    found = sum(len(re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"^\s*\d{1,2}[.)]", "", line))) for line in r.lines)
    return r.root_rate(found)


@_trait("proper names", "no proper names")
def names(r: Reading) -> float:
    """Rate of capitalised words inside a sentence."""
    inside = (word for piece in r.sentences for word in piece.split()[1:])
    return r.root_rate(sum(word[:1].isupper() and word[1:2].islower() for word in inside))


@_trait("story-telling", "no story-telling")
def story(r: Reading) -> float:
    """Rate of past-tense words."""
    regular = sum(word.endswith("ed") and len(word) > 4 for word in r.words)
    return r.rate(_PAST) + 0.5 * r.root_rate(regular)


@_trait("quotations", "no quotations")
def quotations(r: Reading) -> float:
    """Rate of quotation marks."""
    return r.root_rate(len(re.findall(r"[\"“”«»]", r.text)) // 2)


@_trait("asides in parentheses", "no parentheses")
def parentheses(r: Reading) -> float:
    """Rate of opening parentheses."""
    return r.root_rate(r.text.count("("))


@_trait("long, comma-rich clauses", "few commas")
def commas(r: Reading) -> float:
    """Commas a word, square root."""
    return r.root_rate(r.text.count(","))


@_trait("an opening phrase such as “Sure”", "no opening phrase")
def opener(r: Reading) -> float:
    """1 when the reply opens with Sure, Certainly, Here is."""
    return float(bool(_OPENERS.match(r.text)))


@_trait("a finished ending", "open endings")
def finished(r: Reading) -> float:
    """1 when the text ends like a sentence or a list item does."""
    return float(bool(re.search(r"[.!?。！？:)\]\"”'`*]\s*$", r.text)))


@_trait("repetition", "no repetition")
def repetition(r: Reading) -> float:
    """Share of word pairs that were said before."""
    return repeated_share(r.words, 2)


# ---- words --------------------------------------------------------------------------------------------------------

_about("second_person", words.YOU, "being spoken to as “you”", "not being addressed directly")
_about("first_person", words.ME, "a voice that says “I” or “we”", "an impersonal voice")
_about("third_person", words.THEY, "talk of him, her and them", "no third persons")
_about("hedging", words.HEDGES, "hedged, tentative wording", "direct wording without hedges")
_about("certainty", words.CERTAINTY, "confident, certain wording", "no absolute claims")
_about("caution", words.CAUTION, "caution and safety advice", "no warnings")
_about("limits", words.LIMITS, "admitting limits", "fewer cannots and don'ts")
_about("warmth", words.WARMTH, "a warm, encouraging tone", "a matter-of-fact tone")
_about("politeness", words.POLITENESS, "politeness", "no polite phrases")
_about("examples", words.EXAMPLES, "concrete examples", "no examples")
_about("reasons", words.REASONS, "reasons", "no explanations of why")
_about("contrast", words.CONTRAST, "both sides of a matter", "one clear line")
_about("feelings", words.FEELINGS, "feelings", "no talk of feelings")
_about("imagery", words.SENSES, "vivid images", "no imagery")
_about("science", words.SCIENCE, "science and technology", "no technical talk")
_about("computers", words.COMPUTERS, "talk of computers", "nothing about computers")
_about("nature", words.NATURE, "nature and animals", "nothing about nature")
_about("health", words.HEALTH, "health and the body", "nothing about health")
_about("food", words.FOOD, "food and cooking", "nothing about food")
_about("arts", words.ARTS, "books, music and art", "nothing about the arts")
_about("money", words.MONEY, "work and money matters", "nothing about money")
_about("people", words.PEOPLE, "people and family", "less about people")


# ---- targets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """A countable trait that people may want to be near a target ("about three sentences").

    Bump features at `centers` (in log1p of the count) let a linear head learn any smooth preference over the count.
    trait: the one that grows with the count.
    """

    name: str
    trait: str
    count: Callable[[Reading], int]
    centers: tuple[float, ...]
    width: float
    words: str

    def bumps(self, reading: Reading) -> list[float]:
        """Gaussian bumps of log1p(count), one a center."""
        at = math.log1p(self.count(reading))
        return [math.exp(-0.5 * ((at - math.log1p(center)) / self.width) ** 2) for center in self.centers]


SCALES: tuple[Scale, ...] = (
    Scale("words", "length", lambda r: len(r.words), (4, 8, 14, 22, 33, 48, 70, 110, 180), 0.30, "about {} words"),
    Scale("sentences", "sentences", lambda r: len(r.sentences), (1, 2, 3, 4, 6, 9, 14), 0.20, "about {} sentences"),
    Scale("items", "items", lambda r: r.items, (0, 1, 2, 3, 5, 8), 0.25, "about {} list items"),
)


def measure(text: str) -> list[float]:
    """All traits of a text, in the order of TRAITS, then all bumps, in the order of SCALES, then the WORD_NAMES."""
    reading = Reading(text)
    named = [trait.measure(reading) for trait in TRAITS.values()]
    return [*named, *(value for scale in SCALES for value in scale.bumps(reading)), *measure_words(reading)]


TRAIT_NAMES: tuple[str, ...] = tuple(TRAITS)
BUMP_NAMES: tuple[str, ...] = tuple(f"{s.name}~{center:g}" for s in SCALES for center in s.centers)
