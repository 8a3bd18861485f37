"""A day of use in small: what is counted and compared."""

from __future__ import annotations

import pytest

from benchmarks.endurance import BUSY, growth, measure


def test_growth_is_the_end_against_the_beginning_without_the_warm_up() -> None:
    assert growth([100, 500, 200, 200, 200, 210, 210, 210], 2) == pytest.approx(0.05)
    assert growth([1, 200, 900, 200, 202, 202, 1], 1) == pytest.approx(0.01), "one hour that stands out is no growth"
    assert growth([300, 303], 0) == pytest.approx(0.01)


def test_an_hour_to_warm_up_and_one_that_counts() -> None:
    found = measure(1, 1, 1)
    assert found["done"]["updates"] == 2, "in the warm-up everybody, then one"
    assert found["done"]["replies"] == (BUSY + 1) * 2 * 2 and found["done"]["clicks"] > 0
    assert found["done"]["sign-ins"] >= BUSY, "in the warm-up every time"
    assert len(found["memory_mb"]) == 2 and min(found["memory_mb"]) > 100
