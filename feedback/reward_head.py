"""The reward head: a Gaussian posterior over one person's weights, refitted from all their acts at every click.

Utility of a reply with features x is w·x. Acts are evidence about w:

    ranking, pair   Plackett-Luce over the tiers (Luce 1959, Plackett 1975); a pair is its two-item case, Bradley-Terry
    tie             Rao-Kupper (1967): the difference is within a band around 0
    thumb           logistic, around the person's own threshold, which is learned with a broad prior
    edit            the edited text beats the original
    correction      the person set a trait's weight by hand: a Gaussian observation

The posterior is Laplace's approximation at the mode. Weights get individual prior widths by a few steps of automatic
relevance determination (MacKay 1992; the fixed point converges in a quarter of the steps of expectation maximisation),
so that with few clicks a few traits explain them. Features that mostly say nothing of a person (single words, groups of
words, latents) are quiet: they have a tiny width and a part in the fit only if the slope of the evidence in their
variance is among the largest (the first step of Tipping & Faul 2003), which costs a fifth of the time that all would.
Everything is float64, starts from the prior and runs the same steps in the same order, with products too small for
BLAS to spread over threads: the same acts give the same bits on the same machine. Left out on purpose: stochastic
optimisers, starting from the last head (bits would depend on history), and any language model.
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
NEWTON_STEPS = 20
FIRST_LOOK = 1  # width steps before it is asked which quiet features the acts speak for
ROUGHLY, EXACTLY = 0.01, 1e-8  # a Newton step that promises to gain fewer nats than this is not taken


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
class RewardHead:
    """Posterior over weights: mean (D,), cov (D, D), and the thumb threshold's mean; labels: acts it has seen."""

    mean: Array
    cov: Array
    threshold: float
    labels: int

    @classmethod
    def from_bytes(cls, mean: bytes, cov: bytes, threshold: float, labels: int) -> RewardHead:
        """The head whose arrays were kept as raw float64 bytes."""
        weights = np.frombuffer(mean, dtype=np.float64)
        return cls(weights, np.frombuffer(cov, dtype=np.float64).reshape(len(weights), -1), threshold, labels)

    def score(self, features: Array) -> tuple[Array, Array]:
        """Mean and sd of the utility of each row, (N, D) → (N,), (N,). Differences are what is known well."""
        variance = np.einsum("nd,nd->n", _product(features, self.cov), features)
        return features @ self.mean, np.sqrt(np.maximum(variance, 0.0))

    def prefer(self, left: Array, right: Array) -> Array:
        """Probability that a click favours `left`, (N, D) each → (N,), averaged over the posterior (MacKay 1992)."""
        mean, sd = self.score(left - right)
        return _sigmoid(mean / np.sqrt(1 + np.pi * sd**2 / 8))


def prior_head(prior: Prior) -> RewardHead:
    """What is believed of a person who has not clicked yet."""
    return RewardHead(prior.mean.copy(), np.diag(prior.sd**2), 0.0, 0)


def fit(acts: Sequence[Act], prior: Prior, weights: Array | None = None) -> RewardHead:
    """Posterior after all acts, in the order given.

    weights: (N,) what each counts, 1 where nothing else is said (a correction always counts as made): an act of weight
    0.5 is half an act.
    """
    if not acts:
        return prior_head(prior)
    mode = _Mode.start(_Evidence(acts, prior, len(prior.mean) - prior.quiet, weights), prior)
    if prior.quiet:
        mode = mode.widen(prior, FIRST_LOOK).hear(prior)
    mode = mode.widen(prior, prior.width_steps).climb(EXACTLY)
    return mode.head(prior, labels=sum(act.kind != "correction" for act in acts))


def log_likelihood(head: RewardHead, acts: Sequence[Act], prior: Prior) -> float:
    """Log-likelihood of acts at the head's mean, in nats."""
    return _Evidence(acts, prior, len(prior.mean)).at(np.append(head.mean, head.threshold)).value


def pulls(head: RewardHead, acts: Sequence[Act], prior: Prior, weights: Array | None = None) -> Array:
    """How far each act pulls each weight, (N, D): about what would change if only this act were taken back, in reverse.

    To first order at the mode (Cook 1986): the posterior's covariance times the gradient of the act's likelihood.
    Widths and threshold are held where all acts together put them, so that of many alike acts each pulls a little.
    """
    if not acts:
        return np.zeros((0, len(head.mean)))
    evidence = _Evidence(acts, prior, len(prior.mean), weights)
    return _product(evidence.gradients(np.append(head.mean, head.threshold))[:, :-1], head.cov)


@dataclass(frozen=True)
class _Point:
    """The log-likelihood at some weights (W,), its gradient (W,) and its negative Hessian (W, W)."""

    weights: Array
    value: float
    gradient: Array
    curvature: Array


