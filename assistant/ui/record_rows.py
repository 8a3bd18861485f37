"""How the ways of answering have done, as rows of a table; the same for one person and for all of them together."""

from __future__ import annotations

from dataclasses import dataclass

from assistant.arms import Record, Tally
from assistant.ui.words import wrote


@dataclass(frozen=True)
class ShareRow:
    """A share with its 95% interval, in percent, of `count` cases; nothing is known of it while count is 0."""

    share: float
    low: float
    high: float
    wins: float
    count: int

    @classmethod
    def of(cls, tally: Tally) -> ShareRow:
        """From a count of wins."""
        low, high = tally.interval()
        share = tally.wins / tally.count if tally.count else 0.0
        return cls(round(100 * share, 1), round(100 * low, 1), round(100 * high, 1), tally.wins, tally.count)


@dataclass(frozen=True)
class ArmRow:
    """One way of answering: what it is, its comparisons with all others, its thumbs."""

    arm: str
    short: str
    long: str
    compared: ShareRow
    thumbs: ShareRow


def rows_of(record: Record, version: int | None = None) -> list[ArmRow]:
    """One row for every arm that was ever judged. version: the one in use, for the words; None for "own version"."""
    rows = []
    for line in record.arms:
        short, long = wrote(line.arm, version, some_version=version is None)
        compared = ShareRow.of(Tally(line.wins, line.comparisons))
        rows.append(ArmRow(line.arm, short, long, compared, ShareRow.of(Tally(line.ups, line.thumbs))))
    return rows
