"""What people have in common, as it was found last, and whose acts it is made of.

With the first of those people who goes or leaves, all of it goes in the same transaction: a trigger sees to that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feedback.common import Common
from feedback.store.database import Database
from feedback.types import now

Stamp = tuple[tuple[str, int, int], ...]  # of each person: id, live acts, number of the newest


@dataclass(frozen=True)
class KeptCommon:
    """version: of these numbers; population: that of the features; user_ids: whose acts it is made of, row by row."""

    version: str
    population: str
    found: Common
    user_ids: tuple[str, ...]
    made_at: str


class Commons:
    """Tables common and common_people."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def version(self) -> str | None:
        """That of what is kept; None where nothing is."""
        found = self._db.value("select version from common")
        return None if found is None else str(found)

    def kept(self) -> KeptCommon | None:
        """What people have in common; None where nothing is known."""
        with self._db.transaction():
            row = self._db.row("select * from common")
            people = self._db.rows("select * from common_people order by rowid")
        if row is None:
            return None
        parts = np.stack([np.frombuffer(each["part"], dtype=np.float64) for each in people])
        found = Common(parts, row["share"], row["gain"], row["width"])
        user_ids = tuple(each["user_id"] for each in people)
        return KeptCommon(row["version"], row["population"], found, user_ids, row["made_at"])

    def stamp(self, user_ids: Sequence[str]) -> Stamp:
        """What differs as soon as one of these people acts, or takes an act back."""
        sql = "select count(*) as acts, coalesce(max(seq), 0) as newest from preferences where user_id = ?"
        rows = [(user_id, self._db.row(sql, [user_id])) for user_id in user_ids]
        return tuple((user_id, row["acts"], row["newest"]) for user_id, row in rows if row is not None)

    def keep(self, population: str, found: Common, made_of: Stamp) -> bool:
        """Keep what was found in acts as they were then, in place of what there was; False, and nothing happens, when
        they are not as they were any more. made_of: row by row of `found`."""
        user_ids = [user_id for user_id, _, _ in made_of]
        with self._db.transaction() as db:
            if self.stamp(user_ids) != made_of or not self._all_there(user_ids):
                return False
            version = hashlib.sha256(found.parts.tobytes() + repr((found.share, found.width)).encode()).hexdigest()[:12]
            self.forget()
            row = [version, population, found.share, found.gain, now(), found.width]
            db.execute("insert into common values (1, ?, ?, ?, ?, ?, ?)", row)
            for user_id, part in zip(user_ids, found.parts, strict=True):
                db.execute("insert into common_people values (?, ?)", [user_id, part.tobytes()])
        return True

    def leave(self, user_id: str) -> bool:
        """Forget it if it is made of this person's acts, too; whether it was. To be called where they take one back."""
        with self._db.transaction() as db:
            return bool(db.execute("delete from common_people where user_id = ?", [user_id]).rowcount)

    def forget(self) -> None:
        """Forget it."""
        with self._db.transaction() as db:
            db.execute("delete from common_people")
            db.execute("delete from common")

    def _all_there(self, user_ids: Sequence[str]) -> bool:
        marks = ", ".join("?" * len(user_ids))
        return self._db.value(f"select count(*) from users where id in ({marks})", list(user_ids)) == len(user_ids)
