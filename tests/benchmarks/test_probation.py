"""The rule of a trial keeps its error rates, simulated from a fixed seed; small cases by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.probation import TIES, by_duels, by_thumbs, run, table_of

TRIALS = 4_000  # two standard errors are 1.3 points at 20%


def simulated(rate: float) -> tuple[float, float, float, float]:
    made = by_duels(rate, TIES, TRIALS, np.random.default_rng(1))
    return made.taken_back_early, made.stays_early, made.taken_back, made.shown


def test_error_rates_and_power_are_what_is_promised() -> None:
    back_early, stays_early, back, shown = simulated(0.5)
    assert back_early <= 0.1 and stays_early <= 0.1, "Ville's bound"
    assert back == pytest.approx(0.20, abs=0.02) and shown < 36
    assert simulated(0.6)[2] <= 0.045
    assert simulated(0.35)[2] >= 0.76 and simulated(0.35)[1] <= 0.02
    assert simulated(0.2)[2] >= 0.985 and simulated(0.2)[3] < 19, "what is clearly worse goes soon"


def test_thumbs_keep_them_too() -> None:
    random = np.random.default_rng(2)
    same = by_thumbs(0.7, 0.7, TRIALS, random)
    assert same.taken_back_early <= 0.1 and same.taken_back <= 0.2
    assert by_thumbs(0.7, 0.4, TRIALS, random).taken_back >= 0.95
    assert by_thumbs(0.95, 0.95, TRIALS, random).taken_back <= 0.1


def test_trials_by_hand() -> None:
    rows = np.zeros((3, 60), dtype=int)
    rows[0, :5] = -1  # five lost at once
    rows[1, 3:8] = 1  # five won after three ties
    made = run(rows)
    assert made.taken_back == made.stays_early == pytest.approx(1 / 3) and made.stays == pytest.approx(2 / 3)
    assert made.shown == pytest.approx((5 + 8 + 60) / 3) and made.decided == pytest.approx(10 / 3)


def test_the_table_names_every_case() -> None:
    row = by_duels(0.4, TIES, 50, np.random.default_rng(3))
    lines = table_of({"duels": [{"rate": 0.4, **vars(row)}], "thumbs": [{"before": 0.7, "after": 0.5, **vars(row)}]})
    assert "0.40" in lines and "0.70 → 0.50" in lines and len(lines.splitlines()) == 3
