"""How fast a person's old acts fade, learned from how well they still foretell new ones.

A taste may change. Of a few half-lives, the one is taken under which what had been said before foretold the newest acts
best; that nothing fades is believed until another half-life is better by MARGIN nats (less, or shorter half-lives, cost
people whose taste stays: LOG.md). The answer is a function of the acts alone, so that a head stays one. Left out on
purpose: a half-life for each trait, which so few acts cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from feedback.reward_head import Act, Array, Prior, RewardHead, fit, log_likelihood

NEVER = math.inf
HALF_LIVES = (NEVER, 60.0, 20.0)  # in acts
BLOCK = 10  # acts that are foretold at a time
BLOCKS = 3  # the newest that count
WINDOW = 300  # acts before a block that it is foretold from; the older ones have all but faded where it matters
MARGIN = 3.0

Foretold = dict[int, tuple[float, ...]]  # where a block begins → its log-likelihood under each half-life


def weights(count: int, half_life: float) -> Array:
    """What each of so many acts counts, oldest first; the newest counts 1."""
    ages = np.arange(count - 1, -1, -1, dtype=np.float64)
    return np.exp2(-ages / half_life)


def half_life(acts: Sequence[Act], prior: Prior, foretold: Foretold) -> float:
    """The half-life of acts (oldest first) to believe in, in acts; NEVER at first.

    foretold: what was found for earlier blocks of the same acts; new findings are added.
    """
    end = len(acts) // BLOCK * BLOCK
    starts = range(max(BLOCK, end - BLOCK * BLOCKS), end, BLOCK)
    for start in starts:
        if start not in foretold:
            foretold[start] = _foretell(acts[max(0, start - WINDOW) : start], acts[start : start + BLOCK], prior)
    gains = [sum(foretold[start][i] for start in starts) - MARGIN * (life < NEVER) for i, life in enumerate(HALF_LIVES)]
    return HALF_LIVES[int(np.argmax(gains))]


def fit_fading(acts: Sequence[Act], prior: Prior) -> RewardHead:
    """A head of acts that fade as they should."""
    return fit(acts, prior, weights(len(acts), half_life(acts, prior, {})))


def _foretell(before: Sequence[Act], block: Sequence[Act], prior: Prior) -> tuple[float, ...]:
    """Log-likelihood of a block's clicks under what was known before it, for each half-life.

    Corrections are not foretold: they say what clicks did not, and are so firm that one outweighs a block.
    """
    heads = (fit(before, prior, weights(len(before), life)) for life in HALF_LIVES)
    clicks = [act for act in block if act.kind != "correction"]
    return tuple(log_likelihood(head, clicks, prior) for head in heads)
