"""The gate asks how sure a person's head is, no longer how often a judge of few labels prefers a version."""

from __future__ import annotations

from sqlite_utils import Database


def sure(db: Database) -> None:
    """Updates in line forget the number that was asked for; they get today's."""
    db.execute(
        "update updates set config = json_remove(config, '$.gate.preferred') "
        "where state in ('queued', 'running', 'paused')"
    )
