"""Trials in the store: what begins and ends them, what they are against, and that nothing of them is changed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from feedback.store import Store
from feedback.types import AdapterVersion, Duel, TrialEnd, TrialEvent, User, now
from tests.feedback.helpers import BASE, add_person, make_reply


def enter(store: Store, user: User, number: int) -> None:
    """A version that passed the gate."""
    made = AdapterVersion(user.id, number, BASE, "probation", None, None, 1, 20, 1, {}, {}, [], "0" * 64, now())
    store.versions.add(made, activate=True, update_state="promoted")


def end(number: int, what: TrialEnd, against: int | None = None) -> TrialEvent:
    """A verdict."""
    return TrialEvent(number, what, against, 2, 9, 1, "Told.", now())


def statuses(store: Store, user: User) -> list[str]:
    return [version.status for version in store.versions.versions(user.id)]


def told(store: Store, user: User) -> list[tuple[int, str, int | None]]:
    return [(event.number, event.what, event.against) for event in store.trials.events(user.id)]


def trusted(store: Store, user: User) -> int | None:
    found = store.versions.trusted(user.id, BASE)
    return found.number if found else None


def test_a_trial_is_against_the_last_version_that_is_not_on_trial(store: Store) -> None:
    user = add_person(store)
    assert trusted(store, user) is None
    enter(store, user, 1)
    assert statuses(store, user) == ["probation"] and trusted(store, user) is None
    store.versions.end_trial(user.id, BASE, end(1, "confirmed"))
    assert statuses(store, user) == ["active"] and trusted(store, user) == 1
    enter(store, user, 2)
    enter(store, user, 3)
    assert statuses(store, user) == ["retired", "retired", "probation"] and trusted(store, user) == 1
    store.versions.end_trial(user.id, BASE, end(3, "rolled back", 1))
    assert statuses(store, user) == ["active", "retired", "rolled back"]
    active = store.versions.active(user.id, BASE)
    assert active is not None and active.number == 1
    assert told(store, user) == [
        (1, "begun", None), (1, "confirmed", None), (2, "begun", 1), (2, "replaced", 1), (3, "begun", 1),
        (3, "rolled back", 1),
    ]  # fmt: skip


def test_a_choice_by_hand_ends_it(store: Store) -> None:
    user = add_person(store)
    enter(store, user, 1)
    store.versions.activate(user.id, BASE, 1)  # it is served already: nothing changes
    assert statuses(store, user) == ["probation"]
    store.versions.activate(user.id, BASE, None)
    assert statuses(store, user) == ["rolled back"] and told(store, user)[-1] == (1, "left", None)
    store.versions.activate(user.id, BASE, 1)
    assert statuses(store, user) == ["active"] and len(told(store, user)) == 2, "who chooses it needs no trial"


def test_what_is_known_of_a_trial_survives_and_is_not_changed(tmp_path: Path) -> None:
    store = Store(tmp_path / "mynah.db")
    user = add_person(store)
    enter(store, user, 1)
    replies = [make_reply(user), make_reply(user)]
    store.chats.add_replies(replies)
    duel = Duel(1, replies[0].id, replies[1].id, now())
    store.trials.add_duel(user.id, duel)
    store.trials.add_duel(user.id, Duel(9, replies[1].id, replies[0].id, now()))  # of a version that is gone
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), store.database.transaction() as db:
        db.execute("update trials set what = 'confirmed'")
    store.close()
    again = Store(tmp_path / "mynah.db")
    assert told(again, user) == [(1, "begun", None)] and again.trials.duels(user.id) == [duel]
    again.versions.remove_all(user.id)
    assert again.trials.events(user.id) == [] and again.trials.duels(user.id) == []
    again.close()
