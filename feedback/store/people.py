"""Accounts: users, their settings, browser sessions, API keys. Secrets arrive here already hashed."""

from __future__ import annotations

import sqlite3

from feedback.errors import Conflict, NotFound, NotSignedIn
from feedback.store.database import Database, Row
from feedback.store.found import Search
from feedback.types import AHEAD, ApiKey, User, after, new_id, now

MOST_SESSIONS = 100  # of one person at once


class People:
    """Tables users, user_settings, sessions and api_keys."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # ---- users ----------------------------------------------------------------------------------------------------

    def add(self, name: str, name_key: str, password_hash: str, *, admin: bool = False) -> User:
        """Create a user. Raises Conflict when the name is taken."""
        user = User(new_id("u"), name, admin, False, now())
        with self._db.transaction() as db:
            try:
                db.execute(
                    "insert into users (id, name, name_key, password_hash, admin, created_at) "
                    "values (?, ?, ?, ?, ?, ?)",
                    [user.id, name, name_key, password_hash, int(admin), user.created_at],
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(
                    f"There is a person named {name!r} already; choose another name.", param="name"
                ) from error
        return user

    def get(self, user_id: str) -> User:
        """A user by id. Raises NotFound."""
        row = self._db.row("select * from users where id = ?", [user_id])
        if row is None:
            raise NotFound("There is no such person.")
        return _user(row)

    def find(self, name_key: str) -> User | None:
        """A user by folded name."""
        row = self._db.row("select * from users where name_key = ?", [name_key])
        return _user(row) if row else None

    def all(self) -> list[User]:
        """Everybody, oldest account first."""
        return [_user(row) for row in self._db.rows("select * from users order by rowid")]

    def bytes_kept(self, user_id: str) -> int:
        """How much a person's chats, replies and feedback take, without what the database adds to it."""
        columns = {
            "replies": ("prompt", "text", "token_ids", "latent"),
            "feedback": ("payload",),
            "preferences": ("tiers", "features"),
            "updates": ("metrics", "config", "gate"),
        }
        parts = [
            f"select sum({' + '.join(f'length(cast({column} as blob))' for column in names)}) from {table} "
            "where user_id = ?"
            for table, names in columns.items()
        ]
        parts.append(
            "select sum(length(cast(content as blob))) from messages join conversations on conversation_id = "
            "conversations.id where user_id = ?"
        )
        total = " + ".join(f"coalesce(({part}), 0)" for part in parts)
        return int(self._db.value(f"select {total}", [user_id] * len(parts)))

    def password_hash(self, user_id: str) -> str:
        """The stored hash. Raises NotFound."""
        found = self._db.value("select password_hash from users where id = ?", [user_id])
        if found is None:
            raise NotFound("There is no such person.")
        return str(found)

    def set_password(
        self, user_id: str, password_hash: str, *, keep_session: str | None = None, verified: str | None = None
    ) -> None:
        """Change a password; every other session of the person ends.

        verified: the hash that the old password was checked against, None for an admin's change, which needs no old
        one. Raises NotSignedIn when it holds no more.
        """
        with self._db.transaction() as db:
            if verified is not None:
                self._check_in(user_id, verified)
            db.execute("update users set password_hash = ? where id = ?", [password_hash, user_id])
            db.execute("delete from sessions where user_id = ? and token_hash is not ?", [user_id, keep_session])

    def set_disabled(self, user_id: str, disabled: bool) -> None:
        """Shut a person out, which ends their sessions and API keys for good, or let them in again.

        Raises NotFound, and Conflict for the last admin.
        """
        with self._db.transaction() as db:
            if disabled:
                self._check_not_last(self.get(user_id), "disabled")
                db.execute("delete from sessions where user_id = ?", [user_id])
                db.execute("delete from api_keys where user_id = ?", [user_id])
            db.execute("update users set disabled = ? where id = ?", [int(disabled), self.get(user_id).id])

    def remove(self, user_id: str) -> dict[str, int]:
        """Delete a person with every row that is theirs; returns how many rows went, by table.

        Raises Conflict for the last admin.
        """
        with self._db.transaction() as db:
            self._check_not_last(self.get(user_id), "deleted")
            tables = [
                "conversations", "replies", "feedback", "preferences", "updates", "versions", "api_keys", "sessions",
            ]  # fmt: skip
            gone = {t: int(self._db.value(f"select count(*) from {t} where user_id = ?", [user_id])) for t in tables}
            gone["messages"] = int(
                self._db.value(
                    "select count(*) from messages where conversation_id in "
                    "(select id from conversations where user_id = ?)",
                    [user_id],
                )
            )
            db.execute("delete from users where id = ?", [user_id])
            Search(self._db).shrink()
        self._db.leave_no_trace()
        return gone

    def _check_in(self, user_id: str, verified: str | None = None) -> None:
        """Whether the person may come in now, in the transaction that lets them: a slow check of the password came
        before it. Raises NotSignedIn, and NotFound."""
        if verified is None:
            if self.get(user_id).disabled:
                raise NotSignedIn("The account was disabled.")
            return
        sql = "select 1 from users where id = ? and password_hash = ? and disabled = 0"
        if self._db.value(sql, [user_id, verified]) is None:
            raise NotSignedIn("The name or the password is wrong.")

    def _check_not_last(self, user: User, what: str) -> None:
        others = self._db.value("select count(*) from users where admin = 1 and disabled = 0 and id != ?", [user.id])
        if user.admin and not others:
            raise Conflict(f"The last admin cannot be {what}; make another admin first.")

    # ---- settings -------------------------------------------------------------------------------------------------

    def setting(self, user_id: str, name: str) -> str | None:
        """What a person has set, None when they never did."""
        found = self._db.value("select value from user_settings where user_id = ? and name = ?", [user_id, name])
        return None if found is None else str(found)

    def settings(self, user_id: str) -> dict[str, str]:
        """All that a person has set."""
        rows = self._db.rows("select name, value from user_settings where user_id = ? order by name", [user_id])
        return {row["name"]: row["value"] for row in rows}

    def who_set(self, name: str, value: str) -> list[str]:
        """Ids of everybody who has set this to that, except those who are shut out; oldest account first."""
        rows = self._db.rows(
            "select id from users join user_settings set_by on user_id = id "
            "where set_by.name = ? and value = ? and disabled = 0 order by users.rowid",
            [name, value],
        )
        return [row["id"] for row in rows]

    def set(self, user_id: str, name: str, value: str) -> None:
        """Keep a setting."""
        with self._db.transaction() as db:
            db.execute("insert or replace into user_settings values (?, ?, ?)", [user_id, name, value])

    # ---- sessions -------------------------------------------------------------------------------------------------

    def add_session(self, token_hash: str, user_id: str, expires_at: str, *, verified: str | None = None) -> None:
        """Remember a signed-in browser; of a person's, the newest MOST_SESSIONS are kept.

        verified: the hash that the password was checked against, where it was. Raises NotSignedIn when it holds no
        more, or the person was disabled.
        """
        with self._db.transaction() as db:
            self._check_in(user_id, verified)
            db.execute("insert into sessions values (?, ?, ?, ?)", [token_hash, user_id, now(), expires_at])
            db.execute(  # not those that have expired by the clock, which may be wrong just now
                "delete from sessions where user_id = ? and rowid not in "
                "(select rowid from sessions where user_id = ? order by rowid desc limit ?)",
                [user_id, user_id, MOST_SESSIONS],
            )

    def session_user(self, token_hash: str) -> User | None:
        """Whose session it is, unless it expired or the person is disabled.

        One from more than a day ahead, by a clock that was put back since, would last too long: it counts as expired.
        """
        row = self._db.row(
            "select users.* from sessions join users on users.id = sessions.user_id "
            "where token_hash = ? and expires_at > ? and sessions.created_at < ? and disabled = 0",
            [token_hash, now(), after(AHEAD)],
        )
        return _user(row) if row else None

    def sessions(self, user_id: str) -> list[dict[str, str]]:
        """When a person's signed-in browsers began and end, oldest first."""
        rows = self._db.rows("select created_at, expires_at from sessions where user_id = ? order by rowid", [user_id])
        return [dict(row) for row in rows]

    def end_session(self, token_hash: str) -> None:
        """Sign a browser out."""
        with self._db.transaction() as db:
            db.execute("delete from sessions where token_hash = ?", [token_hash])

    # ---- API keys -------------------------------------------------------------------------------------------------

    def add_key(self, user_id: str, key_hash: str, hint: str) -> ApiKey:
        """Keep a key's hash and the few characters that tell keys apart. Raises NotSignedIn for a disabled person."""
        key = ApiKey(new_id("k"), hint, now(), None)
        with self._db.transaction() as db:
            self._check_in(user_id)
            db.execute(
                "insert into api_keys (id, user_id, key_hash, hint, created_at) values (?, ?, ?, ?, ?)",
                [key.id, user_id, key_hash, hint, key.created_at],
            )
        return key

    def keys(self, user_id: str) -> list[ApiKey]:
        """A person's keys, oldest first."""
        rows = self._db.rows("select * from api_keys where user_id = ? order by rowid", [user_id])
        return [ApiKey(row["id"], row["hint"], row["created_at"], row["used_at"]) for row in rows]

    def key_user(self, key_hash: str) -> User | None:
        """Whose key it is; notes the day of use (once a day, so that reading stays cheap)."""
        row = self._db.row(
            "select users.*, api_keys.id as key_id, api_keys.used_at as used_at from api_keys "
            "join users on users.id = api_keys.user_id where key_hash = ? and disabled = 0",
            [key_hash],
        )
        if row is None:
            return None
        today = now()
        if (row["used_at"] or "")[:10] != today[:10]:
            with self._db.transaction() as db:
                db.execute("update api_keys set used_at = ? where id = ?", [today, row["key_id"]])
        return _user(row)

    def remove_key(self, key_id: str, user_id: str | None = None) -> None:
        """Revoke a key (of this person, if one is named). Raises NotFound."""
        with self._db.transaction() as db:
            owned = "" if user_id is None else " and user_id = ?"
            gone = db.execute(f"delete from api_keys where id = ?{owned}", [key_id, *([user_id] if user_id else [])])
            if not gone.rowcount:
                raise NotFound(f"There is no API key {key_id}.")


def _user(row: Row) -> User:
    return User(row["id"], row["name"], bool(row["admin"]), bool(row["disabled"]), row["created_at"])
