"""How far from what people have in common somebody may be who begins there."""

from __future__ import annotations

from sqlite_utils import Database


def width(db: Database) -> None:
    """Add the column; what was found before knew one width only."""
    db.execute("alter table common add column width real not null default 1.0")
