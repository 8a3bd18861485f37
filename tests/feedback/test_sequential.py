"""Evidence and intervals: small cases by hand, and what they promise about looking all the time."""

from __future__ import annotations

import numpy as np
import pytest

from feedback.sequential import evidence, interval


def test_the_evidence_by_hand() -> None:
    assert evidence(0, 0) == 1.0
    # One loss: 2² ∫ from 0 to ½ of (1-p) dp = 4 (½ - ⅛) = 1.5; one win: 4 ∫ p dp = 0.5.
    assert evidence(0, 1) == 1.5 and evidence(1, 0) == 0.5
    # Five losses: 2⁶ (1 - 2⁻⁶) / 6 = 63 / 6.
    assert evidence(0, 5) == pytest.approx(10.5)
    # Of the 6 over k: 15 + 6 + 1 above 3 wins, 20 more above 2; divided by 6 times the 5 over 2.
    assert evidence(3, 2) == pytest.approx(22 / 60) and evidence(2, 3) == pytest.approx(42 / 60)


def test_a_fair_coin_is_a_fair_bet_at_every_step() -> None:
    for wins in range(6):
        for losses in range(6):
            next_one = (evidence(wins + 1, losses) + evidence(wins, losses + 1)) / 2
            # Both halves of the mixture together are a martingale; each alone loses nothing and gains nothing.
            assert next_one == pytest.approx(evidence(wins, losses))
            better = 0.6 * evidence(wins + 1, losses) + 0.4 * evidence(wins, losses + 1)
            assert better < evidence(wins, losses), "a version that wins more makes the evidence against it shrink"


def test_the_interval_by_hand() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    # 10 of 10: the mixture is 1/11, so p¹⁰ must exceed 1/(11·20): p > 220^(-1/10).
    low, high = interval(10, 10)
    assert (low, high) == (pytest.approx(220**-0.1, abs=1e-9), 1.0)
    assert interval(0, 10) == (0.0, pytest.approx(1 - 220**-0.1, abs=1e-9))
    assert interval(3.5, 7)[0] == pytest.approx(1 - interval(3.5, 7)[1])


def test_the_interval_holds_at_all_times_together() -> None:
    random = np.random.default_rng(0)
    runs, length, rate = 200, 60, 0.4
    bounds = {}
    missed = 0
    for outcomes in random.random((runs, length)) < rate:
        for count, wins in enumerate(np.cumsum(outcomes).tolist(), start=1):
            low, high = bounds.setdefault((wins, count), interval(wins, count))
            if not low <= rate <= high:
                missed += 1
                break
    assert missed / runs <= 0.05
