"""What admins do, whether on the page, over HTTP or on the command line: done, and written to the audit log, at once.

    admins = Administration(store, accounts)
    admins.disable(admin.id, user)          # both or neither

Entries name people by their ids, which never change; `log` puts in the names of those who are still there. So a name
that was deleted is nowhere, and what was done stays told. Left out on purpose: what people do with their own things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assistant.accounts import Accounts
from feedback.store import Store
from feedback.types import AuditEntry, User

if TYPE_CHECKING:
    from assistant.settings import Settings

COMMAND_LINE, FIRST_START = "the command line", "the first start"
CANCELLED = "An admin cancelled it."
DISABLED = "The account was disabled."


@dataclass(frozen=True)
class Entry:
    """One line of the audit log for people to read."""

    number: int
    at: str
    admin: str
    action: str
    subject: str
    details: str


class Administration:
    """Acts on people. by: the acting admin's id, COMMAND_LINE or FIRST_START."""

    def __init__(self, store: Store, accounts: Accounts, forget: Callable[[str], None] = lambda user_id: None) -> None:
        """forget: ends what is being written for somebody, where there is an engine."""
        self._store, self._accounts, self._forget = store, accounts, forget

    def add(self, by: str, name: str, password: str, *, admin: bool = False) -> User:
        """A new person. Raises InvalidInput, or Conflict when the name is taken."""
        with self._store.database.transaction():
            user = self._accounts.add(name, password, admin=admin)
            self._store.server.note(by, "added", user.id, **({"admin": True} if admin else {}))
        return user

    def first_admin(self) -> tuple[User, str] | None:
        """Where there is no admin yet: a new one with a generated password, to be shown once."""
        with self._store.database.transaction():
            made = self._accounts.first_admin()
            if made:
                self._store.server.note(FIRST_START, "added", made[0].id, admin=True)
        return made

    def set_password(self, by: str, user: User, password: str) -> None:
        """A new password; every session of the person ends. Raises InvalidInput."""
        with self._store.database.transaction():
            self._accounts.set_password(user, password)
            self._store.server.note(by, "set the password of", user.id)

    def disable(self, by: str, user: User) -> None:
        """Shut a person out: sessions, keys, replies and updates end now. Raises Conflict for the last admin."""
        with self._store.database.transaction():
            self._store.people.set_disabled(user.id, True)
            for update in self._store.versions.live_updates(user.id):
                self._store.versions.set_state(update.id, "cancelled", DISABLED)
            self._store.server.note(by, "disabled", user.id)
        self._forget(user.id)

    def enable(self, by: str, user: User) -> None:
        """Let a disabled person in again; they sign in with their password and make new keys."""
        with self._store.database.transaction():
            self._store.people.set_disabled(user.id, False)
            self._store.server.note(by, "enabled", user.id)

    def create_key(self, by: str, user: User) -> str:
        """A key in a person's name; its secret."""
        with self._store.database.transaction():
            key, secret = self._accounts.create_key(user)
            self._store.server.note(by, "made an API key for", user.id, key=key.id)
        return secret

    def revoke_key(self, by: str, key_id: str) -> None:
        """End anybody's key. Raises NotFound."""
        with self._store.database.transaction():
            self._accounts.revoke_key(key_id)
            self._store.server.note(by, "revoked an API key", key=key_id)

    def set(self, by: str, settings: Settings, name: str, text: str) -> None:
        """Change a setting of the server. Raises InvalidInput, and Conflict for one that is fixed."""
        with self._store.database.transaction():
            was, now = settings.set(name, text)
            if was != now:
                self._store.server.note(by, "changed the setting", setting=name, was=was, now=now)

    def note(self, by: str, action: str, user: User | None = None, **details: Any) -> None:
        """Write down what was done elsewhere. Secrets and names do not belong in the details."""
        self._store.server.note(by, action, user.id if user else "", **details)

    def log(self, limit: int = 100, before: int | None = None) -> list[Entry]:
        """The audit log, newest first. before: only older entries than this number."""
        names = {user.id: user.name for user in self._accounts.people()}
        return [_readable(entry, names) for entry in self._store.server.audit(limit, before)]


def _readable(entry: AuditEntry, names: dict[str, str]) -> Entry:
    def name(who: str) -> str:
        return names.get(who) or (f"somebody who is gone ({who})" if who.startswith("u_") else who)

    details = ", ".join(key if value is True else f"{key}: {value}" for key, value in entry.details.items())
    return Entry(entry.number, entry.at, name(entry.admin), entry.action, name(entry.subject), details)
