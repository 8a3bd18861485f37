"""The head's benchmark: on made-up replies whose order is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.base_replies import Drafts
from benchmarks.clicks import TURNS
from benchmarks.head import DRAFTS, Judge, Learned, Outcome, over_people, read_judged, simulate, together
from benchmarks.people import make_person
from feedback.population import load_population
from feedback.reward_head import RewardHead, fit
from feedback.traits import TRAIT_NAMES

POPULATION = load_population(0)
WIDTH = len(POPULATION.names)


def shorter(text: str) -> float:
    """A taste for few words."""
    return -float(len(text.split()))


def drafts(prompts: int, copies: int, seed: int) -> list[Drafts]:
    """Replies that differ in their length."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(prompts):
        lengths = random.permutation(np.arange(20, 20 + 2 * copies, 2)).tolist()
        texts = [" ".join(["tree"] * length) + "." for length in lengths]
        subject = random.normal(1, 0.1, copies)
        made.append(Drafts(f"p{number}", "?", texts, [True] * copies, np.zeros((copies, 0)), subject))
    return made


def head_for(weight: float) -> RewardHead:
    """A head that knows one thing: how much length is worth."""
    mean = np.zeros(WIDTH)
    mean[TRAIT_NAMES.index("length")] = weight
    return RewardHead(mean, np.eye(WIDTH), 0.0, 0)


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Someone who likes it short."""
    judged = drafts(8, DRAFTS + 2, 1)
    person = make_person("short", shorter, [each.texts for each in judged], 0)
    return Judge(person, read_judged(judged, POPULATION))


def test_who_knows_the_taste_wins_as_often_as_the_taste_itself(judge: Judge) -> None:
    right, wrong = judge.look(head_for(-1.0), 0), judge.look(head_for(1.0), 0)
    assert right.accuracy > 0.9 and wrong.accuracy < 0.1
    assert right.wins >= judge.oracle - 0.2 and judge.oracle > 0.8
    assert wrong.wins < 0.2


def test_who_knows_nothing_is_at_even_chances_in_pairs(judge: Judge) -> None:
    assert judge.look(head_for(0.0), 0).accuracy == 0.5


def test_acts_of_a_simulated_person_teach_the_taste(judge: Judge) -> None:
    learn = drafts(10, 8, 2)
    rows = [POPULATION.features(each.texts, each.latent) for each in learn]
    person = make_person("short", shorter, [each.texts for each in learn], 3)
    acts = simulate(person, learn, rows, TURNS, 25, seed=0)
    assert len(acts) == 25
    assert [act.kind for act in acts[:3]] == ["ranking", "ranking", "thumb"]
    assert [len(act.features) for act in acts[:3]] == [4, 2, 1]
    assert judge.look(fit(acts, POPULATION.prior), 25).accuracy > 0.85


def test_seeds_are_averaged_before_people() -> None:
    people = {
        "short": Outcome(1.0, [learned(0.6), learned(0.8), Learned(30, 0.0, 0.0, [])], [learned(0.5)]),
        "when": Outcome(1.0, [learned(0.9)], [learned(1.0)]),
    }
    accuracy = over_people(people, "accuracy", 10)
    assert accuracy.mean == pytest.approx(0.8) and accuracy.count == 2
    assert over_people(people, "ranked_accuracy", 10).mean == pytest.approx(0.75)
    assert over_people(people, "accuracy", 10, "unnamed").mean == pytest.approx(0.9)


def learned(accuracy: float, gaps: list[float] | None = None) -> Learned:
    """Figures of a head after ten labels."""
    return Learned(10, accuracy, 0.5, gaps or [0.0, 0.0])


def test_one_persons_shyness_and_anothers_boldness_are_no_error_together() -> None:
    people = {
        "short": Outcome(1.0, [learned(0.5, [0.1, 0.02])], []),
        "when": Outcome(1.0, [learned(0.5, [-0.1, 0.04])], []),
    }
    assert together(people, 10) == pytest.approx(0.03)
    assert over_people(people, "calibration", 10).mean == pytest.approx((0.12 + 0.14) / 2)
    assert together(people, 10, "unnamed") == pytest.approx(0.14)


def test_a_head_is_calibrated_when_its_chances_are_the_rates_of_clicks(judge: Judge) -> None:
    """Of heads that know the order and differ in how strongly they hold it, the best is neither shy nor bold."""
    errors = [judge.look(replace(head_for(w), cov=1e-6 * np.eye(WIDTH)), 0).calibration for w in (-0.01, -3.0, -90.0)]
    assert errors[0] > 0.2 and errors[2] > 0.05
    assert errors[1] < min(errors[0], errors[2])