class _Evidence:
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

    def also(self, heard: NDArray[np.intp]) -> _Evidence:
        """The same acts in some of the quiet features as well; heard: their places among the quiet ones."""
        more = copy(self)
        more._comparisons = [each.also(heard) for each in self._comparisons]
        more._picks = np.insert(self._picks, [-1] * len(heard), self._quiet_picks[:, heard], axis=1)
        return more

    def at(self, weights: Array) -> _Point:
        """The log-likelihood and its derivatives at `weights` (W,)."""
        gap = self._levels - (self._picks * weights).sum(1)
        value = -0.5 * self._firmness * float((gap * gap).sum())
        gradient = self._firmness * (gap[:, None] * self._picks).sum(0)
        curvature = self._firmness * _gram(self._picks, self._picks)
        for each in self._comparisons:
            point = each.at(weights)
            value, gradient, curvature = value + point.value, gradient + point.gradient, curvature + point.curvature
        return _Point(weights, value, gradient, curvature)

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
            replies = each.quiet.shape[1]
            pull, bend = each.slopes(weights)
            gradient += np.einsum("ak,akq->q", pull[:, :replies], each.quiet)
            bent = np.matmul(bend[:, :replies, :replies], each.quiet)
            curvature += np.einsum("akq,akq->q", bent, each.quiet)
        return gradient**2 - curvature


@dataclass(frozen=True)
class _Mode:
    """Where the fit stands: in some of the features, (W - 1,) places, with the precisions of their prior, (W,)."""

    evidence: _Evidence
    features: NDArray[np.intp]
    mean: Array
    precision: Array
    at: _Point

    @classmethod
    def start(cls, evidence: _Evidence, prior: Prior) -> _Mode:
        """From the prior, roughly up."""
        features = np.arange(len(prior.mean) - prior.quiet)
        mean = np.append(prior.mean[features], 0.0)
        precision = np.append(1.0 / prior.sd[features] ** 2, 1.0 / prior.threshold_sd**2)
        return cls(evidence, features, mean, precision, evidence.at(mean)).climb(ROUGHLY)

    def climb(self, gain: float, steps: int = NEWTON_STEPS) -> _Mode:
        """Nearer to the mode."""
        return replace(self, at=_climb(self.evidence, self.mean, self.precision, self.at, gain, steps))

    def widen(self, prior: Prior, steps: int) -> _Mode:
        """MacKay's fixed point: how far the acts, not the prior, determine a weight, over what they found it to be."""
        mode, sd = self, prior.sd[self.features]
        for _ in range(steps if prior.width_steps else 0):
            variance = np.diag(_inverse(mode.at.curvature + np.diag(mode.precision)))[:-1]
            determined = np.clip(1.0 - mode.precision[:-1] * variance, 0.0, 1.0)
            moment = (mode.at.weights - mode.mean)[:-1] ** 2
            found = (determined + prior.shrink) / (moment + prior.shrink * sd**2)
            mode = replace(mode, precision=np.append(found, mode.precision[-1])).climb(ROUGHLY, steps=1)
        return mode

    def hear(self, prior: Prior) -> _Mode:
        """The same with those quiet features that the acts speak for."""
        spoken_for = self.evidence.spoken_for(self.at.weights)
        loudest = np.argsort(-spoken_for, kind="stable")[: prior.heard]
        heard = np.sort(loudest[spoken_for[loudest] > 0])
        evidence, places = self.evidence.also(heard), len(self.features) + heard
        mean, there = (np.concatenate([v[:-1], prior.mean[places], v[-1:]]) for v in (self.mean, self.at.weights))
        precision = np.concatenate([self.precision[:-1], prior.sd[places] ** -2.0, self.precision[-1:]])
        features = np.append(self.features, places)
        return _Mode(evidence, features, mean, precision, evidence.at(there)).climb(ROUGHLY, steps=1)

    def head(self, prior: Prior, labels: int) -> RewardHead:
        """The posterior over all features; those without a part in the fit are as the prior has them."""
        mean, cov = prior.mean.copy(), np.diag(prior.sd**2)
        mean[self.features] = self.at.weights[:-1]
        fitted = _inverse(self.at.curvature + np.diag(self.precision))[:-1, :-1]
        cov[np.ix_(self.features, self.features)] = fitted
        return RewardHead(mean, cov, float(self.at.weights[-1]), labels)


