"""What the reward head knows of a person, in plain words and in units people can set by hand.

Weights of the head are logits of a click per standard deviation of a trait. What people see is a weight from -1 to 1:
a share of STRONGEST, the strongest taste that people have for a single trait. At 1, of two replies that differ by one
standard deviation in this trait, and as usual in what goes with it, the right one is clicked in nine cases of ten.

For much goes together: short replies have fewer different words, so the credit for clicks for short ones is shared out
among several weights of the head, none of which is certain. What is said of a trait is therefore its whole effect, with
what usually goes with it; except for what goes with a trait that was said before, the strongest first. So somebody who
likes it short is told that, and not also that they like few different words. What is set by hand is the head's own
weight, and shown as that.

Pure functions; only named traits appear here, because nobody can read a latent feature or the rate of "the". They count
all the same (feedback/vocabulary.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedback.population import MEASURED
from feedback.reward_head import Act, Array, RewardHead
from feedback.traits import SCALES, TRAIT_NAMES, TRAITS

STRONGEST = 2.2  # logits a standard deviation; σ(2.2) = 0.90
# Individual prior widths make the head surer of the few traits it picked than it should be; hence the strict figures.
KNOWN, LEANING = 0.95, 0.85  # probabilities of the sign from which a taste is called clear, or a leaning
LEAST_KNOWN, LEAST_LEANING = 0.12, 0.06  # and the least weight of each
LEAST_COMMON = 0.02  # the least weight that is said to be common; an average of heads is smaller than each
LEAST_EVIDENCE = 3  # labels, for what is called clear and told to the model
FIXED = 0.02  # of a trait's variance, the least that is taken to be left when others are held fixed
BEARS = 0.5  # standard deviations by which replies must differ in a trait for an act to say something about it


@dataclass(frozen=True)
class TraitView:
    """One trait as a person sees it.

    weight: -1 to 1, the whole effect, see above; sd: of that; evidence: labels that bear on it; words: what is known,
    as a phrase; preference: what is wanted, as a noun phrase; known: with confidence, from the person's own acts;
    leans: known, or likely; corrected: set by hand.
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
    head: RewardHead,
    acts: Sequence[Act],
    corrected: Mapping[str, float],
    together: Array,
    common: Array | None = None,
) -> list[TraitView]:
    """All traits, what is known best first.

    corrected: the weights set by hand, shown as they were set; together: see `Population`; common: what the head began
    with, (D,), 0 where None.
    """
    began = np.zeros(len(head.mean)) if common is None else common / STRONGEST
    evidence = _evidence(acts, len(TRAIT_NAMES))
    means, sds = effects(head, evidence, together, [TRAIT_NAMES.index(name) for name in corrected])
    views = []
    for index, name in enumerate(TRAIT_NAMES):
        by_hand = name in corrected
        mean, sd = float(means[index]), float(sds[index])
        if by_hand:
            sd = math.sqrt(max(float(head.cov[index, index]), 0.0))
        sure = sign_probability(mean, sd)
        weight, start = corrected.get(name, mean / STRONGEST), float(began[index])
        others = preference(name, start) if abs(start) >= LEAST_COMMON else ""
        known = _clear(mean, sd, int(evidence[index])) if not by_hand else weight != 0
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


def effects(head: RewardHead, evidence: NDArray[np.int_], together: Array, said: Sequence[int]) -> tuple[Array, Array]:
    """What one more of each trait is worth with what goes with it, and the sd of that, (traits,) each; see above.

    said: traits that are said anyway, before all others. What is clear is chosen by forward selection: the largest
    effect first, then those of the others with it held fixed.
    """
    chosen = list(said)
    while True:
        rows = _with_company(together, chosen, len(head.mean))
        means, sds = rows @ head.mean, np.sqrt(np.maximum(((rows @ head.cov) * rows).sum(1), 0.0))
        clear = [
            index
            for index in range(len(rows))
            if index not in chosen and _clear(float(means[index]), float(sds[index]), int(evidence[index]))
        ]
        if not clear:
            return means, sds
        chosen.append(max(clear, key=lambda index: abs(float(means[index]))))


def _with_company(together: Array, chosen: Sequence[int], width: int) -> Array:
    """How much of everything one more of each trait brings along, the chosen ones held fixed, (traits, width): linear
    regression on the chosen traits and, of the others, on them and the trait itself. Latent features are left out."""
    traits = len(together)
    brought, left = np.zeros((traits, width)), together
    if chosen:
        own = np.linalg.solve(together[np.ix_(chosen, chosen)], together[chosen])
        brought[chosen, : together.shape[1]] = own
        left = together - together[:, chosen] @ own
    others = [index for index in range(traits) if index not in chosen]
    # Of a trait that is nearly a sum of chosen ones nothing is left that could be divided by.
    spread = np.maximum(left[others, others], FIXED * together[others, others])
    brought[others, : together.shape[1]] = left[others] / spread[:, None]
    brought[others, others] = 1.0
    brought[:, : together.shape[1]][~_CREDITED] = 0.0
    return brought


def _clear(mean: float, sd: float, evidence: int) -> bool:
    """Whether an effect is called clear."""
    sure = sign_probability(mean, sd) >= KNOWN
    return sure and abs(mean) / STRONGEST >= LEAST_KNOWN and evidence >= LEAST_EVIDENCE


def _credited() -> NDArray[np.bool_]:
    """Which features count for a trait, (traits, traits + bumps + words): a wish for a number ("about 40 words") only
    for the trait that grows with it, since what else varies with the distance from 40 is an accident."""
    counts = np.ones((len(TRAIT_NAMES), len(MEASURED)), dtype=bool)
    for scale in SCALES:
        for center in scale.centers:
            counts[:, MEASURED.index(f"{scale.name}~{center:g}")] = [name == scale.trait for name in TRAIT_NAMES]
    return counts


_CREDITED = _credited()


def changed_line(before: Sequence[TraitView], after: Sequence[TraitView]) -> str:
    """What an act changed in what is known, in plain words: the trait that moved most among those whose words differ.

    Of what is known now that was not before, if anything is: that may be what another trait was said for until now.
    Empty when nothing that is said of the person differs, however much a number moved, and when they only lose
    something by what they set by hand.
    """
    was = {view.name: view for view in before}
    moved = [view for view in after if view.words != was[view.name].words and not view.corrected]
    by_hand = any(view.corrected and view.weight != was[view.name].weight for view in after)
    lost = [view for view in moved if was[view.name].leans and not view.leans and not by_hand]
    leaning = [view for view in moved if view.leans]
    told = [view for view in leaning if view.known] or leaning or lost
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
