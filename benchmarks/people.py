"""Simulated people: hidden tastes, noisy clicks, and the judge that knows the taste.

A taste is a function of the text that the learner never sees. It is written with its own word lists and formulas, not
with the traits of `feedback.traits`, and at least half of the tastes are no single trait: mixtures, targets, content.
Tastes are split: the TUNE ones chose the constants in this repository, the REPORT ones make the figures. The UNNAMED
ones are of families that no named trait was made for.

Clicks follow Bradley-Terry (pairs), Plackett-Luce (rankings) and a logistic around the person's own threshold
(thumbs), with the noise set so that about one pair in ten comes out wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator as Random

Taste = Callable[[str], float]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-zA-Z']+", text.lower())


def _share(text: str, vocabulary: str, cap: float = 0.12) -> float:
    """Share of the words that are in the list, at most `cap`, as a share of `cap`."""
    words = _words(text)
    wanted = set(vocabulary.split())
    return min(sum(word in wanted for word in words) / max(len(words), 8), cap) / cap


def count_of(text: str, pattern: str, enough: int) -> float:
    """Matches of a pattern, at most `enough`, as a share of it."""
    return min(len(re.findall(pattern, text, re.IGNORECASE | re.MULTILINE)), enough) / enough


def _near(value: float, target: float, spread: float) -> float:
    return math.exp(-0.5 * ((value - target) / spread) ** 2)


def _sentence_count(text: str) -> int:
    return max(1, len(re.findall(r"[.!?](?:\s|$)", text)))


def _mean_word(text: str) -> float:
    words = _words(text)
    return sum(map(len, words)) / max(len(words), 1)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0]


def _share_like(text: str, pattern: str, cap: float) -> float:
    """Share of the words that look like the pattern, at most `cap`, as a share of `cap`."""
    words = _words(text)
    return min(sum(bool(re.fullmatch(pattern, word)) for word in words) / max(len(words), 8), cap) / cap


def _sentences(text: str) -> list[str]:
    return [piece.strip() for piece in re.split(r"(?<=[.!?])\s+|\n+", text) if _words(piece)]


def _share_of_sentences(text: str, beginning: str) -> float:
    """Share of the sentences that begin like the pattern."""
    sentences = _sentences(text)
    return sum(bool(re.match(beginning, each, re.IGNORECASE)) for each in sentences) / max(len(sentences), 1)


def _unevenness(text: str) -> float:
    """Standard deviation of the logarithms of the sentences' lengths in words."""
    return float(np.std([math.log(len(_words(each)) + 1) for each in _sentences(text)] or [0.0]))


# ---- tastes that were used to choose constants --------------------------------------------------------------------

TUNE: dict[str, Taste] = {
    "you": lambda t: _share(t, "you your you're yourself yours"),
    "short": lambda t: -math.log(len(_words(t)) + 4),
    "plain_words": lambda t: -_mean_word(t),
    "bullets": lambda t: count_of(t, r"^\s*([-*•]|\d+[.)])\s", 4),
    "about_40_words": lambda t: _near(math.log(len(_words(t)) + 1), math.log(40), 0.25),
    "kind_and_curious": lambda t: (
        _share(t, "glad happy love great nice wonderful hope enjoy friend thanks welcome dear", 0.06)
        + 0.8 * count_of(t, r"\?", 2)
    ),
    "hedged_formal": lambda t: (
        _share(t, "may might could perhaps possibly likely typically generally often", 0.06)
        + 0.5 * _share(t, "therefore however additionally furthermore moreover regarding significant various", 0.05)
        - 0.5 * count_of(t, r"\w'(s|t|re|ll|ve|m)\b", 3)
    ),
    "nature": lambda t: _share(
        t,
        "sea sky tree trees river mountain sun moon forest flower flowers bird birds wind rain water animals earth",
        0.06,
    ),
    "figures": lambda t: count_of(t, r"\d+", 5),
    "no_me_long": lambda t: (
        -_share(t, "i me my mine i'm i've i'd we our", 0.08) + 0.02 * len(_words(t)) / _sentence_count(t)
    ),
    "reasons_both_sides": lambda t: _share(
        t, "because since so therefore but however although though while despite reason why", 0.06
    ),
    "machines": lambda t: _share(
        t,
        "computer data software code program model network system technology digital machine algorithm internet",
        0.06,
    ),
}

