"""Whether somebody's acts foretell one another: the least that a head must be able to do before weights learn from it.

Where clicks are mostly chance, or their reasons are none that a feature sees, a head fits them all the same and is sure
of what it found; nothing in it tells. So each fifth of the acts is foretold by a head of the others, and by the shared
prior, which knows of this person when they give a thumb up and nothing else. A personal head that cannot beat that is
none (LOG.md). It is asked with half of what it says: wrong clicks make a head too sure that may still be right in which
of two replies is better. Left out on purpose: replies. How sure a head is of one over another is its own to say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from feedback.reward_head import Act, Array, Prior, RewardHead, fit, log_likelihood

FOLDS = 5
RUN = 5  # acts in a row, at most, that are foretold together
FIXED = 1e-6  # times the prior's widths: weights that no act moves
SHY = 0.5  # of what a personal head says beyond the prior


@dataclass(frozen=True)
class Split:
    """What an update learns from and is judged by.

    full: the head of all acts; train: without the held-out ones, learned from; judge: of nothing but the prior and
    those; foretold: nats by which the acts foretell one another.
    """

    full: RewardHead
    train: RewardHead
    judge: RewardHead
    foretold: float


def split(acts: Sequence[Act], held_out: Sequence[bool], prior: Prior, counted: Array) -> Split:
    """The heads of some acts. held_out: (N,) which of them; counted: (N,) what each counts."""
    held = np.array(held_out, dtype=bool)
    full, train, judge = (
        fit([acts[place] for place in np.flatnonzero(part).tolist()], prior, counted[part])
        for part in (np.ones_like(held), ~held, held)
    )
    return Split(full, train, judge, foretold(acts, prior, counted))


def foretold(acts: Sequence[Act], prior: Prior, counted: Array | None = None) -> float:
    """By how many nats acts are foretold better from one another than from the prior; 0 where there are too few.

    counted: (N,) what each act counts, 1 where nothing else is said. Corrections help to foretell and are not foretold:
    they say what clicks did not, and are so firm that one outweighs a fold.
    """
    counts = np.ones(len(acts)) if counted is None else counted
    clicks = np.array([act.kind != "correction" for act in acts], dtype=bool)
    if clicks.sum() < FOLDS:
        return 0.0
    # Neighbours, which may be about the same replies, are left out together, but not so many that nothing is left of
    # what a person likes by now, where old acts fade.
    run = min(math.ceil(clicks.sum() / FOLDS), RUN)
    fold = np.where(clicks, (np.cumsum(clicks) - 1) // run % FOLDS, FOLDS)
    common, gain = replace(prior, sd=FIXED * prior.sd, width_steps=0), 0.0
    for place in range(FOLDS):
        known, rest = (np.flatnonzero(part).tolist() for part in (fold != place, fold == place))
        before, left_out = ([acts[i] for i in part] for part in (known, rest))
        personal, shared = (fit(before, each, counts[known]) for each in (prior, common))
        shy = _between(shared, personal, SHY)
        by_others, by_prior = (log_likelihood(head, left_out, prior, counts[rest]) for head in (shy, shared))
        gain += by_others - by_prior
    return gain


def _between(one: RewardHead, other: RewardHead, share: float) -> RewardHead:
    """One head, moved by a share of the way to another."""
    mean = one.mean + share * (other.mean - one.mean)
    return replace(one, mean=mean, threshold=one.threshold + share * (other.threshold - one.threshold))
