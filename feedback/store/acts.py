"""Feedback events, and the preferences they amount to."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from feedback.errors import Conflict, NotFound
from feedback.store.chats import TAUGHT
from feedback.store.database import Database, Row
from feedback.types import Feedback, FeedbackKind, Preference, new_id, now

HELD_OUT_EVERY = 5  # every fifth act is kept for the judge of what PPO adds
_DELETE_ALONE = f"""
delete from replies where id = ? and source != 'chat'
and id not in ({TAUGHT})
and id not in (select reply_id from messages where reply_id is not null)
"""


@dataclass
class _Request:
    """A request with an Idempotency-Key, and the acts it has led to so far."""

    user_id: str
    key: str
    request_hash: str
    acts: list[str] = field(default_factory=list)


_request: ContextVar[_Request | None] = ContextVar("request", default=None)


class Acts:
    """Tables feedback, feedback_replies, preferences and idempotency."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # ---- events ---------------------------------------------------------------------------------------------------

    def add(
        self,
        user_id: str,
        kind: FeedbackKind,
        payload: dict[str, Any],
        reply_ids: Sequence[str],
        base_id: str,
        preference: dict[str, Any] | None,
        supersedes: Sequence[str] = (),
    ) -> tuple[Feedback, int]:
        """Keep an act, with the preference it amounts to, and retract the acts it replaces: one transaction.

        preference: the fields of `Preference` that the act determines (see labels.py), or None when it only takes
        something back. Returns the event and the person's number of labels. Within `once`, the transaction also keeps
        the answer to the request.
        """
        event = Feedback(new_id("f"), user_id, kind, payload, now(), None)
        with self._db.transaction() as db:
            replaced = [first for old in supersedes if (first := self.first_seq(old)) is not None]
            db.execute(
                "insert into feedback values (?, ?, ?, ?, ?, null)",
                [event.id, user_id, kind, json.dumps(payload), event.created_at],
            )
            for reply_id in reply_ids:
                db.execute("insert into feedback_replies values (?, ?)", [event.id, reply_id])
            if preference is not None:
                seq = count_up(self._db, user_id, "label")
                held_out = preference["kind"] != "correction" and seq % HELD_OUT_EVERY == 0
                db.execute(
                    f"insert into preferences values ({', '.join('?' * 13)})",
                    [
                        event.id, user_id, base_id, preference["population"], seq, preference["kind"],
                        json.dumps(preference["tiers"]), preference["thumb"], preference["value"], preference["rows"],
                        preference["features"], int(held_out), min([*replaced, seq]),
                    ],
                )  # fmt: skip
            for old in supersedes:  # not before: a reply that only the old act keeps is the new one's, too
                self._retract(old)
            labels = self.label_count(user_id)
            if (request := _request.get()) is not None and request.user_id == user_id:
                self._remember_act(request, event.id, labels)
            return event, labels

    def retract(self, user_id: str, feedback_id: str) -> Feedback:
        """Take an act back and erase what it said; its id stays.

        Raises NotFound when it is not the person's or was taken back already.
        """
        with self._db.transaction():
            event = self.event(user_id, feedback_id)
            if event.retracted_at is not None:
                raise NotFound(f"Feedback {feedback_id} was taken back already.")
            self._retract(feedback_id)
        return event

    def first_seq(self, feedback_id: str) -> int | None:
        """The number of the first act that a live one stands in the place of, its own where there is none; None for
        an act that teaches nothing."""
        row = self._db.row("select first_seq from preferences where feedback_id = ?", [feedback_id])
        return int(row["first_seq"]) if row else None

    def retract_all(self, user_id: str) -> int:
        """Take all acts of a person back, corrections too; how many acts that were."""
        with self._db.transaction() as db:
            rows = self._db.rows("select id from feedback where user_id = ? and retracted_at is null", [user_id])
            for row in rows:
                self._retract(row["id"])
            db.execute("delete from idempotency where user_id = ?", [user_id])  # the same may be brought in anew
            return len(rows)

    def event(self, user_id: str, feedback_id: str) -> Feedback:
        """One of the person's acts. Raises NotFound."""
        row = self._db.row("select * from feedback where id = ? and user_id = ?", [feedback_id, user_id])
        if row is None:
            raise NotFound(f"There is no feedback {feedback_id}.")
        return _feedback(row)

    def events(self, user_id: str) -> list[Feedback]:
        """All acts of a person, taken back or not, in the order given: that of their rows, since clocks may jump."""
        rows = self._db.rows("select * from feedback where user_id = ? order by rowid", [user_id])
        return [_feedback(row) for row in rows]

    def live_for_reply(self, reply_id: str, kind: FeedbackKind) -> list[Feedback]:
        """Acts of one kind about a reply that were not taken back."""
        rows = self._db.rows(
            "select feedback.* from feedback join feedback_replies on feedback_id = feedback.id "
            "where reply_id = ? and kind = ? and retracted_at is null order by feedback.rowid",
            [reply_id, kind],
        )
        return [_feedback(row) for row in rows]

    def live(self, user_id: str, kind: FeedbackKind) -> list[Feedback]:
        """A person's acts of one kind that were not taken back, oldest first."""
        rows = self._db.rows(
            "select * from feedback where user_id = ? and kind = ? and retracted_at is null order by rowid",
            [user_id, kind],
        )
        return [_feedback(row) for row in rows]

    # ---- preferences ----------------------------------------------------------------------------------------------

    def preferences(self, user_id: str, only: Sequence[str] | None = None) -> list[tuple[Preference, str]]:
        """A person's live preferences in the order given, each with the base whose latent features it holds.

        only: feedback ids, for those of these acts.
        """
        chosen = "" if only is None else f" and feedback_id in ({', '.join('?' * len(only))})"
        sql = f"select * from preferences where user_id = ?{chosen} order by seq"
        return [(_preference(row), row["base_id"]) for row in self._db.rows(sql, [user_id, *(only or ())])]

    def live_labels(self, user_id: str) -> list[str]:
        """Feedback ids of a person's live preferences, in the order given."""
        rows = self._db.rows("select feedback_id from preferences where user_id = ? order by seq", [user_id])
        return [row["feedback_id"] for row in rows]

    def outdated(self, population: str) -> list[tuple[Feedback, Preference]]:
        """Live preferences whose features were made under another version of the shared prior, with their acts."""
        rows = self._db.rows("select * from preferences where population != ? order by user_id, seq", [population])
        return [(self.event(row["user_id"], row["feedback_id"]), _preference(row)) for row in rows]

    def replace_features(self, made: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Give live preferences (by feedback id) the features, their tiers and the population of newly made ones."""
        with self._db.transaction() as db:
            for feedback_id, preference in made:
                db.execute(
                    "update preferences set population = ?, features = ?, rows = ?, tiers = ? where feedback_id = ?",
                    [
                        preference["population"],
                        preference["features"],
                        preference["rows"],
                        json.dumps(preference["tiers"]),
                        feedback_id,
                    ],
                )

    def label_count(self, user_id: str) -> int:
        """How many labels a person has given; corrections of traits do not count."""
        return int(
            self._db.value("select count(*) from preferences where user_id = ? and kind != 'correction'", [user_id])
        )

    def label_range(self, user_id: str) -> tuple[int, int]:
        """First and last sequence number among the live labels and corrections, (0, 0) without any."""
        row = self._db.row("select min(seq) as low, max(seq) as high from preferences where user_id = ?", [user_id])
        return (row["low"] or 0, row["high"] or 0) if row else (0, 0)

    def labels_after(self, user_id: str, seq: int) -> int:
        """Labels given after a sequence number."""
        return int(
            self._db.value(
                "select count(*) from preferences where user_id = ? and kind != 'correction' and seq > ?",
                [user_id, seq],
            )
        )

    # ---- idempotency ----------------------------------------------------------------------------------------------

    @contextmanager
    def once(self, user_id: str, key: str, request_hash: str) -> Iterator[dict[str, Any] | None]:
        """Yield the answer this Idempotency-Key got before, or None: then the block is to act and `remember`.

        What the block's acts led to is kept under the key in their own transaction: after a crash in mid-request the
        same request finds its acts (their ids and the number of labels) instead of acting twice. Raises Conflict when
        the key came with another request, and from within the block when another process was faster.
        """
        answer = self.remembered(user_id, key, request_hash)
        token = _request.set(None if answer else _Request(user_id, key, request_hash))
        try:
            yield answer
        finally:
            _request.reset(token)

    def remembered(self, user_id: str, key: str, request_hash: str) -> dict[str, Any] | None:
        """The answer given to this Idempotency-Key before. Raises Conflict when it came with another request."""
        row = self._db.row("select * from idempotency where user_id = ? and key = ?", [user_id, key])
        if row is None:
            return None
        if row["request_hash"] != request_hash:
            raise Conflict("This Idempotency-Key was used for a different request; use a new one.")
        answer: dict[str, Any] = json.loads(row["answer"])
        return answer

    def remember(self, user_id: str, key: str, request_hash: str, answer: dict[str, Any]) -> None:
        """Keep the full answer to an Idempotency-Key."""
        with self._db.transaction() as db:
            db.execute(
                "insert or replace into idempotency values (?, ?, ?, ?, ?)",
                [user_id, key, request_hash, json.dumps(answer), now()],
            )

    def request_keys(self, user_id: str) -> list[dict[str, Any]]:
        """A person's Idempotency-Keys with what was answered and when, oldest first."""
        rows = self._db.rows(
            "select key, answer, created_at from idempotency where user_id = ? order by created_at, key", [user_id]
        )
        return [{**row, "answer": json.loads(row["answer"])} for row in map(dict, rows)]

    # ---- inside a transaction -------------------------------------------------------------------------------------

    def _retract(self, feedback_id: str) -> None:
        """Leave nothing of an act but its id, its kind and two dates; replies that only it has kept go as well: texts
        that came with it, and those of a chat that was deleted."""
        with self._db.transaction() as db:
            rows = self._db.rows("select reply_id from feedback_replies where feedback_id = ?", [feedback_id])
            db.execute(
                "update feedback set retracted_at = ?, payload = '{}' where id = ? and retracted_at is null",
                [now(), feedback_id],
            )
            db.execute("delete from preferences where feedback_id = ?", [feedback_id])
            db.execute("delete from feedback_replies where feedback_id = ?", [feedback_id])
            for row in rows:
                db.execute(_DELETE_ALONE, [row["reply_id"]])

    def _remember_act(self, request: _Request, feedback_id: str, labels: int) -> None:
        """What is known of the answer while the act is kept; the block's `remember` puts the full one in its place."""
        request.acts.append(feedback_id)
        answer = {"feedback_id": request.acts[0], "feedback_ids": request.acts, "labels": labels, "head_ms": 0.0}
        first = "insert" if len(request.acts) == 1 else "insert or replace"
        with self._db.transaction() as db:
            try:
                db.execute(
                    f"{first} into idempotency values (?, ?, ?, ?, ?)",
                    [request.user_id, request.key, request.request_hash, json.dumps(answer), now()],
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(
                    "Another request with this Idempotency-Key was faster; ask again for its answer."
                ) from error


def count_up(database: Database, user_id: str, name: str) -> int:
    """Next number of a per-person counter; numbers are never used twice, whatever is deleted."""
    with database.transaction() as db:
        db.execute(
            "insert into counters values (?, ?, 1) on conflict (user_id, name) do update set value = value + 1",
            [user_id, name],
        )
        return int(database.value("select value from counters where user_id = ? and name = ?", [user_id, name]))


def _feedback(row: Row) -> Feedback:
    return Feedback(
        row["id"], row["user_id"], row["kind"], json.loads(row["payload"]), row["created_at"], row["retracted_at"]
    )


def _preference(row: Row) -> Preference:
    return Preference(
        feedback_id=row["feedback_id"],
        seq=row["seq"],
        kind=row["kind"],
        tiers=tuple(tuple(tier) for tier in json.loads(row["tiers"])),
        thumb=row["thumb"],
        value=row["value"],
        rows=row["rows"],
        features=row["features"],
        held_out=bool(row["held_out"]),
        population=row["population"],
    )
