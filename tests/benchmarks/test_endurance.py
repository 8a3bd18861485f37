"""A day of use in small: what is counted and compared."""

from __future__ import annotations

import pytest

from benchmarks.endurance import growth, measure


def test_growth_is_the_end_against_the_beginning_without_the_warm_up() -> None:
    assert growth([100, 500, 200, 200, 200, 210, 210, 210], 2) == pytest.approx(0.05)
    assert growth([1, 200, 900, 200, 202, 202, 1], 1) == pytest.approx(0.01), "one hour that stands out is no growth"
    assert growth([300, 303], 0) == pytest.approx(0.01)


def test_hours_of_two_people() -> None:
    found = measure(2, 1, 1)
    assert found["done"]["updates"] == 1
    assert found["done"]["replies"] == 2 * 2 * 4 and found["done"]["clicks"] > 0
    assert len(found["memory_mb"]) == 2 and min(found["memory_mb"]) > 100