@dataclass(frozen=True)
class _Comparisons:
    """A acts with the same number of items K each, and the C choices made among them, act by act."""

    items: Array  # (A, K, W)
    quiet: Array  # (A, replies, Q) the features that are not among the items'
    act: NDArray[np.intp]  # (C,) whose choice it is
    first: NDArray[np.intp]  # (A,) each act's first choice
    chosen: NDArray[np.intp]  # (C,) which item
    shift: Array  # (C, K) added to the utilities: 0, the tie band, or -inf for items that were no alternative
    weight: Array  # (C,) what each choice counts

    @classmethod
    def of(cls, acts: Sequence[Act], prior: Prior, sure: int, weights: Array) -> _Comparisons:
        made = [act.choices for act in acts]
        replies = len(acts[0].features)
        items = np.zeros((len(acts), made[0].closed.shape[1], sure + 1))
        items[:, :replies, :-1] = [act.features[:, :sure] for act in acts]
        items[:, replies:, -1] = 1.0  # the threshold, where there is one
        quiet = np.array([act.features[:, sure:] for act in acts])
        sizes = np.array([len(each.chosen) for each in made], dtype=np.intp)
        shift = np.concatenate([each.closed for each in made]) - prior.tie * np.concatenate([e.tied for e in made])
        chosen = np.concatenate([each.chosen for each in made])
        whose = np.repeat(np.arange(len(acts)), sizes)
        return cls(items, quiet, whose, np.cumsum(sizes) - sizes, chosen, shift, weights[whose])

    def also(self, heard: NDArray[np.intp]) -> _Comparisons:
        """The same in some of the quiet features as well."""
        acts, items, width = self.items.shape
        wider = np.zeros((acts, items, width + len(heard)))
        wider[:, :, : width - 1] = self.items[:, :, :-1]
        wider[:, : self.quiet.shape[1], width - 1 : -1] = self.quiet[:, :, heard]
        wider[:, :, -1] = self.items[:, :, -1]
        return replace(self, items=wider)

    def at(self, weights: Array) -> _Point:
        """The log-likelihood and its derivatives: first in the utilities of each act's items, then in the weights."""
        value, pull, bend = self._chances(weights)
        gradient = np.einsum("ak,akw->w", pull, self.items)
        bent, width = np.matmul(bend, self.items), len(weights)
        return _Point(weights, value, gradient, _gram(self.items.reshape(-1, width), bent.reshape(-1, width)))

    def slopes(self, weights: Array) -> tuple[Array, Array]:
        """Gradient (A, K) and negative Hessian (A, K, K) in the utilities of each act's items."""
        return self._chances(weights)[1:]

    def _chances(self, weights: Array) -> tuple[float, Array, Array]:
        logits = np.einsum("akw,w->ak", self.items, weights)[self.act] + self.shift
        each = np.arange(len(logits))
        logits -= logits[each, self.chosen][:, None]
        top = logits.max(1, keepdims=True)
        chances = np.exp(logits - top)
        total = chances.sum(1, keepdims=True)
        chances /= total
        value = -float((self.weight * (top + np.log(total))[:, 0]).sum())
        pull = -chances
        pull[each, self.chosen] += 1.0
        bend = -chances[:, :, None] * chances[:, None, :]
        np.einsum("ckk->ck", bend)[...] += chances
        pull *= self.weight[:, None]
        bend *= self.weight[:, None, None]
        return value, np.add.reduceat(pull, self.first, axis=0), np.add.reduceat(bend, self.first, axis=0)


def _climb(
    evidence: _Evidence, mean: Array, precision: Array, at: _Point, gain: float, steps: int = NEWTON_STEPS
) -> _Point:
    """Towards the mode of the posterior, by damped Newton steps that promise at least `gain` nats each."""

    def penalty(point: _Point) -> float:
        return 0.5 * float((precision * (point.weights - mean) ** 2).sum())

    for _ in range(steps):
        gradient = at.gradient - precision * (at.weights - mean)
        step = np.linalg.solve(at.curvature + np.diag(precision), gradient)
        if float((gradient * step).sum()) < 2 * gain:
            break
        share = 1.0
        there = evidence.at(at.weights + step)
        while there.value - penalty(there) < at.value - penalty(at) and share > 1e-3:
            share *= 0.5
            there = evidence.at(at.weights + share * step)
        at = there
    return at


def _gram(left: Array, right: Array) -> Array:
    """Sum over rows of the outer products, (M, W), (M, W) → (W, W)."""
    width = left.shape[1]
    block = max(1, ONE_THREAD // width**2)
    total = np.zeros((width, width))
    for start in range(0, len(left), block):
        total += left[start : start + block].T @ right[start : start + block]
    return total


def _product(left: Array, right: Array) -> Array:
    """Matrix product, (N, D), (D, M) → (N, M), some rows at a time so that one thread makes it."""
    block = max(1, ONE_THREAD // right.size)
    parts = [left[start : start + block] @ right for start in range(0, len(left), block)]
    return np.concatenate(parts) if parts else np.zeros((0, right.shape[1]))


def _inverse(matrix: Array) -> Array:
    inverse = np.linalg.inv(matrix)
    return 0.5 * (inverse + inverse.T)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))
