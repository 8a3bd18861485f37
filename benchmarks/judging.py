"""Who wins: duels of replies judged by a hidden taste, win rates, and intervals over people.

A duel is worth 1, 0.5 or 0 to the first reply:

    equal texts               0.5
    one of the two is broken  the sound one wins, whatever the taste says (adapters/wellformed.py)
    both are broken           0.5: nothing is earned among broken replies
    otherwise                 the reply that is worth more to the person; equal worth 0.5

Prompts are averaged within a person, then seeds, then people; an interval over people is Student's t on those means,
since people are what we want to speak about. Left out on purpose: any language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from assistant.arms import SURVIVORS


@dataclass(frozen=True)
class Judged:
    """A reply as the judge sees it: worth is the hidden taste's utility."""

    text: str
    worth: float
    broken: bool


@dataclass(frozen=True)
class Interval:
    """A mean share with its 95% interval, which may reach beyond 0 and 1 (shown clipped); low and high are None where
    one value alone says nothing about the spread."""

    mean: float
    low: float | None
    high: float | None
    count: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.1%}"
        return f"{self.mean:.1%} [{max(self.low, 0.0):.0%}–{min(self.high, 1.0):.0%}]"


def duel(mine: Judged, other: Judged) -> float:
    """What a duel is worth to `mine`: 1, 0.5 or 0."""
    if mine.text == other.text:
        return 0.5
    if mine.broken or other.broken:
        return 0.5 if mine.broken and other.broken else float(other.broken)
    if mine.worth == other.worth:
        return 0.5
    return float(mine.worth > other.worth)


def wins_by_prompt(mine: Sequence[Sequence[Judged]], others: Sequence[Sequence[Judged]]) -> list[float]:
    """Win rate of all replies against all opponents, prompt by prompt, (P,)."""
    return [
        fmean(duel(reply, other) for reply in replies for other in opponents)
        for replies, opponents in zip(mine, others, strict=True)
    ]


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and two-sided t interval of independent values, at least one."""
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None, len(values))
    half = t_quantile((1 + level) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def below_even(values: Sequence[float]) -> bool:
    """Whether win rates by prompt lie significantly below an even chance: the whole 95% interval does."""
    high = interval(values).high
    return high is not None and high < 0.5


def t_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t; exact for 1 and 2 degrees of freedom, else Cornish and Fisher's expansion (Abramowitz
    and Stegun 26.7.5), right to 0.005 at p = 0.975 and better for more."""
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z, n = NormalDist().inv_cdf(p), float(freedom)
    terms = (
        z,
        (z**3 + z) / 4 / n,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / n**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / n**3,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / n**4,
    )
    return sum(terms)


def best_of_n_kl(n: int) -> float:
    """Upper bound, in nats a reply, of the divergence of "best of n" from its proposal (Beirami et al. 2024)."""
    return math.log(n) - (n - 1) / n


def reranking_kl(n: int) -> float:
    """Upper bound, in nats a reply, of what re-ranking n drafts in two blocks diverges: no beginning is gone on from
    more than some SURVIVORS times as often as the base writes it, and no draft is chosen more than n times as often as
    it is written."""
    return math.log(SURVIVORS) + math.log(n)
