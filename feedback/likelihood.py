"""What acts of feedback say of a person's weights: log-likelihoods with their slopes, in the acts' own features.

Utility of a reply with features x is w·x:

    ranking, pair   Plackett-Luce over the tiers (Luce 1959, Plackett 1975); a pair is its two-item case, Bradley-Terry
    tie             Rao-Kupper (1967): the difference is within a band around 0
    thumb           logistic, around the person's own threshold, which is learned with a broad prior
    edit            the edited text beats the original
    correction      the person set a trait's weight by hand: a Gaussian observation

Everything is float64, in the order given, with products too small for BLAS to spread over threads: the same acts give
the same bits on the same machine. Left out on purpose: what is believed in the end (reward_head.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# OpenBLAS gives a matrix product of up to this many multiplications to one thread (4 · SMP_THRESHOLD_MIN). With
# more threads the sums are split, the last bits differ, and on a busy machine the threads wait
# for each other.
ONE_THREAD = 262_144


@dataclass(frozen=True)
class Act:
    """One act of feedback in feature space; counts as one label.

    kind "ranking": tiers of row numbers of `features`, best first (one tier of two or more = a tie). kind "thumb":
    `thumb` is 1 or -1 for every row. kind "correction": `features` is one row that picks a weight, `value` its level.
    """

    kind: Literal["ranking", "thumb", "correction"]
    features: Array  # (k, D)
    tiers: tuple[tuple[int, ...], ...] = ()
    thumb: int = 0
    value: float = 0.0

    @cached_property
    def choices(self) -> Choices:
        """What the act says, choice by choice; kept, since the same acts come back at every click."""
        return Choices.of(self)

    @cached_property
    def spread(self) -> Array:
        """How far its replies lie apart in each feature, (D,); a thumb's, how far from the middle."""
        return np.ptp(self.features, axis=0) if self.kind == "ranking" else np.abs(self.features).max(0)


@dataclass(frozen=True)
class Choices:
    """C choices among K items: the act's replies and, for a thumb, the person's threshold as the last one.

    chosen: (C,) which item; closed: (C, K) -inf for items that were no alternative, else 0; tied: (C, K) 1 for the
    loser in one of the two halves of a tie (Rao and Kupper's equation), else 0.
    """

    chosen: NDArray[np.intp]
    closed: Array
    tied: Array

    @classmethod
    def of(cls, act: Act) -> Choices:
        """Each member of a tier is chosen over all lower tiers; neighbours within a tier are tied."""
        found: list[tuple[int, Sequence[int], bool]] = []  # who was chosen, over whom, is it half a tie
        bar = len(act.features)
        if act.kind == "thumb":
            found = [(row, [bar], False) if act.thumb > 0 else (bar, [row], False) for row in range(bar)]
        for place, tier in enumerate(act.tiers):
            below = [row for lower in act.tiers[place + 1 :] for row in lower]
            found += [(row, below, False) for row in tier if below]
            for left, right in itertools.pairwise(tier):
                found += [(left, [right], True), (right, [left], True)]
        items = bar + (act.kind == "thumb")
        closed, tied = np.full((len(found), items), -np.inf), np.zeros((len(found), items))
        for place, (chosen, losers, tie) in enumerate(found):
            closed[place, [chosen, *losers]] = 0.0
            tied[place, losers] = tie
        return cls(np.array([chosen for chosen, _, _ in found], dtype=np.intp), closed, tied)


@dataclass(frozen=True)
class Prior:
    """The shared prior over weights, (D,) each, and the constants of the likelihoods.

    tie: half-width of Rao-Kupper's band, in logits. threshold_sd: prior sd of the thumb threshold. shrink: strength of
    the prior over widths (inverse gamma with this many pseudo-observations around sd²). width_steps: 0 turns the
    individual widths off. correction_sd: how firmly a correction holds. quiet: so many features, the last ones, keep
    their prior but for the `heard` of them that the acts speak for most.
    """

    mean: Array
    sd: Array
    tie: float = 0.5
    threshold_sd: float = 3.0
    shrink: float = 0.03
    width_steps: int = 4
    correction_sd: float = 0.1
    quiet: int = 0
    heard: int = 16


