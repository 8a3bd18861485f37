"""A day of use in small: what is counted and compared."""

from __future__ import annotations

import pytest

from benchmarks.endurance import BUSY, growth, measure, report


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


def test_each_part_is_told_by_itself() -> None:
    day = {"done": {"clicks": 7}, "memory_mb": [90.0, 100.0, 101.0], "warm_hours": 1, "growth": 0.01}
    deaths = {"killed": [9.0, 11.0, 10.0], "orderly": [8.0]}
    both = report({"day": day, "deaths": deaths})
    assert "7 clicks" in both and "+1.0%" in both and "100 MB" in both and "10.0 s (9.0\u201311.0)" in both
    assert "growth" not in report({"deaths": deaths}) and "token" not in report({"day": day})
