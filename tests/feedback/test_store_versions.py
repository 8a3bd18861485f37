"""Updates and versions in the store: one update at a time, ends that are final, the pointer to what is served."""

from __future__ import annotations

import json

import pytest

from feedback.errors import Conflict, NotFound
from feedback.store import Store
from feedback.types import TrialEvent, User, now
from tests.feedback.helpers import BASE, add_person, make_version


def test_one_update_at_a_time_and_an_end_is_final(store: Store) -> None:
    ada, bob = add_person(store), add_person(store, "bob")
    update = store.versions.queue(ada.id, BASE, "asked", 7, None, (1, 10), {"lr": 1})
    assert update.state == "queued" and update.config == {"lr": 1}
    with pytest.raises(Conflict, match="under way"):
        store.versions.queue(ada.id, BASE, "automatic", 7, None, (1, 10), {})
    store.versions.queue(bob.id, BASE, "automatic", 7, None, (1, 10), {})
    assert store.versions.set_state(update.id, "running")
    store.versions.set_progress(update.id, 0.5, 60.0, {"objective/kl": 1.0})
    running = store.versions.update(ada.id, update.id)
    assert running.started_at and running.progress == 0.5 and running.metrics == {"objective/kl": 1.0}
    assert store.versions.set_state(update.id, "failed", "out of memory")
    assert not store.versions.set_state(update.id, "running"), "what has ended stays ended"
    ended = store.versions.update(ada.id, update.id)
    assert (ended.state, ended.reason) == ("failed", "out of memory") and ended.finished_at
    assert set(store.versions.last_finished()) == {ada.id}
    store.versions.queue(ada.id, BASE, "asked", 8, None, (1, 12), {})
    assert [u.user_id for u in store.versions.live_updates()] == [bob.id, ada.id]


def test_entering_a_version_ends_its_update_in_the_same_step(store: Store) -> None:
    user = add_person(store)
    update = store.versions.queue(user.id, BASE, "asked", 7, None, (1, 10), {})
    gate = [{"check": "kl", "value": 0.1, "bound": 0.2, "passed": True}]
    store.versions.add(make_version(user, 1, update_id=update.id, gate=gate), activate=True, update_state="promoted")
    ended = store.versions.update(user.id, update.id)
    assert (ended.state, ended.version, ended.gate, ended.progress) == ("promoted", 1, gate, 1.0)
    late = store.versions.queue(user.id, BASE, "asked", 7, None, (1, 10), {})
    store.versions.set_state(late.id, "cancelled")
    with pytest.raises(Conflict, match="cancelled"):
        store.versions.add(make_version(user, 2, update_id=late.id), activate=True, update_state="promoted")
    active = store.versions.active(user.id, BASE)
    assert active is not None and active.number == 1 and len(store.versions.versions(user.id)) == 1


def test_activation_and_rollback(store: Store) -> None:
    user = add_person(store)
    assert store.versions.active(user.id, BASE) is None
    for number in (1, 2):
        store.versions.add(make_version(user, number), activate=True, update_state="promoted")
    store.versions.add(make_version(user, 3, status="rejected"), activate=False, update_state="rejected")
    store.versions.add(make_version(user, 4, base_id="other"), activate=False, update_state="promoted")

    def state() -> list[str]:
        return [v.status for v in store.versions.versions(user.id)]

    assert state() == ["retired", "active", "rejected", "retired"]
    store.versions.activate(user.id, BASE, 1)
    assert state()[:2] == ["active", "rolled back"]
    store.versions.activate(user.id, BASE, None)
    assert store.versions.active(user.id, BASE) is None and state()[:2] == ["rolled back", "rolled back"]
    store.versions.activate(user.id, BASE, 2)
    assert state()[:2] == ["rolled back", "active"]
    store.versions.activate(user.id, BASE, 2)  # again: nothing changes
    assert state()[:2] == ["rolled back", "active"]
    for number, says in ((3, "did not pass the gate"), (4, "belongs to the base other")):
        with pytest.raises(Conflict, match=says):
            store.versions.activate(user.id, BASE, number)
    with pytest.raises(NotFound):
        store.versions.activate(user.id, BASE, 9)
    active = store.versions.active(user.id, BASE)
    assert active is not None and active.number == 2 and active.name == "v2"
    assert store.versions.active(user.id, "other") is None


def serve(store: Store, user: User, *numbers: int, stays: bool = True) -> None:
    """Versions that are served one after the other, each after the trial of the one before; each knows of 10 more
    acts. stays: the last one's trial is over, too."""
    for number in numbers:
        made = make_version(user, number, status="probation", last_label=10 * number)
        store.versions.add(made, activate=True, update_state="promoted")
        if stays or number != numbers[-1]:
            store.versions.end_trial(user.id, BASE, TrialEvent(number, "confirmed", None, 9, 2, 0, "", now()))


def served(store: Store, user: User) -> int | None:
    active = store.versions.active(user.id, BASE)
    return active.number if active else None


def forget(store: Store, user: User, seq: int) -> list[int]:
    return [version.number for version in store.versions.forget(user.id, seq)]


@pytest.mark.parametrize("stays", [True, False])
def test_a_forgotten_version_gives_way_to_the_one_it_had_replaced(store: Store, stays: bool) -> None:
    ada, bob, eve = (add_person(store, name) for name in ("ada", "bob", "eve"))
    serve(store, ada, 1, 2)
    store.versions.activate(ada.id, BASE, None)
    serve(store, ada, 3, stays=stays)
    assert forget(store, ada, 30) == [3] and served(store, ada) is None, "not v1, which the base had replaced"

    serve(store, bob, 1, 2, 3)
    store.versions.activate(bob.id, BASE, 1)
    serve(store, bob, 4, stays=stays)
    assert forget(store, bob, 40) == [4] and served(store, bob) == 1, "not v2, which is newer"
    assert store.versions.version(bob.id, 1).status == "active"

    serve(store, eve, 1, 2, 3, 4, stays=stays)
    assert forget(store, eve, 25) == [3, 4] and served(store, eve) == 2
    assert forget(store, eve, 5) == [1, 2] and served(store, eve) is None


def test_a_version_on_trial_is_not_what_another_had_replaced(store: Store) -> None:
    user = add_person(store)
    serve(store, user, 1, 2, stays=False)
    serve(store, user, 3, stays=False)
    assert forget(store, user, 30) == [3] and served(store, user) == 1, "nothing speaks for v2"


def test_what_was_taken_back_by_hand_is_not_served_again(store: Store) -> None:
    user = add_person(store)
    serve(store, user, 1, 2, 3)
    for number in (2, 1, 3):  # v3 and v2 are "rolled back"
        store.versions.activate(user.id, BASE, number)
    assert forget(store, user, 30) == [3] and served(store, user) == 1, "it was compared with v2"


def test_version_numbers_are_never_used_twice(store: Store) -> None:
    ada, bob = add_person(store), add_person(store, "bob")
    assert [store.versions.next_number(ada.id) for _ in range(3)] == [1, 2, 3]
    assert store.versions.next_number(bob.id) == 1


def test_what_is_stored_is_plain_json(store: Store) -> None:
    user = add_person(store)
    store.versions.add(make_version(user, 1, metrics={"kl": 1.5}), activate=False, update_state="rejected")
    raw = store.database.value("select metrics from versions")
    assert json.loads(raw) == {"kl": 1.5} == store.versions.version(user.id, 1).metrics