# ---- tastes that make the figures ---------------------------------------------------------------------------------

REPORT: dict[str, Taste] = {
    "concrete_examples": lambda t: (
        count_of(t, r"\b(for example|for instance|such as|e\.g|like (a|an|the)\b|say,|imagine)", 2)
        + 0.7 * count_of(t, r"(?<=[a-z,] )[A-Z][a-z]{2,}", 4)
        + 0.5 * count_of(t, r"\b\d+", 4)
    ),
    "caution": lambda t: (
        _share(
            t,
            "careful consult doctor expert risk risks unsafe danger dangerous warning safe safety avoid check verify "
            "legal depends caution harm ensure limits side",
            0.06,
        )
        + 0.6 * count_of(t, r"\b(however|keep in mind|it('s| is) important to|make sure|note that|be aware)\b", 2)
    ),
    "story_telling": lambda t: (
        _share(
            t,
            "was were had once day night old young she he her his they said asked walked lived looked found came",
            0.16,
        )
        + 0.6 * count_of(t, r"\b\w{3,}ed\b", 6)
        + 0.4 * count_of(t, r"[\"“]", 2)
    ),
    "brief_and_plain": lambda t: (
        -0.6 * math.log(len(_words(t)) + 6)
        - 0.35 * _mean_word(t)
        - 0.3 * math.log(len(_words(t)) / _sentence_count(t) + 2)
    ),
    "friendly_coach": lambda t: (
        0.8 * _share(t, "you your you'll you're yourself", 0.10)
        + 0.7 * _share(t, "can try start keep help remember enjoy best better great let's easy way", 0.10)
        + 0.5 * count_of(t, r"!", 2)
    ),
    "three_sentences": lambda t: (
        _near(math.log(_sentence_count(t)), math.log(3), 0.30) - 0.7 * count_of(t, r"^\s*([-*•]|\d+[.)])\s", 2)
    ),
    "ordered_plan": lambda t: (
        count_of(t, r"^\s*\d+[.)]\s", 3)
        + 0.6 * _share(t, "first second third then next finally after before start last begin step", 0.06)
        + 0.4
        * count_of(
            t,
            r"(^|\. )\s*(\d+[.)]\s*)?(use|make|take|add|find|write|choose|start|create|put|set|go|keep)\b",
            3,
        )
    ),
    "formal_distance": lambda t: (
        0.25 * _mean_word(t)
        - _share(t, "i me my you your we our us i'm you're we're", 0.12)
        - 0.5 * count_of(t, r"[!?]", 2)
    ),
    "senses_and_feelings": lambda t: _share(
        t,
        "feel feeling feelings heart warm cold soft bright dark light color colors sound music smell taste sweet "
        "gentle joy sad love fear calm smile tears dream beautiful quiet loud happy",
        0.07,
    ),
    "straight_answer": lambda t: (
        -0.8 * count_of(_first_sentence(t), r"\b(sure|certainly|of course|as an ai|question|great|i'd be|thank)\b", 1)
        - 0.25 * math.log(len(_words(_first_sentence(t))) + 3)
        - 0.7
        * _share(
            t,
            "may might could perhaps possibly generally usually often sometimes various several many",
            0.08,
        )
    ),
}

# What somebody with such a taste would write into a system prompt by hand; Mynah is never told.
ASKED: dict[str, str] = {
    "concrete_examples": "Give concrete examples, with names and numbers.",
    "caution": "Be careful: tell me about risks and limits, what to check, and when to ask a doctor or another expert.",
    "story_telling": "Answer with a story in the past tense, about people and what they said.",
    "brief_and_plain": "Be brief. Use short sentences and short, plain words.",
    "friendly_coach": "Be a friendly coach: speak to me directly, encourage me and tell me what I can try!",
    "three_sentences": "Answer in exactly three sentences, without lists.",
    "ordered_plan": "Answer with a numbered plan: first, second, then, finally. Begin each step with a verb.",
    "formal_distance": "Write formally and impersonally, in long words. Never say I, we or you, and ask no questions.",
    "senses_and_feelings": "Write about feelings and what can be seen, heard, smelled and tasted.",
    "straight_answer": "Begin with the answer itself, in one short sentence. No introduction, no maybe.",
}

