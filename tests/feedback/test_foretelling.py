"""Clicks that have a reason foretell one another, clicks of chance do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from feedback.fading import weights
from feedback.foretelling import FOLDS, foretold
from feedback.reward_head import Act, Prior

WIDTH = 6
PRIOR = Prior(np.zeros(WIDTH), np.full(WIDTH, 0.5))


def pairs(count: int, taste: np.ndarray, seed: int, wrong: float = 0.1) -> list[Act]:
    """Choices between two replies by a taste, some the other way round."""
    random = np.random.default_rng(seed)
    acts = []
    for _ in range(count):
        features = random.standard_normal((2, WIDTH))
        first = int(np.argmax(features @ taste)) ^ int(random.random() < wrong)
        acts.append(Act("ranking", features, ((first,), (1 - first,))))
    return acts


def test_a_taste_is_foretold_and_chance_is_not() -> None:
    taste = np.array([2.0, -1.0, 0, 0, 0, 0])
    told, chance = ([foretold(pairs(40, taste, seed, wrong), PRIOR) for seed in range(24)] for wrong in (0.1, 0.5))
    assert sum(each > 1.0 for each in told) >= 21, "a run of wrong clicks hides one now and then"
    assert sum(each > 1.0 for each in chance) <= 4 and abs(np.mean(chance)) < 0.5, "some luck is to be had"


def test_a_prior_that_knows_the_taste_is_not_beaten_by_little() -> None:
    """What is common to everybody is no news of this person."""
    taste = np.array([2.0, -1.0, 0, 0, 0, 0])
    acts = pairs(30, taste, 1)
    assert foretold(acts, replace(PRIOR, mean=taste)) < 0.5 * foretold(acts, PRIOR)


def test_a_persons_threshold_alone_is_no_taste() -> None:
    """Somebody who likes everything is foretold as well by when they give a thumb up."""
    random = np.random.default_rng(3)
    acts = [Act("thumb", random.standard_normal((1, WIDTH)), thumb=1) for _ in range(30)]
    assert abs(foretold(acts, PRIOR)) < 1.5


def test_corrections_are_not_foretold_and_few_acts_say_nothing() -> None:
    acts = pairs(6, np.array([2.0, 0, 0, 0, 0, 0]), 2)
    assert foretold(acts[: FOLDS - 1], PRIOR) == 0.0 == foretold([], PRIOR)
    correction = Act("correction", np.eye(WIDTH)[:1], value=2.0)
    assert foretold([correction] * 20, PRIOR) == 0.0
    plain, helped = foretold(acts, PRIOR), foretold([correction, *acts], PRIOR)
    assert helped > plain, "a right correction helps to foretell the clicks"


def test_old_acts_count_as_little_as_they_do_in_the_head() -> None:
    """Twenty acts of a taste that has turned, and twenty since."""
    taste = np.array([2.0, -1.0, 0, 0, 0, 0])
    acts = pairs(20, -taste, 1) + pairs(20, taste, 2)
    assert foretold(acts, PRIOR, weights(40, 5.0)) > foretold(acts, PRIOR) + 1.0


def test_what_is_liked_by_now_is_foretold_among_many_old_acts() -> None:
    """Were the newest fifth left out at once, nothing that counts would be left to foretell it from."""
    taste = np.array([2.0, -1.0, 0, 0, 0, 0])
    acts = pairs(320, -taste, 1) + pairs(80, taste, 2)
    assert foretold(acts, PRIOR, weights(400, 20.0)) > 2.0