@dataclass(frozen=True)
class Point:
    """The log-likelihood at some weights (W,), its gradient (W,) and its negative Hessian (W, W)."""

    weights: Array
    value: float
    gradient: Array
    curvature: Array


class Evidence:
    """All acts, in W - 1 of the features; the utility of a person's threshold is the last weight.

    At first these are the first `sure` features; `also` adds some of the others, the quiet ones.
    """

    def __init__(self, acts: Sequence[Act], prior: Prior, sure: int, weights: Array | None = None) -> None:
        assert all(act.features.shape[1] == len(prior.mean) for act in acts), "features and prior differ in width"
        alike: dict[tuple[int, bool], list[int]] = {}
        for place, act in enumerate(acts):
            if len(act.choices.chosen):
                alike.setdefault((len(act.features), act.kind == "thumb"), []).append(place)
        counted = np.ones(len(acts)) if weights is None else weights
        self._acts = len(acts)
        self._places = [np.array(alike[form]) for form in sorted(alike)]
        self._comparisons = [
            _Comparisons.of([acts[place] for place in places], prior, sure, counted[places]) for places in self._places
        ]
        self._corrected = np.array([place for place, act in enumerate(acts) if act.kind == "correction"], dtype=np.intp)
        corrections = [acts[place] for place in self._corrected]
        rows = np.array([act.features[0] for act in corrections]).reshape(len(corrections), len(prior.mean))
        self._picks = np.append(rows[:, :sure], np.zeros((len(corrections), 1)), axis=1)
        self._quiet_picks = rows[:, sure:]
        self._levels = np.array([act.value for act in corrections])
        self._firmness = prior.correction_sd**-2

    def also(self, heard: NDArray[np.intp]) -> Evidence:
        """The same acts in some of the quiet features as well; heard: their places among the quiet ones."""
        more = copy(self)
        more._comparisons = [each.also(heard) for each in self._comparisons]
        more._picks = np.insert(self._picks, [-1] * len(heard), self._quiet_picks[:, heard], axis=1)
        return more

    def at(self, weights: Array) -> Point:
        """The log-likelihood and its derivatives at `weights` (W,)."""
        gap = self._levels - (self._picks * weights).sum(1)
        value = -0.5 * self._firmness * float((gap * gap).sum())
        gradient = self._firmness * (gap[:, None] * self._picks).sum(0)
        curvature = self._firmness * _gram(self._picks, self._picks)
        for each in self._comparisons:
            point = each.at(weights)
            value, gradient, curvature = value + point.value, gradient + point.gradient, curvature + point.curvature
        return Point(weights, value, gradient, curvature)

    def gradients(self, weights: Array) -> Array:
        """Each act's share of the gradient, (N, W)."""
        found = np.zeros((self._acts, len(weights)))
        gap = self._levels - (self._picks * weights).sum(1)
        found[self._corrected] = self._firmness * gap[:, None] * self._picks
        for places, each in zip(self._places, self._comparisons, strict=True):
            found[places] = np.einsum("ak,akw->aw", each.slopes(weights)[0], each.items)
        return found

    def spoken_for(self, weights: Array) -> Array:
        """How much the acts speak for each quiet feature, (Q,), which have no weight yet.

        Twice the slope of the log-evidence in a weight's variance at 0: the gradient's square less the curvature.
        """
        gradient, curvature = np.zeros(self._quiet_picks.shape[1]), np.zeros(self._quiet_picks.shape[1])
        for each in self._comparisons:
            pull, bend = each.slopes(weights)
            gradient += np.einsum("ak,akq->q", pull, each.quiet)
            bent = np.matmul(bend, each.quiet)
            curvature += np.einsum("akq,akq->q", bent, each.quiet)
        return gradient**2 - curvature


