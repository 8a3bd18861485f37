"""What people have in common: where the head of somebody new begins, from the acts of those who share theirs.

The weights of a person are taken to lie around what people like on average (empirical Bayes). The average is that of
their heads, as if LEAST people more liked nothing in particular, so that a few do not speak for all. How much of it
somebody new begins with, and how soon clicks move them from there, is decided by what it would have been worth to these
very people: each is left out in turn, and with so much of the average of the others, a head of their first acts must
foretell their later ones better than with nothing, significantly over people. Where no share of it does, nothing is
taken over. Where people's clicks tell little of their later ones, a narrower prior keeps them from doing harm.

Left out on purpose: what single words and latent features are worth (they describe subjects, so they could tell what
somebody talks about), and a width for every trait and covariances between traits, which dozens of people cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from feedback.reward_head import Act, Array, Prior, fit, log_likelihood

LEAST = 5  # people, below which nobody could hide among them
FIRST, LATER = 10, 5  # acts that foretell, and how many must be there to be foretold
SHARES = (0.5, 1.0, 2.0)  # of the average, which the prior of each head has drawn towards nothing
WIDTHS = (1.0, 0.5, 0.25)  # times those of the prior of somebody who begins with nothing
SURE = 1.64  # standard errors over people by which a share must be better than none: one-sided, 95%


@dataclass(frozen=True)
class Common:
    """parts: what each person's head adds to the prior, (N, D); share: how much of their average is begun with; width:
    how far from there, in widths of the prior; gain: nats by which a later act was foretold better."""

    parts: Array
    share: float
    gain: float
    width: float = 1.0

    def mean(self, without: int | None = None) -> Array:
        """What a head begins with, (D,). without: the row of whoever it is for, whose acts must not count twice."""
        rows = self.parts if without is None else np.delete(self.parts, without, axis=0)
        return self.share * rows.sum(0) / (len(rows) + LEAST)

    def prior(self, nothing: Prior, without: int | None = None) -> Prior:
        """The prior of somebody who begins with it, in place of that of somebody who begins with nothing."""
        return replace(nothing, mean=nothing.mean + self.mean(without), sd=nothing.sd * self.width)


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
    found, worth = [[Common(parts, s, 0.0, w) for w in WIDTHS] for s in SHARES], list[Array]()
    for row, acts in enumerate(people):
        first, later = acts[:FIRST], [act for act in acts[FIRST:] if act.kind != "correction"]
        if len(later) >= LATER:
            begun = [common.prior(prior, without=row) for of_share in found for common in of_share]
            worth.append(_worth(first, later, [prior, *begun], breathe).reshape(len(SHARES), len(WIDTHS)))
    if len(worth) < LEAST:
        return None
    gains = np.stack(worth)  # (people, shares, widths)
    share = _surest(gains[:, :, 0])
    if share is None:
        return None
    width = _surest(gains[:, share] - gains[:, share, :1]) or 0
    return replace(found[share][width], gain=float(gains[:, share, width].mean()))


def _surest(gains: Array) -> int | None:
    """The choice that is better for people by most, (people, choices); None where none is significantly."""
    sure = gains.mean(0) - SURE * gains.std(0, ddof=1) / np.sqrt(len(gains))
    best = int(np.argmax(sure))
    return best if sure[best] > 0 else None


def _worth(first: Sequence[Act], later: Sequence[Act], priors: Sequence[Prior], breathe: Callable[[], None]) -> Array:
    """Nats by which a later act is foretold better under each prior but the first than under that one, (S,)."""
    found = []
    for prior in priors:
        breathe()
        found.append(log_likelihood(fit(first, prior), later, prior) / len(later))
    return np.array(found[1:]) - found[0]
