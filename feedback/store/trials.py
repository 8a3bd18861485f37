"""Trials of versions, as events that are only added, and the duels that were shown for them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from feedback.store.database import Database, Row
from feedback.types import Duel, TrialEvent, now


class VersionTrials:
    """Tables trials and duels. Which version is on trial says its status."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def note(self, user_id: str, event: TrialEvent) -> None:
        """Add the beginning or the end of a trial."""
        with self._db.transaction() as db:
            db.execute(
                "insert into trials (user_id, number, what, against, wins, losses, ties, words, at) "
                "values (:user_id, :number, :what, :against, :wins, :losses, :ties, :words, :at)",
                {"user_id": user_id, **asdict(event)},
            )

    def events(self, user_id: str) -> list[TrialEvent]:
        """All of a person's, oldest first."""
        return [_event(row) for row in self._db.rows("select * from trials where user_id = ? order by seq", [user_id])]

    def begun(self, user_id: str, number: int) -> TrialEvent | None:
        """How a version's trial began, None if it never had one."""
        row = self._db.row(
            "select * from trials where user_id = ? and number = ? and what = 'begun' order by seq desc limit 1",
            [user_id, number],
        )
        return _event(row) if row else None

    def add_duel(self, user_id: str, duel: Duel) -> None:
        """Remember that two replies were shown for a trial; nothing happens when the version is gone meanwhile."""
        with self._db.transaction() as db:
            db.execute(
                "insert into duels select ?, ?, user_id, number, ? from versions where user_id = ? and number = ?",
                [duel.reply_id, duel.other_id, duel.created_at, user_id, duel.number],
            )

    def duels(self, user_id: str) -> list[Duel]:
        """All of a person's, oldest first."""
        rows = self._db.rows("select * from duels where user_id = ? order by rowid", [user_id])
        return [Duel(row["number"], row["reply_id"], row["other_id"], row["created_at"]) for row in rows]

    def judged(self, user_id: str, number: int) -> list[tuple[Duel, dict[str, Any]]]:
        """A version's duels that were answered, each with the live ranking that names both replies, as given last."""
        rows = self._db.rows(
            "select duels.*, payload from duels "
            "join feedback_replies mine on mine.reply_id = duels.reply_id "
            "join feedback_replies other on other.reply_id = other_id and other.feedback_id = mine.feedback_id "
            "join feedback on feedback.id = mine.feedback_id "
            "where duels.user_id = ? and number = ? and kind = 'ranking' and retracted_at is null "
            "order by feedback.rowid",
            [user_id, number],
        )
        last: dict[str, tuple[Duel, dict[str, Any]]] = {}
        for row in rows:
            duel = Duel(row["number"], row["reply_id"], row["other_id"], row["created_at"])
            last[duel.reply_id] = (duel, json.loads(row["payload"]))
        return list(last.values())


def begun(number: int, against: int | None) -> TrialEvent:
    """A trial that begins now."""
    return TrialEvent(number, "begun", against, 0, 0, 0, "", now())


def _event(row: Row) -> TrialEvent:
    return TrialEvent(**{key: value for key, value in row.items() if key not in ("seq", "user_id")})
