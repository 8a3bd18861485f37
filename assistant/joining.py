"""How people come in who were not added by hand: an invitation that works once, or a door that is open to all.

The secret of an invitation is 256 random bits; the store keeps its hash. Attempts are limited by where they come from;
those that cost a slow password hash altogether too, so that nobody without an invitation can close the door to those
who have one. Left out on purpose: e-mail; whoever invites hands the link over.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from assistant.accounts import Accounts, check_name, check_password, digest
from assistant.attempts import Attempts, place_of
from assistant.messages import check_text
from assistant.settings import Settings
from feedback.errors import NotFound
from feedback.store import Store
from feedback.types import Invitation, User, after

DAYS = 7  # an invitation stays open
PER_ADDRESS, ALTOGETHER = 10, 100  # attempts in a quarter of an hour
MAX_NOTE = 100
CLOSED = "This invitation was used already, was withdrawn, or has expired. Ask for a new one."
NOT_OPEN = "Nobody can sign up here without an invitation. Ask the person who runs this server for one."


class Joining:
    """Invitations, and accounts that people make themselves. clock: seconds, for the limits."""

    def __init__(
        self, store: Store, accounts: Accounts, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._accounts, self._settings = store, accounts, settings
        self._here = Attempts(clock, PER_ADDRESS, "There were too many attempts to sign up from your address")
        self._all = Attempts(clock, ALTOGETHER, "Too many people try to sign up here just now")

    def invite(self, admin: User, note: str = "") -> tuple[Invitation, str]:
        """A new invitation and its secret, which is never shown again. note: whom it is for, for admins to read."""
        note = check_text(note, "The note", "note", limit=MAX_NOTE).strip() if note.strip() else ""
        token = secrets.token_urlsafe(32)
        with self._store.database.transaction():
            invitation = self._store.server.invite(digest(token), note, admin.id, after(DAYS * 86_400))
            self._store.server.note(admin.id, "invited somebody", invitation=invitation.id)
        return invitation, token

    def withdraw(self, admin: User, invitation_id: str) -> None:
        """Close an invitation that was not used. Raises NotFound."""
        with self._store.database.transaction():
            self._store.server.withdraw(invitation_id)
            self._store.server.note(admin.id, "withdrew an invitation", invitation=invitation_id)

    def check(self, token: str) -> None:
        """Whether whoever holds this (or "" without an invitation) may make an account. Raises NotFound."""
        if token:
            if self._store.server.invitation(digest(token)) is None:
                raise NotFound(CLOSED)
        elif not self._settings.open_to_all:
            raise NotFound(NOT_OPEN)

    def join(self, name: str, password: str, address: str, token: str = "") -> str:
        """Make an account; its first session's token. address: where the request comes from.

        Raises Busy after too many attempts, NotFound where nobody may come in, InvalidInput, Conflict (the name).
        """
        self._here.begin(place_of(address))
        self.check(token)
        check_name(name)
        check_password(password)
        self._all.begin("")  # last: only what is hashed counts for everybody
        with self._store.database.transaction():  # of two who use one invitation at once, the second makes no account
            invitation = self._store.server.invitation(digest(token)) if token else None
            if token and invitation is None:
                raise NotFound(CLOSED)
            user = self._accounts.add(name, password)
            if invitation is None:
                self._store.server.note(user.id, "signed up")
            else:
                self._store.server.withdraw(invitation.id)
                self._store.server.note(user.id, "signed up", invitation=invitation.id)
        return self._accounts.open_session(user)
