"""Who may come in: names, passwords, browser sessions and API keys.

Only hashes are stored: argon2 for passwords, which people choose; sha256 for session tokens and API keys, which are 256
random bits and need no slow hash. After ten failures in a quarter of an hour a name is locked for the rest of it,
whether it exists or not, and so is the address they came from; a name nobody has takes as long to refuse as a wrong
password.

Left out on purpose: e-mail, password recovery (an admin sets a new one), single sign-on.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import unicodedata
from collections.abc import Callable
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from assistant.attempts import Attempts, place_of
from feedback.errors import InvalidInput, NotFound, NotSignedIn
from feedback.store import Store
from feedback.types import ApiKey, User, after

MAX_NAME, MIN_PASSWORD, MAX_PASSWORD = 64, 8, 1024
KEY_PREFIX = "mynah-"
FAILURES = 10  # for a name, or from an address, within attempts.WINDOW_SECONDS
WRONG = "The name or the password is wrong."


class Accounts:
    """All people of a server. clock: seconds, for the lockout."""

    def __init__(self, store: Store, session_days: int = 30, clock: Callable[[], float] = time.monotonic) -> None:
        self._people = store.people
        self._days = session_days
        self._hasher = PasswordHasher()
        self._attempts = Attempts(clock, FAILURES, f"There were {FAILURES} failed sign-ins for this name")
        self._here = Attempts(clock, FAILURES, f"There were {FAILURES} failed sign-ins from your address")

    # ---- people ---------------------------------------------------------------------------------------------------

    def add(self, name: str, password: str, *, admin: bool = False) -> User:
        """A new person. Raises InvalidInput, or Conflict when the name is taken."""
        name = check_name(name)
        return self._people.add(name, name_key(name), self._hasher.hash(check_password(password)), admin=admin)

    def find(self, name: str) -> User:
        """A person by name, however it is capitalized. Raises NotFound."""
        user = self._people.find(name_key(name))
        if user is None:
            raise NotFound(f"There is no person named {name!r}.", param="name")
        return user

    def people(self) -> list[User]:
        """Everybody, oldest account first."""
        return self._people.all()

    def first_admin(self) -> tuple[User, str] | None:
        """Where there is no admin yet: a new one with a generated password, to be shown once."""
        if any(user.admin for user in self._people.all()):
            return None
        number = 1
        while self._people.find(name_key(name := "admin" if number == 1 else f"admin{number}")):
            number += 1
        password = secrets.token_urlsafe(12)
        return self.add(name, password, admin=True), password

    # ---- passwords and sessions -----------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, address: str = "") -> str:
        """A session token for a name and password.

        address: where the request comes from, "" for this machine's own commands. Raises NotSignedIn, or Busy while the
        name or the address is locked. A success forgets the failures of the name but not those of the address: whoever
        has an account here must not get endless guesses at others by signing in between.
        """
        place = place_of(address)
        if place:
            self._here.begin(place)
        token = self.open_session(*self._verified(name, password))
        if place:
            self._here.forgive(place)
        return token

    def open_session(self, user: User, verified: str | None = None) -> str:
        """A session token for somebody who has just shown who they are.

        verified: the hash that their password was checked against, if it was. Raises NotSignedIn when it was changed or
        the person disabled since.
        """
        token = secrets.token_urlsafe(32)
        self._people.add_session(digest(token), user.id, after(self._days * 86_400), verified=verified)
        return token

    def session_user(self, token: str) -> User | None:
        """Whose session it is, None when it ended."""
        return self._people.session_user(digest(token)) if token else None

    def sign_out(self, token: str) -> None:
        """End a session."""
        self._people.end_session(digest(token))

    def change_password(self, user: User, old: str, new: str, *, keep: str | None = None) -> None:
        """A person's own change; all their sessions end but the one whose token is `keep`. Raises InvalidInput."""
        new = check_password(new)
        kept = digest(keep) if keep else None
        try:
            _, verified = self._verified(user.name, old)
            self._people.set_password(user.id, self._hasher.hash(new), keep_session=kept, verified=verified)
        except NotSignedIn as error:
            raise InvalidInput("The old password is wrong; nothing was changed.", param="old") from error

    def set_password(self, user: User, new: str) -> None:
        """An admin's change; all sessions of the person end."""
        self._people.set_password(user.id, self._hasher.hash(check_password(new)))

    def _verified(self, name: str, password: str) -> tuple[User, str]:
        """Whose password it is, and the hash that it fits: that may be changed before anything is written."""
        key = name_key(name)
        self._attempts.begin(key)  # counted before the slow check, so that parallel guesses count too
        user = self._people.find(key)
        stored = self._people.password_hash(user.id) if user else self._nobodys_hash
        try:
            right = bool(self._hasher.verify(stored, _normal(password)[:MAX_PASSWORD]))
        except (VerifyMismatchError, InvalidHashError):
            right = False
        if user is None or not right or user.disabled:
            raise NotSignedIn(WRONG)
        self._attempts.clear(key)
        return user, stored

    @cached_property
    def _nobodys_hash(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe(16))

    # ---- API keys -------------------------------------------------------------------------------------------------

    def create_key(self, user: User) -> tuple[ApiKey, str]:
        """A new key: its record, and the secret, which is never shown again. Raises NotSignedIn when disabled."""
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        return self._people.add_key(user.id, digest(secret), f"{secret[:9]}…{secret[-4:]}"), secret

    def key_user(self, secret: str) -> User:
        """Whose key it is. Raises NotSignedIn."""
        user = self._people.key_user(digest(secret)) if secret.startswith(KEY_PREFIX) else None
        if user is None:
            raise NotSignedIn(
                "This API key is not valid; make one on the page “My assistant” or with `app.py key create`."
            )
        return user

    def keys(self, user: User) -> list[ApiKey]:
        """A person's keys, without their secrets."""
        return self._people.keys(user.id)

    def revoke_key(self, key_id: str, user: User | None = None) -> None:
        """End a key (of this person, if one is named). Raises NotFound."""
        self._people.remove_key(key_id, user.id if user else None)


def name_key(name: str) -> str:
    """What makes two names the same: compatibility forms and capitals do not."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name.strip()).casefold())


def check_name(name: str) -> str:
    """A name as it will be kept. Raises InvalidInput saying what is allowed."""
    name = unicodedata.normalize("NFC", name.strip())
    inner = all(c.isalnum() or unicodedata.category(c).startswith("M") or c in " ._-'’" for c in name)
    if not 1 <= len(name) <= MAX_NAME or not inner or not name[0].isalnum() or "  " in name:
        raise InvalidInput(
            f"The name is {name[:80]!r}; it can be 1 to {MAX_NAME} letters, digits, spaces and . _ - ' and begins with "
            "a letter or digit.",
            param="name",
        )
    return name


def check_password(password: str) -> str:
    """A password as it is hashed. Raises InvalidInput."""
    password = _normal(password)
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidInput(
            f"The password has {len(password)} characters; it needs {MIN_PASSWORD} to {MAX_PASSWORD}.", param="password"
        )
    return password


def _normal(password: str) -> str:
    return unicodedata.normalize("NFC", password)


def digest(token: str) -> str:
    """What is kept of a secret of 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()
