"""Win rates are counted by hand here; the t quantiles are those of the printed tables."""

from __future__ import annotations

import math

import pytest

from benchmarks.judging import Judged, below_even, best_of_n_kl, duel, interval, t_quantile, wins_by_prompt


def sound(text: str, worth: float) -> Judged:
    return Judged(text, worth, broken=False)


def broken(text: str, worth: float) -> Judged:
    return Judged(text, worth, broken=True)


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [
        (sound("a", 2.0), sound("b", 1.0), 1.0),
        (sound("a", 1.0), sound("b", 2.0), 0.0),
        (sound("a", 1.0), sound("b", 1.0), 0.5),
        (sound("same", 1.0), sound("same", 1.0), 0.5),
        (broken("same", 1.0), sound("same", 1.0), 0.5),  # a reply cannot lose to itself
        (broken("a", 9.0), sound("b", 1.0), 0.0),
        (sound("a", 1.0), broken("b", 9.0), 1.0),
        (broken("a", 9.0), broken("b", 1.0), 0.5),
    ],
)
def test_a_duel(mine: Judged, other: Judged, expected: float) -> None:
    assert duel(mine, other) == expected
    assert duel(other, mine) == 1 - expected


def test_wins_are_averaged_within_a_prompt() -> None:
    mine = [[sound("a", 3.0), sound("b", 1.0)], [broken("c", 5.0)]]
    others = [[sound("x", 2.0), sound("y", 1.0)], [sound("z", 0.0)]]
    # Prompt 1: a beats x and y (2), b loses to x (0) and ties with y (0.5): 2.5 of 4. Prompt 2: broken, 0.
    assert wins_by_prompt(mine, others) == [0.625, 0.0]


def test_prompts_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        wins_by_prompt([[sound("a", 1.0)]], [])


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (7, 2.365), (9, 2.262), (23, 2.069)]
)
def test_t_quantiles_of_the_printed_table(freedom: int, expected: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(expected, abs=5e-3)


def test_an_interval_worked_by_hand() -> None:
    # 0.6, 0.7, 0.8: mean 0.7, sd 0.1, t(2) = 4.303, half width 4.303 · 0.1 / √3 = 0.2484.
    found = interval([0.6, 0.7, 0.8])
    assert found.mean == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - 0.2484, abs=1e-3)
    assert found.high == pytest.approx(0.7 + 0.2484, abs=1e-3)
    assert str(found) == "70.0% [45%–95%]"


def test_an_interval_is_shown_within_what_a_share_can_be() -> None:
    found = interval([0.0, 1.0])
    assert found.low is not None and found.low < 0  # two values say next to nothing
    assert str(found) == "50.0% [0%–100%]"


def test_one_value_has_no_interval() -> None:
    found = interval([0.6])
    assert (found.mean, found.low, found.high, str(found)) == (0.6, None, None, "60.0%")


def test_an_interval_covers_about_as_often_as_it_says() -> None:
    import numpy as np

    random = np.random.default_rng(0)
    draws = random.normal(0.6, 0.1, size=(2000, 8))
    covered = sum((found := interval(row.tolist())).low <= 0.6 <= found.high for row in draws)  # type: ignore[operator]
    assert 0.935 < covered / 2000 < 0.965


def test_below_even_needs_the_whole_interval() -> None:
    assert below_even([0.2, 0.3, 0.25, 0.3])
    assert not below_even([0.1, 0.9, 0.2, 0.6])
    assert not below_even([0.0])  # one prompt proves nothing


def test_best_of_n_costs_no_more_than_its_bound() -> None:
    assert best_of_n_kl(1) == 0.0
    assert best_of_n_kl(16) == pytest.approx(math.log(16) - 15 / 16)
