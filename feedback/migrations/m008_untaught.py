"""Texts that nothing was learned from and no chat holds: of clicks that were taken back, of imports not ranked."""

from __future__ import annotations

from sqlite_utils import Database


def untaught(db: Database) -> None:
    """Delete them, as is done since with each such click."""
    db.execute(
        "delete from replies where source != 'chat' "
        "and id not in (select reply_id from feedback_replies join preferences using (feedback_id)) "
        "and id not in (select reply_id from messages where reply_id is not null)"
    )
