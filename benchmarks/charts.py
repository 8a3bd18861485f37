"""Two small charts as inline SVG: intervals on a common scale, and a curve over steps. Pure functions to text.

Colours come from the page's CSS (`--accent`, `--line`, …), so that a chart follows light and dark. Every chart carries
its numbers as text: a `<title>` for pointers and screen readers, and values beside the marks. Left out on purpose:
any library, any script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LABEL, PLOT, RIGHT = 210, 400, 150  # widths: row names, the scale, values in words
ROW = 30


@dataclass(frozen=True)
class Bar:
    """One row: a share with its interval (None where there is none) and a target to reach, if there is one."""

    label: str
    mean: float
    low: float | None = None
    high: float | None = None
    target: float | None = None


def interval_chart(bars: Sequence[Bar], title: str) -> str:
    """Shares from 0 to 100% with intervals; the middle line is an even chance, a small triangle a target."""
    height = ROW * len(bars) + 44
    parts = [_open(LABEL + PLOT + RIGHT, height, title)]
    for tick in (0, 25, 50, 75, 100):
        x = LABEL + PLOT * tick / 100
        name = "even" if tick == 50 else "grid"
        parts.append(f'<line class="{name}" x1="{x:.1f}" y1="12" x2="{x:.1f}" y2="{height - 26}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 10}" text-anchor="middle">{tick}%</text>')
    for number, bar in enumerate(bars):
        parts += _bar(bar, 12 + ROW * (number + 0.5))
    return "".join([*parts, "</svg>"])


def _bar(bar: Bar, y: float) -> list[str]:
    def at(share: float) -> float:
        return LABEL + PLOT * min(max(share, 0.0), 1.0)

    parts = [f'<text x="{LABEL - 14}" y="{y + 4:.1f}" text-anchor="end">{escape(bar.label)}</text>']
    words = f"{bar.mean:.0%}"
    if bar.low is not None and bar.high is not None:
        words += f"  ({max(bar.low, 0):.0%}–{min(bar.high, 1):.0%})"
        parts.append(f'<line class="range" x1="{at(bar.low):.1f}" y1="{y:.1f}" x2="{at(bar.high):.1f}" y2="{y:.1f}"/>')
    if bar.target is not None:
        x = at(bar.target)
        parts.append(
            f'<path class="target" d="M{x:.1f} {y - 5:.1f} l-5 -8 h10 z"><title>target {bar.target:.0%}</title></path>'
        )
    parts.append(_dot(at(bar.mean), y, 5, f"{bar.label}: {words}"))
    parts.append(f'<text class="value" x="{LABEL + PLOT + 16}" y="{y + 4:.1f}">{words}</text>')
    return parts


def curve(
    values: Sequence[float],
    title: str,
    *,
    bounds: tuple[float, float],
    limit: float | None = None,
    size: tuple[int, int] = (230, 110),
) -> str:
    """A line over steps 1, 2, …; bounds: the lowest and highest value of the axis; limit: a dashed line."""
    width, height = size
    left, right, top, bottom = 38, 10, 10, 22
    low, high = bounds
    span = (high - low) or 1.0

    def x(step: int) -> float:
        return left + (width - left - right) * (step / max(len(values) - 1, 1))

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (min(max(value, low), high) - low) / span)

    parts = [_open(width, height, title)]
    for value in (low, (low + high) / 2, high):
        parts.append(f'<line class="grid" x1="{left}" y1="{y(value):.1f}" x2="{width - right}" y2="{y(value):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    if limit is not None and low <= limit <= high:
        parts.append(f'<line class="limit" x1="{left}" y1="{y(limit):.1f}" x2="{width - right}" y2="{y(limit):.1f}"/>')
    points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in enumerate(values))
    parts.append(f'<polyline class="curve" points="{points}"/>')
    parts += [_dot(x(step), y(value), 2.5, f"step {step + 1}: {value:.3f}") for step, value in enumerate(values)]
    if values:
        parts.append(f'<text class="tick" x="{left}" y="{height - 6}">1</text>')
        parts.append(f'<text class="tick" x="{width - right}" y="{height - 6}" text-anchor="end">{len(values)}</text>')
    return "".join([*parts, "</svg>"])


def nice_bounds(series: Sequence[Sequence[float]], *, floor: float | None = None) -> tuple[float, float]:
    """Round limits that hold every value of several curves (finite ones), so that charts side by side compare."""
    values = [value for one in series for value in one if math.isfinite(value)]
    if not values:
        return (0.0, 1.0)
    low = min(values) if floor is None else min(floor, *values)
    high = max(max(values), low + 1e-6)
    step = 10 ** math.floor(math.log10(high - low)) / 2
    return (math.floor(low / step) * step, math.ceil(high / step) * step)


def _dot(x: float, y: float, radius: float, words: str) -> str:
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escape(words)}</title></circle>'


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.2g}"


def _open(width: int, height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
    )
