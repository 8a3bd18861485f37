"""What people have in common is kept only as long as all whose acts it is made of are there and share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from feedback.common import Common
from feedback.store import Store
from feedback.types import User
from tests.feedback.helpers import add_person, thumb

PARTS = np.array([[0.5, -0.25, 0.0], [0.25, 0.0, 1.0], [0.0, 0.0, 2.0]])


@pytest.fixture
def people(store: Store) -> list[User]:
    made = [add_person(store, name, admin=name == "ada") for name in ("ada", "bob", "cleo")]
    for user in made:
        thumb(store, user)
    return made


def keep(store: Store, people: list[User], share: float = 0.5, width: float = 0.25) -> bool:
    found = Common(PARTS[: len(people)], share, 0.125, width)
    return store.commons.keep("p", found, store.commons.stamp([user.id for user in people]))


def test_what_was_kept_is_there(store: Store, people: list[User]) -> None:
    assert store.commons.kept() is None and store.commons.version() is None
    assert keep(store, people[:2])
    kept = store.commons.kept()
    assert kept is not None and np.array_equal(kept.found.parts, PARTS[:2])
    assert (kept.population, kept.found.share, kept.found.gain, kept.found.width) == ("p", 0.5, 0.125, 0.25)
    assert kept.version == store.commons.version() and kept.user_ids == (people[0].id, people[1].id)
    assert keep(store, people[:2], 1.0), "in place of what there was"
    again = store.commons.kept()
    assert again is not None and again.found.share == 1.0 and again.version != kept.version
    assert keep(store, people[:2], 1.0, 1.0)
    assert store.commons.version() not in (kept.version, again.version)


def test_it_goes_with_the_first_who_leaves_or_is_deleted(store: Store, people: list[User]) -> None:
    ada, bob, _ = people
    for end in (lambda: store.commons.leave(bob.id), lambda: store.people.remove(bob.id), store.commons.forget):
        here = [user for user in people if store.people.find(user.name) is not None]
        assert keep(store, here[:2])
        end()
        assert store.commons.kept() is None and not store.commons.leave(ada.id)


def test_somebody_who_is_not_in_it_changes_nothing(store: Store, people: list[User]) -> None:
    assert keep(store, people[:2])
    assert not store.commons.leave(people[2].id)
    store.people.remove(people[2].id)
    assert store.commons.kept() is not None


def test_nothing_is_kept_of_acts_that_have_changed_meanwhile(store: Store, people: list[User]) -> None:
    stamp = store.commons.stamp([user.id for user in people])
    for change in (
        lambda: thumb(store, people[0]),
        lambda: store.acts.retract(people[1].id, store.acts.events(people[1].id)[0].id),
        lambda: store.people.remove(people[2].id),
    ):
        change()
        found = Common(PARTS[: len(stamp)], 0.5, 0.125)
        assert not store.commons.keep("p", found, stamp) and store.commons.kept() is None
        there = [user.id for user in people if store.people.find(user.name) is not None]
        stamp = store.commons.stamp(there)


def test_who_has_set_what(store: Store, people: list[User]) -> None:
    for user in reversed(people):
        store.people.set(user.id, "x", "on")
    store.people.set(people[1].id, "x", "off")
    assert store.people.who_set("x", "on") == [people[0].id, people[2].id]
    store.people.set_disabled(people[2].id, True)
    assert store.people.who_set("x", "on") == [people[0].id]


def test_it_survives_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "mynah.db")
    user = add_person(store)
    thumb(store, user)
    assert keep(store, [user])
    store.close()
    again = Store(tmp_path / "mynah.db")
    assert again.commons.kept() is not None
    assert again.commons.leave(user.id) and again.commons.kept() is None, "the trigger is there"
    again.close()
