"""Heads are no longer kept: they are fitted from the acts when first asked for, and nothing read the copies."""

from __future__ import annotations

from sqlite_utils import Database

_STATEMENTS = (
    "drop trigger common_left",
    """
    create trigger common_left after delete on common_people begin
        delete from common;
        delete from common_people;
    end
    """,
    "drop table heads",
)


def no_heads(db: Database) -> None:
    """Remove the table, and what the trigger did to it."""
    for statement in _STATEMENTS:
        db.execute(statement)
