"""What belongs to the server rather than to a person: its settings, invitations to it, and the audit log."""

from __future__ import annotations

import json
from typing import Any

from feedback.errors import NotFound
from feedback.store.database import Database, Row
from feedback.types import AHEAD, AuditEntry, Invitation, after, new_id, now

_OPEN = "invitations.expires_at > ? and invitations.created_at < ?"  # now, and AHEAD of it: see `People.session_user`


class Server:
    """Tables settings, invitations and audit."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # ---- settings -------------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, str]:
        """What was set here, as text, by name."""
        return {row["name"]: row["value"] for row in self._db.rows("select name, value from settings")}

    def set(self, name: str, value: str | None) -> None:
        """Keep a setting; None forgets it."""
        with self._db.transaction() as db:
            if value is None:
                db.execute("delete from settings where name = ?", [name])
            else:
                db.execute("insert or replace into settings values (?, ?, ?)", [name, value, now()])

    # ---- invitations ----------------------------------------------------------------------------------------------

    def invite(self, token_hash: str, note: str, invited_by: str, expires_at: str) -> Invitation:
        """Keep an invitation by the hash of its secret."""
        invitation = Invitation(new_id("i"), note, invited_by, now(), expires_at)
        with self._db.transaction() as db:
            db.execute(
                "insert into invitations values (?, ?, ?, ?, ?, ?)",
                [invitation.id, token_hash, note, invited_by, invitation.created_at, expires_at],
            )
        return invitation

    def invitations(self) -> list[Invitation]:
        """All that are still open, newest first."""
        sql = f"select * from invitations where {_OPEN} order by rowid desc"
        rows = self._db.rows(sql, [now(), after(AHEAD)])
        return [_invitation(row) for row in rows]

    def invitation(self, token_hash: str) -> Invitation | None:
        """The open invitation with this secret; None once it was used or has expired, or its admin is one no longer."""
        row = self._db.row(
            "select invitations.* from invitations join users on users.id = invited_by "
            f"where token_hash = ? and {_OPEN} and admin = 1 and disabled = 0",
            [token_hash, now(), after(AHEAD)],
        )
        return _invitation(row) if row else None

    def withdraw(self, invitation_id: str) -> None:
        """End an invitation, because it was used or should not be. Raises NotFound when it is not there any more."""
        with self._db.transaction() as db:
            if not db.execute("delete from invitations where id = ?", [invitation_id]).rowcount:
                raise NotFound("This invitation is not open any more.")

    # ---- audit ----------------------------------------------------------------------------------------------------

    def note(self, admin: str, action: str, subject: str = "", /, **details: Any) -> None:
        """Add to the audit log. Nothing in it can be changed or removed; secrets do not belong in it."""
        with self._db.transaction() as db:
            db.execute(
                "insert into audit (at, admin, action, subject, details) values (?, ?, ?, ?, ?)",
                [now(), admin, action, subject, json.dumps(details)],
            )

    def audit(self, limit: int = 100, before: int | None = None) -> list[AuditEntry]:
        """The newest entries first. before: only those with a lower number."""
        rows = self._db.rows(
            "select * from audit where number < ? order by number desc limit ?", [before or 2**62, limit]
        )
        return [_entry(row) for row in rows]

    def audit_of(self, user_id: str) -> list[AuditEntry]:
        """What was done to a person or by them, oldest first."""
        rows = self._db.rows("select * from audit where subject = ? or admin = ? order by number", [user_id, user_id])
        return [_entry(row) for row in rows]


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(row["number"], row["at"], row["admin"], row["action"], row["subject"], json.loads(row["details"]))


def _invitation(row: Row) -> Invitation:
    return Invitation(row["id"], row["note"], row["invited_by"], row["created_at"], row["expires_at"])
