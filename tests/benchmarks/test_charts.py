"""Charts are well-formed SVG whose marks stand where the numbers say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from benchmarks.charts import LABEL, PLOT, Bar, curve, interval_chart, nice_bounds


def marks(svg: str, name: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(svg).iter() if each.get("class") == name]


def test_an_interval_chart_puts_marks_where_the_numbers_say() -> None:
    svg = interval_chart([Bar("rerank <16>", 0.75, 0.5, 1.2, target=0.68), Bar("base", 0.5)], "wins & losses")
    dots = [float(dot.get("cx", "")) for dot in marks(svg, "dot")]
    assert dots == [LABEL + PLOT * 0.75, LABEL + PLOT * 0.5]
    (line,) = marks(svg, "range")  # the second row has no interval
    assert float(line.get("x1", "")) == LABEL + PLOT * 0.5
    assert float(line.get("x2", "")) == LABEL + PLOT  # what lies beyond 100% is drawn at 100%
    (triangle,) = marks(svg, "target")
    assert re.match(rf"M{LABEL + PLOT * 0.68:.1f} ", triangle.get("d", ""))
    assert "75%  (50%–100%)" in "".join(ET.fromstring(svg).itertext())


def test_a_curve_goes_through_its_values() -> None:
    svg = curve([0.0, 1.0, 0.5], "reward", bounds=(0.0, 1.0), limit=0.5)
    low, high, middle = (float(dot.get("cy", "")) for dot in marks(svg, "dot"))
    assert high < middle < low and middle == pytest.approx((high + low) / 2)
    (limit,) = marks(svg, "limit")
    assert float(limit.get("y1", "")) == pytest.approx(middle, abs=0.1)


def test_a_curve_of_nothing_and_of_one_step() -> None:
    assert marks(curve([], "none", bounds=(0.0, 1.0)), "dot") == []
    assert len(marks(curve([0.3], "one", bounds=(0.0, 1.0)), "dot")) == 1


def test_bounds_hold_every_value_and_are_round() -> None:
    assert nice_bounds([[0.12, 0.93], [0.4]]) == pytest.approx((0.1, 0.95))
    assert nice_bounds([[2.1, 3.9]], floor=0.0) == pytest.approx((0.0, 4.0))
    low, high = nice_bounds([[5.0], [float("nan")]])
    assert low <= 5.0 < high
    assert nice_bounds([]) == (0.0, 1.0)
