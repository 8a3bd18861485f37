"""The reward head: a Gaussian posterior over one person's weights, refitted from all their acts at every click.

What each act says is in likelihood.py. The posterior is Laplace's approximation at the mode. Weights get individual
prior widths by a few steps of automatic relevance determination (MacKay 1992; the fixed point converges in a quarter of
the steps of expectation maximisation), so that with few clicks a few traits explain them. Features that mostly say
nothing of a person (single words, groups of words, latents) are quiet: they have a tiny width and a part in the fit
only if the slope of the evidence in their variance is among the largest (the first step of Tipping & Faul 2003), which
costs a fifth of the time that all would.

A fit starts from the prior and runs the same steps in the same order: the same acts give the same bits on the same
machine. Left out on purpose: stochastic optimisers, starting from the last head (bits would depend on history), and any
language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feedback.likelihood import Act, Array, Evidence, Point, Prior, product

__all__ = ["Act", "Array", "Prior", "RewardHead", "fit", "log_likelihood", "prior_head", "pulls"]

NEWTON_STEPS = 20
FIRST_LOOK = 1  # width steps before it is asked which quiet features the acts speak for
ROUGHLY, EXACTLY = 0.01, 1e-8  # a Newton step that promises to gain fewer nats than this is not taken


@dataclass(frozen=True)
class RewardHead:
    """Posterior over weights: mean (D,), cov (D, D), and the thumb threshold's mean; labels: acts it has seen."""

    mean: Array
    cov: Array
    threshold: float
    labels: int

    def score(self, features: Array) -> tuple[Array, Array]:
        """Mean and sd of the utility of each row, (N, D) → (N,), (N,). Differences are what is known well."""
        variance = np.einsum("nd,nd->n", product(features, self.cov), features)
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
    mode = _Mode.start(Evidence(acts, prior, len(prior.mean) - prior.quiet, weights), prior)
    if prior.quiet:
        mode = mode.widen(prior, FIRST_LOOK).hear(prior)
    mode = mode.widen(prior, prior.width_steps).climb(EXACTLY)
    return mode.head(prior, labels=sum(act.kind != "correction" for act in acts))


def log_likelihood(head: RewardHead, acts: Sequence[Act], prior: Prior, weights: Array | None = None) -> float:
    """Log-likelihood of acts at the head's mean, in nats. weights: as in `fit`."""
    return Evidence(acts, prior, len(prior.mean), weights).at(np.append(head.mean, head.threshold)).value


def pulls(head: RewardHead, acts: Sequence[Act], prior: Prior, weights: Array | None = None) -> Array:
    """How far each act pulls each weight, (N, D): about what would change if only this act were taken back, in reverse.

    To first order at the mode (Cook 1986): the posterior's covariance times the gradient of the act's likelihood.
    Widths and threshold are held where all acts together put them, so that of many alike acts each pulls a little.
    """
    if not acts:
        return np.zeros((0, len(head.mean)))
    evidence = Evidence(acts, prior, len(prior.mean), weights)
    return product(evidence.gradients(np.append(head.mean, head.threshold))[:, :-1], head.cov)


@dataclass(frozen=True)
class _Mode:
    """Where the fit stands: in some of the features, (W - 1,) places, with the precisions of their prior, (W,)."""

    evidence: Evidence
    features: NDArray[np.intp]
    mean: Array
    precision: Array
    at: Point

    @classmethod
    def start(cls, evidence: Evidence, prior: Prior) -> _Mode:
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


def _climb(
    evidence: Evidence, mean: Array, precision: Array, at: Point, gain: float, steps: int = NEWTON_STEPS
) -> Point:
    """Towards the mode of the posterior, by damped Newton steps that promise at least `gain` nats each."""

    def penalty(point: Point) -> float:
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


def _inverse(matrix: Array) -> Array:
    inverse = np.linalg.inv(matrix)
    return 0.5 * (inverse + inverse.T)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))