@dataclass(frozen=True)
class _Comparisons:
    """A acts with the same number of items K each, and the C choices made among them, act by act.

    Only differences count, so an item is what its features differ by from those of the act's last one.
    """

    items: Array  # (A, K - 1, W)
    quiet: Array  # (A, K - 1, Q) the features that are not among the items'
    act: NDArray[np.intp]  # (C,) whose choice it is
    first: NDArray[np.intp]  # (A,) each act's first choice
    chosen: NDArray[np.intp]  # (C,) which item
    shift: Array  # (C, K) added to the utilities: 0, the tie band, or -inf for items that were no alternative
    weight: Array  # (C,) what each choice counts

    @classmethod
    def of(cls, acts: Sequence[Act], prior: Prior, sure: int, weights: Array) -> _Comparisons:
        made = [act.choices for act in acts]
        features = np.array([act.features for act in acts])
        if acts[0].kind == "thumb":  # the last item is the threshold, which has a weight of its own
            thresholds = -1.0
        else:
            features, thresholds = features[:, :-1] - features[:, -1:], 0.0
        items = np.insert(features[:, :, :sure], sure, thresholds, axis=2)
        sizes = np.array([len(each.chosen) for each in made], dtype=np.intp)
        shift = np.concatenate([each.closed for each in made]) - prior.tie * np.concatenate([e.tied for e in made])
        chosen = np.concatenate([each.chosen for each in made])
        whose = np.repeat(np.arange(len(acts)), sizes)
        first = np.cumsum(sizes) - sizes
        return cls(items, features[:, :, sure:], whose, first, chosen, shift, weights[whose])

    def also(self, heard: NDArray[np.intp]) -> _Comparisons:
        """The same in some of the quiet features as well."""
        parts = (self.items[:, :, :-1], self.quiet[:, :, heard], self.items[:, :, -1:])
        return replace(self, items=np.concatenate(parts, axis=2))

    def at(self, weights: Array) -> Point:
        """The log-likelihood and its derivatives: first in the utilities of each act's items, then in the weights."""
        value, pull, bend = self._chances(weights)
        gradient = np.einsum("ak,akw->w", pull, self.items)
        bent, width = np.matmul(bend, self.items), len(weights)
        return Point(weights, value, gradient, _gram(self.items.reshape(-1, width), bent.reshape(-1, width)))

    def slopes(self, weights: Array) -> tuple[Array, Array]:
        """Gradient (A, K - 1) and negative Hessian (A, K - 1, K - 1) in the utilities of each act's items."""
        return self._chances(weights)[1:]

    def _chances(self, weights: Array) -> tuple[float, Array, Array]:
        ahead = np.einsum("akw,w->ak", self.items, weights)
        logits = np.append(ahead, np.zeros((len(ahead), 1)), axis=1)[self.act] + self.shift
        each = np.arange(len(logits))
        logits -= logits[each, self.chosen][:, None]
        top = logits.max(1, keepdims=True)
        chances = np.exp(logits - top)
        total = chances.sum(1, keepdims=True)
        chances /= total
        value = -float((self.weight * (top + np.log(total))[:, 0]).sum())
        pull = -chances
        pull[each, self.chosen] += 1.0
        chances = chances[:, :-1]
        bend = -chances[:, :, None] * chances[:, None, :]
        np.einsum("ckk->ck", bend)[...] += chances
        pull *= self.weight[:, None]
        bend *= self.weight[:, None, None]
        return value, np.add.reduceat(pull[:, :-1], self.first, axis=0), np.add.reduceat(bend, self.first, axis=0)


def _gram(left: Array, right: Array) -> Array:
    """Sum over rows of the outer products, (M, W), (M, W) → (W, W)."""
    width = left.shape[1]
    block = max(1, ONE_THREAD // width**2)
    total = np.zeros((width, width))
    for start in range(0, len(left), block):
        total += left[start : start + block].T @ right[start : start + block]
    return total


def product(left: Array, right: Array) -> Array:
    """Matrix product, (N, D), (D, M) → (N, M), some rows at a time so that one thread makes it."""
    block = max(1, ONE_THREAD // right.size)
    parts = [left[start : start + block] @ right for start in range(0, len(left), block)]
    return np.concatenate(parts) if parts else np.zeros((0, right.shape[1]))
