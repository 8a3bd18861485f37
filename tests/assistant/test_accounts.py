"""Names, passwords, sessions, keys, and the lock after too many guesses."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import pytest
from argon2 import PasswordHasher

from assistant.accounts import FAILURES, Accounts, check_name, name_key
from assistant.attempts import WINDOW_SECONDS
from feedback.errors import Busy, Conflict, InvalidInput, NotFound, NotSignedIn
from feedback.store import Store
from feedback.types import User

PASSWORD = "correct horse battery"


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(store: Store, clock: Clock) -> Accounts:
    return Accounts(store, clock=clock)


@pytest.mark.parametrize("name", ["Ada", "Ada Lovelace", "m.curie", "小明", "O'Neil", "x" * 64, "7of9"])
def test_names_people_have_are_taken(name: str) -> None:
    assert check_name(f" {name} ") == name


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a/b", "a@v3", "a\nb", ".hidden", "a  b", "<b>", "a\x00", "-rf"])
def test_names_that_would_do_harm_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_name(name)
    assert caught.value.param == "name"


def test_names_are_the_same_whatever_the_capitals_and_the_width(accounts: Accounts) -> None:
    assert name_key("ＡＤＡ") == name_key("ada") and name_key("STRASSE") == name_key("straße")
    user = accounts.add("Ada", PASSWORD)
    with pytest.raises(Conflict):
        accounts.add("ＡDA", PASSWORD)
    assert accounts.find("aDa") == user
    with pytest.raises(NotFound):
        accounts.find("Bob")


def test_a_name_that_comes_back_is_a_new_person(accounts: Accounts, store: Store) -> None:
    accounts.add("Boss", PASSWORD, admin=True)
    first = accounts.add("Ada", PASSWORD)
    token = accounts.sign_in("Ada", PASSWORD)
    store.people.remove(first.id)
    second = accounts.add("Ada", PASSWORD)
    assert second.id != first.id
    assert accounts.session_user(token) is None


def test_only_hashes_are_stored(accounts: Accounts, store: Store) -> None:
    user = accounts.add("Ada", PASSWORD)
    token, (_, secret) = accounts.sign_in("Ada", PASSWORD), accounts.create_key(user)
    dump = "\n".join(store.database._db.conn.iterdump())
    assert "argon2id" in dump
    assert not any(text in dump for text in (PASSWORD, token, secret))


def test_a_session_ends_with_sign_out_and_with_a_new_password(accounts: Accounts) -> None:
    user = accounts.add("Ada", PASSWORD)
    here, there, third = (accounts.sign_in("ada", PASSWORD) for _ in range(3))
    assert accounts.session_user(here) == user
    accounts.sign_out(there)
    assert accounts.session_user(there) is None
    accounts.change_password(user, PASSWORD, "another password", keep=here)
    assert accounts.session_user(here) == user and accounts.session_user(third) is None
    accounts.set_password(user, "a third password")
    assert accounts.session_user(here) is None
    with pytest.raises(NotSignedIn):
        accounts.sign_in("Ada", PASSWORD)
    assert accounts.session_user("") is None


def test_a_wrong_old_password_changes_nothing(accounts: Accounts) -> None:
    user = accounts.add("Ada", PASSWORD)
    with pytest.raises(InvalidInput, match="old password"):
        accounts.change_password(user, "not this one", "another password")
    with pytest.raises(InvalidInput, match="7 characters"):
        accounts.change_password(user, PASSWORD, "shorter")
    assert accounts.sign_in("Ada", PASSWORD)


def shut_out(store: Store, user: User, how: str) -> None:
    """What an admin does about somebody: another password, or disabled."""
    if how == "password":
        Accounts(store).set_password(user, "another password")
    else:
        store.people.set_disabled(user.id, True)


def meanwhile(accounts: Accounts, monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Let a change land between the slow check of a password and what is written after it."""

    class Slow(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:
            right = super().verify(hash, password)
            change()
            return right

    monkeypatch.setattr(accounts, "_hasher", Slow())


@pytest.mark.parametrize("change", ["password", "disabled"])
def test_a_sign_in_under_way_does_not_outlive_a_new_password(
    accounts: Accounts, store: Store, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    user, other = accounts.add("Ada", PASSWORD), Accounts(store)

    meanwhile(accounts, monkeypatch, lambda: shut_out(store, user, change))
    with pytest.raises(NotSignedIn, match="name or the password"):
        accounts.sign_in("Ada", PASSWORD, "203.0.113.5")
    store.people.set_disabled(user.id, False)
    assert store.database.value("select count(*) from sessions") == 0
    assert other.sign_in("Ada", "another password" if change == "password" else PASSWORD)


@pytest.mark.parametrize("change", ["password", "disabled"])
def test_a_change_of_password_under_way_does_not_undo_an_admins(
    accounts: Accounts, store: Store, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    user, other = accounts.add("Ada", PASSWORD), Accounts(store)
    token = accounts.sign_in("Ada", PASSWORD)

    meanwhile(accounts, monkeypatch, lambda: shut_out(store, user, change))
    with pytest.raises(InvalidInput, match="old password is wrong"):
        accounts.change_password(user, PASSWORD, "a password of mine", keep=token)
    store.people.set_disabled(user.id, False)
    assert other.session_user(token) is None
    assert other.sign_in("Ada", "another password" if change == "password" else PASSWORD)


def test_somebody_disabled_gets_no_key_and_no_session_for_later(accounts: Accounts, store: Store) -> None:
    user = accounts.add("Ada", PASSWORD)  # as a request knows her that began before
    store.people.set_disabled(user.id, True)
    with pytest.raises(NotSignedIn):
        accounts.create_key(user)
    with pytest.raises(NotSignedIn):
        accounts.open_session(user)
    accounts.set_password(user, "another password")
    store.people.set_disabled(user.id, False)
    assert accounts.keys(user) == [] and store.database.value("select count(*) from sessions") == 0
    assert accounts.sign_in("Ada", "another password"), "an admin's change asks for nothing"


def test_a_name_is_locked_after_ten_failures_and_opens_again(accounts: Accounts, clock: Clock) -> None:
    accounts.add("Ada", PASSWORD)
    for _ in range(FAILURES):
        with pytest.raises(NotSignedIn):
            accounts.sign_in("ada", "a wrong guess")
        clock.now += 1
    with pytest.raises(Busy) as caught:
        accounts.sign_in("ADA", PASSWORD)
    assert 0 < caught.value.retry_after <= WINDOW_SECONDS
    accounts.add("Bob", PASSWORD)
    assert accounts.sign_in("Bob", PASSWORD), "other names stay open"
    clock.now += WINDOW_SECONDS
    assert accounts.sign_in("ada", PASSWORD)


def test_a_success_forgets_the_failures_before_it(accounts: Accounts) -> None:
    accounts.add("Ada", PASSWORD)
    for _ in range(2):
        for _ in range(FAILURES - 1):
            with pytest.raises(NotSignedIn):
                accounts.sign_in("Ada", "a wrong guess")
        assert accounts.sign_in("Ada", PASSWORD)


def test_a_name_nobody_has_is_locked_and_takes_as_long(accounts: Accounts) -> None:
    accounts.add("Ada", PASSWORD)
    times: dict[str, list[float]] = {"Ada": [], "Nobody": []}
    for _ in range(5):
        for name, taken in times.items():
            begun = perf_counter()
            with pytest.raises(NotSignedIn):
                accounts.sign_in(name, "a wrong guess")
            taken.append(perf_counter() - begun)
    assert 0.4 < median(times["Nobody"]) / median(times["Ada"]) < 2.5
    for _ in range(FAILURES - 5):
        with pytest.raises(NotSignedIn):
            accounts.sign_in("Nobody", "a wrong guess")
    with pytest.raises(Busy):
        accounts.sign_in("Nobody", "a wrong guess")


def test_a_key_works_until_it_is_revoked(accounts: Accounts) -> None:
    ada, bob = accounts.add("Ada", PASSWORD), accounts.add("Bob", PASSWORD)
    key, secret = accounts.create_key(ada)
    assert accounts.key_user(secret) == ada
    assert key.hint.startswith("mynah-") and secret not in key.hint
    with pytest.raises(NotFound):
        accounts.revoke_key(key.id, bob)
    accounts.revoke_key(key.id, ada)
    for bad in (secret, "", "mynah-", "x"):
        with pytest.raises(NotSignedIn):
            accounts.key_user(bad)


def test_the_first_admin_is_made_once(accounts: Accounts, store: Store) -> None:
    accounts.add("Admin", PASSWORD)  # took the name without the rights
    made = accounts.first_admin()
    assert made is not None
    admin, password = made
    assert admin.admin and admin.name == "admin2"
    assert accounts.session_user(accounts.sign_in("admin2", password)) == admin
    assert accounts.first_admin() is None
    with pytest.raises(Conflict, match="last admin"):
        store.people.remove(admin.id)
