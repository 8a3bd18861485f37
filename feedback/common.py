"""What people have in common: where the head of somebody new begins, from the acts of those who share theirs.

The weights of a person are taken to lie around what people like on average (empirical Bayes). The average is that of
their heads, as if LEAST people more liked nothing in particular, so that a few do not speak for all. How much of it
somebody new begins with is decided by what it would have been worth to these very people: each is left out in turn, and
with so much of the average of the others, a head of their first acts must foretell their later ones better than with
nothing, significantly over people. Where no share of it does, nothing is taken over.

What is common is where a head begins; how soon clicks move it from there is not changed. Left out on purpose: what
single words and latent features are worth (they describe subjects, so they could tell what somebody talks about), and
widths and covariances between traits, which dozens of people cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from feedback.reward_head import Act, Array, Prior, fit, log_likelihood

LEAST = 5  # people, below which nobody could hide among them
FIRST, LATER = 10, 5  # acts that foretell, and how many must be there to be foretold
SHARES = (0.0, 0.5, 1.0, 2.0)  # of the average, which the prior of each head has drawn towards nothing
SURE = 1.64  # standard errors over people by which a share must be better than none: one-sided, 95%


@dataclass(frozen=True)
class Common:
    """parts: what each person's head adds to the prior, (N, D); share: how much of their average is begun with; gain:
    nats by which a later act was foretold better."""

    parts: Array
    share: float
    gain: float

    def mean(self, without: int | None = None) -> Array:
        """What a head begins with, (D,). without: the row of whoever it is for, whose acts must not count twice."""
        rows = self.parts if without is None else np.delete(self.parts, without, axis=0)
        return self.share * rows.sum(0) / (len(rows) + LEAST)


def in_common(
    people: Sequence[Sequence[Act]], prior: Prior, breathe: Callable[[], None] = lambda: None
) -> Common | None:
    """What these people, each with their acts oldest first, have in common; None where it would help nobody new.

    breathe: called between two heads, some tens of milliseconds each; it may wait, or raise to end this.
    """
    if len(people) < LEAST:
        return None
    parts = np.zeros((len(people), len(prior.mean)))
    named = slice(0, len(prior.mean) - prior.quiet)
    for row, acts in enumerate(people):
        breathe()
        parts[row, named] = fit(acts, prior).mean[named] - prior.mean[named]
    found, worth = [Common(parts, share, 0.0) for share in SHARES], list[Array]()
    for row, acts in enumerate(people):
        first, later = acts[:FIRST], [act for act in acts[FIRST:] if act.kind != "correction"]
        if len(later) >= LATER:
            begun = [around(prior, common.mean(without=row)) for common in found]
            worth.append(_worth(first, later, begun, breathe))
    if len(worth) < LEAST:
        return None
    gains = np.stack(worth)
    sure = gains.mean(0) - SURE * gains.std(0, ddof=1) / np.sqrt(len(gains))
    best = int(np.argmax(sure))
    return replace(found[best], gain=float(gains[:, best].mean())) if sure[best] > 0 else None


def around(prior: Prior, mean: Array) -> Prior:
    """The prior of somebody who begins with what is common."""
    return replace(prior, mean=prior.mean + mean)


def _worth(first: Sequence[Act], later: Sequence[Act], priors: Sequence[Prior], breathe: Callable[[], None]) -> Array:
    """Nats by which a later act is foretold better under each prior than under the first one, (S,)."""
    found = []
    for prior in priors:
        breathe()
        found.append(log_likelihood(fit(first, prior), later, prior) / len(later))
    return np.array(found) - found[0]
