"""What was learned, in words: from heads made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.latents import LATENTS
from assistant.profile import STRONGEST, TraitView, changed_line, profile_of, sign_probability
from feedback.elicitation import Elicitation
from feedback.population import MEASURED, load_population
from feedback.reward_head import Act, Array, RewardHead, fit
from feedback.traits import TRAIT_NAMES

WIDTH = len(MEASURED) + 3
ALONE = np.eye(len(TRAIT_NAMES), len(MEASURED))  # nothing goes together with anything


def head(sd: float = 0.3, **weights: float) -> RewardHead:
    mean = np.zeros(WIDTH)
    for name, weight in weights.items():
        mean[TRAIT_NAMES.index(name)] = weight
    return RewardHead(mean, np.eye(WIDTH) * sd**2, 0.0, 1)


def pair(**differences: float) -> Act:
    features: Array = np.zeros((2, WIDTH))
    for name, difference in differences.items():
        features[1, TRAIT_NAMES.index(name)] = difference
    return Act("ranking", features, ((0,), (1,)))


def test_weights_are_shares_of_the_strongest_taste() -> None:
    found = {view.name: view for view in profile_of(head(length=-1.1, code=9.0), [], {}, ALONE)}
    assert found["length"].weight == pytest.approx(-1.1 / STRONGEST)
    assert found["length"].sd == pytest.approx(0.3 / STRONGEST)
    assert found["code"].weight == 1.0
    assert set(found) == set(TRAIT_NAMES)


def test_words_say_how_sure_it_is() -> None:
    acts = [pair(length=1.0, code=1.0, emoji=1.0)] * 3 + [pair(length=0.1), pair(steps=1.0)]
    found = profile_of(head(length=-1.1, code=0.4, emoji=0.05, lists=3.0, steps=1.1), acts, {}, ALONE)
    words = {view.name: view.words for view in found}
    assert words["length"] == "clearly for shorter replies"
    assert words["code"] == "leaning to code"
    assert words["emoji"] == "no clear preference"
    assert words["steps"] == "leaning to step-by-step answers"  # one act is not enough to call it clear
    assert words["lists"] == "nothing known yet"  # no act bears on it: that is the prior talking
    assert found[0].name == "length"
    assert {view.name: view.evidence for view in found}["length"] == 3
    assert [view.name for view in found if view.known] == ["length"]


def test_a_correction_is_known_without_evidence() -> None:
    found = profile_of(head(emoji=-2.0, code=0.1, lists=0.05), [], {"emoji": -1.0, "code": 0.0, "lists": 0.05}, ALONE)
    assert {view.name for view in found[:3]} == {"emoji", "code", "lists"}
    told = {view.name: (view.words, view.known, view.weight) for view in found}
    assert told["emoji"] == ("set by you: no emoji", True, -1.0)  # as it was set, however near the head came to it
    assert told["code"] == ("set by you: makes no difference", False, 0.0)
    assert told["lists"] == ("set by you: lists", True, 0.05)


def company(**with_length: float) -> Array:
    """Traits that vary with length, by so much."""
    together = ALONE.copy()
    at = TRAIT_NAMES.index("length")
    for name, covariance in with_length.items():
        other = TRAIT_NAMES.index(name)
        together[at, other] = together[other, at] = covariance
    return together


def test_what_goes_together_is_told_as_one_and_once() -> None:
    """Clicks for short replies are shared out between length and what goes with it, neither being sure."""
    acts = [pair(length=1.0, variety=1.0, code=1.0)] * 3
    shared = head(0.5, length=-0.6, variety=-0.6)
    apart = {view.name: view.words for view in profile_of(shared, acts, {}, ALONE)}
    assert all(apart[name].startswith("leaning to ") for name in ("length", "variety"))
    together = {view.name: view for view in profile_of(shared, acts, {}, company(variety=0.9))}
    length, variety = together["length"], together["variety"]
    # -.6 - .9 · .6 = -1.14, sd .5 · √(1 + .81) = .67; then what variety is worth beside it: -.6 (its own).
    assert length.words == "clearly for shorter replies"
    assert length.weight == pytest.approx(-1.14 / STRONGEST) and length.sd == pytest.approx(0.6727 / STRONGEST, 1e-3)
    assert not variety.known and variety.weight == pytest.approx(-0.6 / STRONGEST)
    # What is only there because it goes with length is not told once that is.
    alone = {view.name: view for view in profile_of(head(0.3, length=-1.5), acts, {}, company(variety=0.9, code=-0.5))}
    assert alone["length"].known and alone["variety"].weight == alone["code"].weight == 0.0
    # What was set by hand comes first, and the others are told beside it.
    set_first = profile_of(head(0.3, length=-1.5), acts, {"variety": -1.0}, company(variety=0.9))
    (after,) = (view for view in set_first if view.name == "length")
    assert set_first[0].name == "variety" and after.weight == pytest.approx(-1.5 / STRONGEST)


@pytest.mark.parametrize("sign, words", [(-1, "clearly for shorter replies"), (1, "clearly for longer replies")])
def test_who_always_takes_the_shorter_of_two_ready_replies_is_told_so(sign: int, words: str) -> None:
    population = load_population(LATENTS)
    elicitation, acts, asked = Elicitation(population), list[Act](), list[str]()
    for _ in range(10):
        pair = elicitation.most_telling(fit(acts, population.prior), asked)
        assert pair is not None
        asked.append(pair.question.id)
        features = population.features(pair.texts, np.zeros((2, LATENTS)))
        left, right = (sign * len(text) for text in pair.texts)
        acts.append(Act("ranking", features, ((0,), (1,)) if left > right else ((1,), (0,))))
    first, *others = profile_of(fit(acts, population.prior), acts, {}, population.together)
    assert (first.name, first.words) == ("length", words) and not any(view.known for view in others)


def test_a_wish_for_a_number_counts_for_its_own_trait_alone() -> None:
    together = ALONE.copy()
    bump = MEASURED.index("words~48")
    together[:, bump] = 0.5
    weights = head(0.1)
    weights.mean[bump] = 2.0
    found = {view.name: view.weight for view in profile_of(weights, [], {}, together)}
    assert found.pop("length") == pytest.approx(0.5 * 2.0 / STRONGEST) and not any(found.values())


def views(acts: int = 3, sd: float = 0.3, **weights: float) -> list[TraitView]:
    return profile_of(head(sd, **weights), [pair(length=1.0, code=1.0)] * acts, {}, ALONE)


def test_the_changed_line_names_what_moved_most() -> None:
    assert changed_line(views(0), views(1, length=-1.0, code=0.4)) == "Now leaning to shorter replies."
    assert changed_line(views(2, length=-1.0), views(3, length=-1.0)) == "Now clearly for shorter replies."
    assert changed_line(views(length=-1.0), views(length=-0.2)) == "No longer sure about shorter replies."
    assert changed_line(views(length=-1.0), views(length=1.0)) == "Now clearly for longer replies."


def test_what_a_trait_was_said_for_until_now_is_not_told_as_a_loss() -> None:
    acts, together = [pair(length=1.0, variety=1.0)] * 3, company(variety=0.9)
    unsure = profile_of(head(0.5, length=-0.4, variety=-0.5), acts, {}, together)
    clear = profile_of(head(0.2, length=-1.5, variety=0.1), acts, {}, together)
    leaning = {view.name for view in unsure if view.leans}
    assert leaning == {"length", "variety"} and not any(view.known for view in unsure)
    assert [view.name for view in clear if view.leans] == ["length"], "variety was only said for length"
    assert changed_line(unsure, clear) == "Now clearly for shorter replies."
    by_hand = profile_of(head(0.2, length=-1.5), acts, {"length": -1.0}, together)
    assert changed_line(unsure, by_hand) == "", "what they lose by what they set themselves"


def test_the_changed_line_is_empty_when_nothing_else_is_known_than_before() -> None:
    assert changed_line(views(length=-1.0), views(length=-2.0)) == ""
    assert changed_line(views(), views(sd=2.0, length=-0.5)) == ""  # moved, but which way it goes is not known
    by_hand = profile_of(head(code=1.0), [], {"code": 0.5}, ALONE)
    assert changed_line(views(0), by_hand) == ""  # they know what they did


def test_probability_of_a_sign() -> None:
    assert sign_probability(0.0, 1.0) == 0.5
    assert sign_probability(-1.6449, 1.0) == pytest.approx(0.95, abs=1e-4)
