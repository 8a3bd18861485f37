"""The server's own tables: settings, invitations, the audit log; and what disabling and starting over take away."""

from __future__ import annotations

import sqlite3

import pytest

from feedback.errors import Conflict, NotFound
from feedback.store import Store
from feedback.types import Example, now
from tests.feedback.helpers import BASE, add_person, make_version, thumb

LATER = "2999-01-01T00:00:00Z"


def test_settings_are_kept_and_forgotten(store: Store) -> None:
    store.server.set("updates", "off")
    store.server.set("updates", "idle")
    assert store.server.settings() == {"updates": "idle"}
    store.server.set("updates", None)
    assert store.server.settings() == {}


def test_the_audit_log_only_grows(store: Store) -> None:
    for number in range(3):
        store.server.note("u_1", "added", f"u_{number}", admin=False)
    newest, *rest = store.server.audit()
    assert (newest.admin, newest.action, newest.subject, newest.details) == ("u_1", "added", "u_2", {"admin": False})
    assert [entry.subject for entry in store.server.audit(before=newest.number)] == [entry.subject for entry in rest]
    assert len(store.server.audit(limit=2)) == 2
    assert [entry.number for entry in store.server.audit_of("u_1")] == [1, 2, 3]
    assert [entry.subject for entry in store.server.audit_of("u_2")] == ["u_2"]
    for statement in ("delete from audit", "update audit set admin = 'nobody'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"), store.database.transaction() as db:
            db.execute(statement)
    assert len(store.server.audit()) == 3


def test_an_invitation_is_open_until_used_expired_or_its_admin_is_none(store: Store) -> None:
    root, second = add_person(store, "root", admin=True), add_person(store, "second", admin=True)
    kept = store.server.invite("hash", "for Ada", root.id, LATER)
    assert store.server.invitation("hash") == kept and store.server.invitations() == [kept]
    assert store.server.invitation("other") is None
    store.people.set_disabled(root.id, True)
    assert store.server.invitation("hash") is None
    store.people.set_disabled(root.id, False)
    store.server.withdraw(kept.id)
    assert store.server.invitation("hash") is None
    with pytest.raises(NotFound):
        store.server.withdraw(kept.id)
    store.server.invite("old", "", root.id, "2001-01-01T00:00:00Z")
    assert store.server.invitation("old") is None and store.server.invitations() == []
    store.server.invite("hash", "", second.id, LATER)
    store.people.remove(second.id)
    assert store.server.invitations() == []


def test_disabling_ends_sessions_and_keys(store: Store) -> None:
    root, user = add_person(store, "root", admin=True), add_person(store)
    store.people.add_session("token", user.id, LATER)
    store.people.add_key(user.id, "key", "my…")
    store.people.set_disabled(user.id, True)
    assert store.people.get(user.id).disabled
    store.people.set_disabled(user.id, False)
    assert not store.people.get(user.id).disabled
    assert store.people.session_user("token") is None and store.people.key_user("key") is None
    with pytest.raises(Conflict, match="last admin cannot be disabled"):
        store.people.set_disabled(root.id, True)
    with pytest.raises(NotFound):
        store.people.set_disabled("u_nobody", True)


def test_what_was_learned_can_go_while_the_chats_stay(store: Store) -> None:
    ada, bob = add_person(store), add_person(store, "bob")
    for user in (ada, bob):
        thumb(store, user)
        store.versions.queue(user.id, BASE, "asked", 1, None, (1, 1), {})
        store.versions.add(
            make_version(user, store.versions.next_number(user.id)), activate=True, update_state="promoted"
        )
        store.versions.add_example(user.id, 1, Example("Why?", "Because.", "Since you ask.", 1, now()))
    assert store.acts.retract_all(ada.id) == 1 and store.acts.retract_all(ada.id) == 0
    assert store.versions.remove_all(ada.id) == 1
    assert store.acts.label_count(ada.id) == 0 and store.acts.events(ada.id)[0].retracted_at
    assert store.versions.versions(ada.id) == [] and store.versions.updates(ada.id) == []
    assert store.versions.active(ada.id, BASE) is None and store.versions.examples(ada.id) == {}
    assert store.versions.next_number(ada.id) == 2
    assert len(store.chats.all_replies(ada.id)) == 1
    assert store.acts.label_count(bob.id) == 1 and len(store.versions.versions(bob.id)) == 1


def test_the_first_example_of_a_prompt_stays(store: Store) -> None:
    user = add_person(store)
    store.versions.add(make_version(user, 1), activate=False, update_state="promoted")
    first = Example("Why?", "Because.", "Since you ask.", 1, now())
    store.versions.add_example(user.id, 1, first)
    store.versions.add_example(user.id, 1, Example("Why?", "Other.", "Another.", 2, now()))
    assert store.versions.examples(user.id) == {1: [first]}
    with pytest.raises(NotFound):
        store.versions.add_example(user.id, 2, first)
