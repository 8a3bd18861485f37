"""Old acts fade where they no longer foretell new ones, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from feedback import fading
from feedback.fading import BLOCK, NEVER, Foretold, fit_fading, half_life, weights
from feedback.reward_head import Act, Array, Prior, fit
from tests.feedback.helpers import ranking
from tests.feedback.test_reward_head import digest

WIDTH = 8
PRIOR = Prior(np.zeros(WIDTH), np.full(WIDTH, 0.3))
BEFORE, AFTER = 3.0 * np.eye(WIDTH)[0], 3.0 * np.eye(WIDTH)[1] - 2.0 * np.eye(WIDTH)[0]


def acts(taste: Array, count: int, seed: int) -> list[Act]:
    """Rankings of four by somebody with a taste (WIDTH,), with click noise."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows = random.normal(size=(4, WIDTH))
        order = np.argsort(-(rows @ taste + random.gumbel(size=4)))
        made.append(ranking(rows, *((int(place),) for place in order)))
    return made


def test_what_an_act_counts_halves_in_a_half_life() -> None:
    counted = weights(41, 20.0)
    assert counted[-1] == 1.0 and counted[-21] == pytest.approx(0.5) and counted[0] == pytest.approx(0.25)
    assert (weights(5, NEVER) == 1.0).all() and len(weights(0, 8.0)) == 0


def test_half_an_act_twice_is_an_act() -> None:
    once = acts(BEFORE, 6, 1)
    twice = fit([act for act in once for _ in range(2)], PRIOR, np.full(12, 0.5))
    np.testing.assert_allclose(twice.mean, fit(once, PRIOR).mean, atol=1e-6)
    assert digest(fit(once, PRIOR, np.ones(6))) == digest(fit(once, PRIOR))
    nothing = fit(once, PRIOR, np.zeros(6))
    np.testing.assert_allclose(nothing.mean, PRIOR.mean, atol=1e-9)


def test_a_taste_that_stays_does_not_fade() -> None:
    for seed in range(4):
        steady = acts(BEFORE, 80, seed)
        assert half_life(steady, PRIOR, {}) == NEVER
        assert digest(fit_fading(steady, PRIOR)) == digest(fit(steady, PRIOR))
    assert half_life(acts(BEFORE, 2 * BLOCK - 1, 0), PRIOR, {}) == NEVER, "too early to tell"


@pytest.mark.parametrize("level", [0.0, -2.2])
def test_a_correction_is_no_sign_of_a_taste_that_turned(level: float) -> None:
    for seed in range(3):
        steady = [*acts(BEFORE, 49, seed), Act("correction", np.eye(WIDTH)[:1], value=level)]
        assert half_life(steady, PRIOR, {}) == NEVER


def test_a_taste_that_turns_is_followed() -> None:
    for seed in range(4):
        turned = acts(BEFORE, 100, seed) + acts(AFTER, 30, seed + 10)
        assert half_life(turned, PRIOR, {}) < NEVER
        follows, stays = fit_fading(turned, PRIOR).mean, fit(turned, PRIOR).mean

        def likeness(mean: Array) -> float:
            return float(mean @ AFTER / np.linalg.norm(mean) / np.linalg.norm(AFTER))

        assert likeness(follows) > 0.7 and likeness(stays) < 0


def test_what_was_found_before_is_used_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = acts(BEFORE, 60, 3) + acts(AFTER, 30, 4)
    found: Foretold = {}
    steps = [half_life(turned[:count], PRIOR, found) for count in range(1, len(turned) + 1)]
    assert steps == [half_life(turned[:count], PRIOR, {}) for count in range(1, len(turned) + 1)]
    monkeypatch.setattr(fading, "_foretell", None)
    assert half_life(turned, PRIOR, found) == steps[-1], "nothing new to be found"