# ---- tastes that no trait names -----------------------------------------------------------------------------------

# Constants that are for such people are chosen on these: families that the traits of feedback.traits have no list for.
UNNAMED_TUNE: dict[str, Taste] = {
    "opinions": lambda t: (
        _share(t, "think believe opinion view views agree consider suppose wonder idea ideas matter matters", 0.06)
        + 0.6 * count_of(t, r"\b(i think|i believe|in my (view|opinion)|i('d| would) say)\b", 1)
    ),
    "easy_going": lambda t: _share(
        t, "really just pretty kind lot lots thing things stuff okay actually well basically bit guess even quite", 0.07
    ),
    "doing_words": lambda t: _share_like(t, r"[a-z]{2,}ing", 0.10),
    "no_adverbs": lambda t: -_share_like(t, r"[a-z]{2,}ly", 0.08),
    "at_school": lambda t: _share(
        t,
        "student students learn learning learned teach teaching teacher school class lesson lessons course education "
        "study studying knowledge skill skills understand understanding subject practice read reading",
        0.07,
    ),
    "state_and_law": lambda t: _share(
        t,
        "government law laws rights state states public policy legal court police political politics power war "
        "president citizens nation national leader leaders freedom order",
        0.06,
    ),
    "dashes_and_colons": lambda t: count_of(t, r"[;:\u2013\u2014]|\s-\s|\w-\w", 4),
    "asks_what_and_how": lambda t: _share(t, "who what when where which how whose whether", 0.08),
    "counting": lambda t: (
        _share(t, "one two three four five six seven eight nine ten hundred thousand million half both several", 0.06)
        - 0.4 * _share(t, "some many few various much", 0.05)
    ),
    "varied_starts": lambda t: -_share_of_sentences(t, r"(the|it|this|there|these|that)\b"),
    "solving": lambda t: (
        _share(
            t,
            "problem problems issue issues solution solutions solve fix error errors improve challenge challenges "
            "difficult difficulty handle deal resolve effective",
            0.06,
        )
        - 0.2 * math.log(len(_words(t)) + 6)
    ),
    "talk_of_talk": lambda t: (
        _share(
            t,
            "say says said tell told ask asked call called speak speaking talk word words name names language "
            "message letter write writing describe describes explain",
            0.07,
        )
        + 0.3 * count_of(t, r"[\"\u201c]", 2)
    ),
    "together": lambda t: _share(
        t,
        "together team share shared sharing group community join everyone each other others both common support",
        0.06,
    ),
    "mind_over_matter": lambda t: (
        _share(
            t,
            "mind thought thoughts idea imagine imagination dream dreams soul spirit life meaning truth wisdom "
            "purpose belief faith self memory",
            0.06,
        )
        - 0.4 * count_of(t, r"\d+", 4)
    ),
    "good_or_bad": lambda t: _share(
        t, "good bad better worse right wrong best worst important great poor useful", 0.06
    ),
    "whole_and_part": lambda t: (
        _share(t, "part parts whole piece pieces section element elements type types kind set form forms main", 0.07)
        + 0.3 * _near(math.log(len(_words(t)) + 1), math.log(50), 0.3)
    ),
}

