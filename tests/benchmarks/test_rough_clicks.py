"""Rough clicks: what is done to the acts, and the calibration error worked by hand."""

from __future__ import annotations

import numpy as np

from benchmarks.rough_clicks import contradicted, flipped, opposite
from feedback.population import load_population
from feedback.reward_head import Act, fit, prior_head

POPULATION = load_population(16)


def pair(seed: int) -> Act:
    rows = np.random.default_rng(seed).standard_normal((2, len(POPULATION.names)))
    return Act("ranking", rows, ((0,), (1,)))


def test_the_opposite_of_a_click() -> None:
    ranking = Act("ranking", np.zeros((3, 2)), ((0,), (1, 2)))
    assert opposite(ranking).tiers == ((1, 2), (0,))
    assert opposite(Act("thumb", np.zeros((1, 2)), thumb=1)).thumb == -1
    assert opposite(opposite(ranking)) == ranking or opposite(opposite(ranking)).tiers == ranking.tiers


def test_so_many_are_flipped() -> None:
    acts = [pair(seed) for seed in range(400)]
    said = [act.tiers for act in flipped(acts, 0.3, np.random.default_rng(1))]
    assert 0.24 < np.mean([tiers == ((1,), (0,)) for tiers in said]) < 0.36
    assert flipped(acts, 0.0, np.random.default_rng(1)) == acts


def test_who_takes_everything_back_has_said_nothing() -> None:
    acts = contradicted([pair(seed) for seed in range(10)])
    assert [act.tiers for act in acts[::2]] == [((0,), (1,))] * 5
    assert all(np.array_equal(acts[i].features, acts[i + 1].features) for i in range(0, 10, 2))
    assert np.allclose(fit(acts, POPULATION.prior).mean, prior_head(POPULATION.prior).mean, atol=1e-6)
