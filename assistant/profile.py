"""What the reward head knows of a person, in plain words and in units people can set by hand.

Weights of the head are logits of a click per standard deviation of a trait. What people see is a weight from -1 to 1:
a share of STRONGEST, the strongest taste that people have for a single trait. At 1, of two replies that differ by one
standard deviation in this trait and in nothing else, the right one is clicked in about nine cases of ten.

Pure functions; only named traits appear here, because nobody can read a latent feature or the rate of "the". They count
all the same (feedback/vocabulary.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedback.reward_head import Act, Array, RewardHead
from feedback.traits import TRAIT_NAMES, TRAITS

STRONGEST = 2.2  # logits a standard deviation; σ(2.2) = 0.90
# Individual prior widths make the head surer of the few traits it picked than it should be; hence the strict figures.
KNOWN, LEANING = 0.95, 0.85  # probabilities of the sign from which a taste is called clear, or a leaning
LEAST_KNOWN, LEAST_LEANING = 0.12, 0.06  # and the least weight of each
LEAST_COMMON = 0.02  # the least weight that is said to be common; an average of heads is smaller than each
LEAST_EVIDENCE = 3  # labels, for what is called clear and told to the model
BEARS = 0.5  # standard deviations by which replies must differ in a trait for an act to say something about it


@dataclass(frozen=True)
class TraitView:
    """One trait as a person sees it.

    weight, sd: -1 to 1, see above; evidence: labels that bear on it; words: what is known, as a phrase; preference:
    what is wanted, as a noun phrase; known: with confidence, from the person's own acts; leans: known, or likely;
    corrected: set by hand.
    """

    name: str
    weight: float
    sd: float
    evidence: int
    words: str
    preference: str
    known: bool
    leans: bool
    corrected: bool


def profile_of(
    head: RewardHead, acts: Sequence[Act], corrected: Mapping[str, float], common: Array | None = None
) -> list[TraitView]:
    """All traits, what is known best first.

    corrected: the weights set by hand, shown as they were set; common: what the head began with, (D,), 0 where None.
    """
    began = np.zeros(len(head.mean)) if common is None else common / STRONGEST
    evidence = _evidence(acts, len(TRAIT_NAMES))
    views = []
    for index, name in enumerate(TRAIT_NAMES):
        mean, sd = float(head.mean[index]), math.sqrt(max(float(head.cov[index, index]), 0.0))
        sure = sign_probability(mean, sd)
        by_hand = name in corrected
        weight, start = corrected.get(name, mean / STRONGEST), float(began[index])
        others = preference(name, start) if abs(start) >= LEAST_COMMON else ""
        clear = sure >= KNOWN and abs(weight) >= LEAST_KNOWN and evidence[index] >= LEAST_EVIDENCE
        known = clear or (by_hand and weight != 0)
        leans = known or (evidence[index] > 0 and sure >= LEANING and abs(weight) >= LEAST_LEANING)
        views.append(
            TraitView(
                name,
                float(np.clip(weight, -1.0, 1.0)),
                sd / STRONGEST,
                int(evidence[index]),
                _words(preference(name, weight), int(evidence[index]), known, bool(leans), by_hand, others),
                preference(name, weight),
                bool(known),
                bool(leans),
                by_hand,
            )
        )
    return sorted(views, key=lambda view: (not view.corrected, not view.known, -abs(view.weight)))


def changed_line(before: Sequence[TraitView], after: Sequence[TraitView]) -> str:
    """What an act changed in what is known, in plain words: the trait that moved most among those whose words differ.

    Empty when nothing that is said of the person differs, however much a number moved.
    """
    was = {view.name: view for view in before}
    moved = [view for view in after if view.words != was[view.name].words and "set by you" not in view.words]
    told = [view for view in moved if view.leans or was[view.name].leans]
    if not told:
        return ""
    view = max(told, key=lambda view: abs(view.weight - was[view.name].weight))
    return f"Now {view.words}." if view.leans else f"No longer sure about {was[view.name].preference}."


def preference(name: str, weight: float) -> str:
    """What someone with this sign of weight wants: "shorter replies"."""
    trait = TRAITS[name]
    return trait.more if weight >= 0 else trait.less


def sign_probability(mean: float, sd: float) -> float:
    """Probability that a Gaussian weight has the sign of its mean, 0.5 to 1."""
    return 0.5 * (1.0 + math.erf(abs(mean) / max(sd, 1e-12) / math.sqrt(2.0)))


def _words(wanted: str, evidence: int, known: bool, leans: bool, by_hand: bool, others: str) -> str:
    if by_hand:
        return f"set by you: {wanted}" if known else "set by you: makes no difference"
    if not evidence:
        return f"others here like {others}" if others else "nothing known yet"
    if known:
        return f"clearly for {wanted}"
    return f"leaning to {wanted}" if leans else "no clear preference"


def _evidence(acts: Sequence[Act], traits: int) -> NDArray[np.int_]:
    """How many acts bear on each trait, (traits,): ranked replies differ in it, or a thumbed one stands out."""
    spreads = [act.spread[:traits] for act in acts if act.kind != "correction"]
    return (np.array(spreads).reshape(-1, traits) >= BEARS).sum(0)