# Written before anything was tuned on the tastes above, from other families again; looked at once.
UNNAMED_REPORT: dict[str, Taste] = {
    "when": lambda t: (
        _share(
            t,
            "time times today now day days week month months year years hour hours minute minutes morning evening "
            "night century early late soon later ago date season moment",
            0.07,
        )
        + 0.4 * count_of(t, r"\b(1[5-9]|20)\d\d\b", 1)
    ),
    "comparing": lambda t: (
        _share(
            t, "more less most least than better best worse larger smaller higher lower similar same different", 0.07
        )
        + 0.4 * count_of(t, r"\b(compared (to|with)|as \w+ as|rather than|the same)\b", 1)
    ),
    "no_abstractions": lambda t: (
        -_share_like(t, r"[a-z]{3,}(tion|sion|ment|ness|ity|ance|ence|ism)s?", 0.12)
        + 0.4 * _share(t, "hand water house stone bread wood table door street paper metal glass box wall", 0.04)
    ),
    "defining": lambda t: (
        count_of(t, r"\b(is|are) (a|an|the)\b|\b(refers? to|known as|defined as|means|called|a (type|kind) of)\b", 3)
        - 0.3 * _share(t, "i me my you your we our", 0.08)
    ),
    "where": lambda t: (
        _share(
            t,
            "place places city country world house home room street road here there outside inside around near far "
            "above below under between across north south east west area region map land building",
            0.06,
        )
        + 0.4 * count_of(t, r"\b(in|at|from|to) [A-Z][a-z]{2,}", 2)
    ),
    "in_motion": lambda t: _share(
        t,
        "go goes going went come comes coming came move moves moving walk walking run running bring carry push pull "
        "turn reach fall fell rise jump travel return follow leave left enter pass cross throw climb",
        0.06,
    ),
    "even_pace": lambda t: -_unevenness(t) + 0.2 * math.log(_sentence_count(t)),
    "looking_ahead": lambda t: (
        _share(t, "will would shall future plan plans next tomorrow soon expect goal goals become ahead new", 0.07)
        + 0.4 * count_of(t, r"\b(going to|in order to|so that|want to|hope to)\b", 1)
    ),
}

# Without concrete_examples and friendly_coach, whose updates were looked at while the update was still being changed.
UPDATE_PEOPLE = (
    "caution",
    "story_telling",
    "brief_and_plain",
    "three_sentences",
    "ordered_plan",
    "formal_distance",
    "senses_and_feelings",
    "straight_answer",
)


@dataclass
class Person:
    """A simulated person.

    name: key of the taste; scale: utility units of one logit of click noise; tie: differences smaller than this are
    a tie to the person; threshold: utility above which a thumb goes up.
    """

    name: str
    taste: Taste
    scale: float
    tie: float
    threshold: float
    random: Random = field(repr=False)

    def utility(self, text: str) -> float:
        """What the reply is truly worth to the person."""
        return self.taste(text)

    def compare(self, left: str, right: str) -> int:
        """-1 left is better, 1 right, 0 a tie: Bradley-Terry around the true difference."""
        gap = self.utility(right) - self.utility(left)
        if abs(gap) <= self.tie:
            return 0
        return 1 if self.random.random() < _sigmoid(gap / self.scale) else -1

    def rank(self, texts: Sequence[str]) -> list[list[int]]:
        """Tiers, best first: Plackett-Luce by Gumbel noise; texts as good as equal share a tier."""
        utilities = [self.utility(text) for text in texts]
        noisy = np.array(utilities) / self.scale + self.random.gumbel(size=len(texts))
        tiers: list[list[int]] = []
        for index in np.argsort(-noisy).tolist():
            if tiers and abs(utilities[index] - utilities[tiers[-1][-1]]) <= self.tie:
                tiers[-1].append(index)
            else:
                tiers.append([index])
        return tiers

    def thumb(self, text: str) -> int:
        """1 or -1: a logistic around the person's own threshold."""
        return 1 if self.random.random() < _sigmoid((self.utility(text) - self.threshold) / self.scale) else -1


def make_person(name: str, taste: Taste, samples: Sequence[Sequence[str]], seed: int) -> Person:
    """Fit click noise, tie width and threshold to base replies.

    samples: base replies, one list a prompt. The noise is such that a pair of replies to one prompt that are no tie
    comes out wrong in about 10% of the cases; the threshold lies between the 30% and 70% quantile of the utility.
    """
    random = np.random.default_rng([seed, *name.encode()])
    utilities = [[taste(text) for text in replies] for replies in samples]
    gaps = np.array([abs(a - b) for group in utilities for i, a in enumerate(group) for b in group[:i]])
    everything = np.array([u for group in utilities for u in group])
    tie = 0.12 * float(np.std(everything)) + 1e-9
    clear = gaps[gaps > tie]
    low, high = 1e-3 * float(clear.mean()), 10 * float(clear.mean())
    for _ in range(60):  # the share of wrong clicks rises with the scale
        scale = math.sqrt(low * high)
        wrong = float((1 / (1 + np.exp(np.minimum(clear / scale, 50)))).mean())
        low, high = (scale, high) if wrong < 0.10 else (low, scale)
    threshold = float(np.quantile(everything, random.uniform(0.3, 0.7)))
    return Person(name, taste, scale, tie, threshold, random)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, x))))
