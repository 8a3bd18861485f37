"""The store: what was acknowledged is there, what is somebody else's is not found, and what is deleted is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feedback.common import Common
from feedback.errors import Conflict, NotFound
from feedback.labels import thumb_preference
from feedback.store import Store
from feedback.store.acts import HELD_OUT_EVERY
from feedback.store.trials import begun
from feedback.types import Duel, Example, Reply, User, now
from tests.feedback.helpers import BASE, POPULATION, add_person, make_reply, make_version, thumb

# ---- acts ---------------------------------------------------------------------------------------------------------


def test_an_act_comes_back_as_it_was_given(store: Store) -> None:
    user = add_person(store)
    reply = make_reply(user)
    store.chats.add_replies([reply])
    payload = {"reply_id": reply.id, "thumb": -1, "reasons": ["too long"], "comment": "no „smart“ quotes, 请"}
    fields = thumb_preference(reply, -1, POPULATION)
    event, total = store.acts.add(user.id, "thumb", payload, [reply.id], BASE, fields)
    assert total == 1
    assert store.acts.event(user.id, event.id) == event and event.payload == payload
    ((preference, base),) = store.acts.preferences(user.id)
    assert (preference.feedback_id, preference.thumb, base) == (event.id, -1, BASE)
    assert preference.features == fields["features"] and preference.population == POPULATION.version
    assert store.acts.live_for_reply(reply.id, "thumb") == [event]
    assert store.acts.live_for_reply(reply.id, "edit") == []


def test_taking_back_keeps_the_event_and_removes_its_label(store: Store) -> None:
    user = add_person(store)
    first, second = thumb(store, user), thumb(store, user)
    store.acts.retract(user.id, first)
    assert store.acts.event(user.id, first).retracted_at is not None
    assert [p.feedback_id for p, _ in store.acts.preferences(user.id)] == [second]
    assert store.acts.label_count(user.id) == 1
    with pytest.raises(NotFound, match="already"):
        store.acts.retract(user.id, first)
    assert [event.id for event in store.acts.live(user.id, "thumb")] == [second]


def test_a_new_act_takes_the_place_of_those_it_supersedes(store: Store) -> None:
    user = add_person(store)
    old = thumb(store, user)
    reply = make_reply(user)
    store.chats.add_replies([reply])
    fields = thumb_preference(reply, -1, POPULATION)
    _, total = store.acts.add(user.id, "thumb", {}, [reply.id], BASE, fields, supersedes=[old])
    assert total == 1 and store.acts.event(user.id, old).retracted_at


def test_what_only_the_old_act_kept_is_the_new_ones(store: Store) -> None:
    """A text that was brought in, and then judged the other way."""
    user = add_person(store)
    reply = make_reply(user, source="import")
    store.chats.add_replies([reply])
    acts, last = list[str](), list[str]()
    for value in (1, -1, 0):
        fields = thumb_preference(reply, value, POPULATION) if value else None
        last = [store.acts.add(user.id, "thumb", {"thumb": value}, [reply.id], BASE, fields, supersedes=last)[0].id]
        acts += last
        assert store.acts.label_count(user.id) == abs(value)
    assert [each.id for each in store.acts.live(user.id, "thumb")] == acts[-1:]
    assert store.chats.all_replies(user.id) == [], "nothing is learned from it any more"


def test_every_fifth_label_is_held_out_and_numbers_are_never_reused(store: Store) -> None:
    user = add_person(store)
    events = [thumb(store, user) for _ in range(12)]
    held = [preference.seq for preference, _ in store.acts.preferences(user.id) if preference.held_out]
    assert held == [HELD_OUT_EVERY, 2 * HELD_OUT_EVERY]
    store.acts.retract(user.id, events[-1])
    thumb(store, user)
    assert [preference.seq for preference, _ in store.acts.preferences(user.id)][-1] == 13
    assert store.acts.label_range(user.id) == (1, 13)
    assert store.acts.labels_after(user.id, 10) == 2


def test_corrections_are_no_labels(store: Store) -> None:
    user = add_person(store)
    fields = thumb_preference(make_reply(user), 1, POPULATION) | {"kind": "correction", "value": 1.0}
    _, total = store.acts.add(user.id, "correction", {"name": "length", "weight": 0.5}, [], BASE, fields)
    assert total == 0 and store.acts.label_range(user.id) == (1, 1), "an update learns from it all the same"
    assert len(store.acts.preferences(user.id)) == 1


# ---- once ---------------------------------------------------------------------------------------------------------


def test_a_request_sent_twice_counts_once(store: Store) -> None:
    user = add_person(store)
    for _ in range(2):
        with store.acts.once(user.id, "key", "hash") as answer:
            if answer is None:
                answer = {"feedback_id": thumb(store, user), "labels": 1, "head_ms": 3.5}
                store.acts.remember(user.id, "key", "hash", answer)
    assert answer["head_ms"] == 3.5
    assert store.acts.label_count(user.id) == 1
    with pytest.raises(Conflict, match="different request"), store.acts.once(user.id, "key", "other"):
        pass
    other = add_person(store, "bob")
    with store.acts.once(other.id, "key", "other") as answer:
        assert answer is None, "keys are everybody's own"


def test_a_crash_after_the_act_does_not_double_it(store: Store) -> None:
    user = add_person(store)
    with pytest.raises(KeyboardInterrupt), store.acts.once(user.id, "key", "hash"):
        events = [thumb(store, user), thumb(store, user)]
        raise KeyboardInterrupt
    with store.acts.once(user.id, "key", "hash") as answer:
        assert answer is not None
        assert answer["feedback_ids"] == events and answer["feedback_id"] == events[0] and answer["labels"] == 2
    thumb(store, user)
    assert store.acts.remembered(user.id, "key", "hash") == answer, "acts after the block have nothing to do with it"


def test_a_failed_act_leaves_the_key_unused(store: Store) -> None:
    user = add_person(store)
    with pytest.raises(ZeroDivisionError), store.acts.once(user.id, "key", "hash"), store.database.transaction():
        thumb(store, user)
        _ = 1 / 0
    with store.acts.once(user.id, "key", "hash") as answer:
        assert answer is None
        thumb(store, user)
    assert store.acts.label_count(user.id) == 1


def test_of_two_processes_with_one_key_one_acts(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "mynah.db"), Store(tmp_path / "mynah.db")
    user = add_person(here)
    with here.acts.once(user.id, "key", "hash") as answer:
        assert answer is None
        with there.acts.once(user.id, "key", "hash") as other:  # looked before the first one acted
            assert other is None
            thumb(there, user)
        with pytest.raises(Conflict, match="faster"):
            thumb(here, user)
    assert here.acts.label_count(user.id) == 1
    here.close()
    there.close()


# ---- whose is it --------------------------------------------------------------------------------------------------


def test_what_is_somebody_elses_is_not_found(store: Store) -> None:
    ada, bob = add_person(store), add_person(store, "bob")
    event = thumb(store, ada)
    (reply,) = store.chats.all_replies(ada.id)
    conversation = store.chats.start(ada.id, "Hello")
    update = store.versions.queue(ada.id, BASE, "asked", 1, None, (1, 10), {})
    store.versions.add(make_version(ada, 1), activate=True, update_state="promoted")
    key = store.people.add_key(ada.id, "hash", "my…ab")
    tries = [
        lambda who: store.acts.event(who, event),
        lambda who: store.acts.retract(who, event),
        lambda who: store.chats.replies(who, [reply.id]),
        lambda who: store.chats.conversation(who, conversation.id),
        lambda who: store.chats.rename(who, conversation.id, "Mine"),
        lambda who: store.chats.remove(who, conversation.id),
        lambda who: store.versions.update(who, update.id),
        lambda who: store.versions.version(who, 1),
        lambda who: store.versions.activate(who, BASE, 1),
        lambda who: store.people.remove_key(key.id, who),
    ]
    for number, attempt in enumerate(tries):
        with pytest.raises(NotFound):
            attempt(bob.id)
        attempt(ada.id)  # the same call works for whom it belongs to
        if number == 5:
            conversation = store.chats.start(ada.id, "Hello")


def test_no_such_thing_reads_the_same_as_somebody_elses(store: Store) -> None:
    ada, bob = add_person(store), add_person(store, "bob")
    reply = make_reply(ada)
    store.chats.add_replies([reply])
    with pytest.raises(NotFound) as theirs:
        store.chats.replies(bob.id, [reply.id])
    store.people.remove(ada.id)
    with pytest.raises(NotFound) as absent:
        store.chats.replies(bob.id, [reply.id])
    assert str(theirs.value) == str(absent.value)


# ---- people -------------------------------------------------------------------------------------------------------


def test_removal_leaves_no_row_and_no_text_behind(tmp_path: Path) -> None:
    path = tmp_path / "mynah.db"
    store = Store(path)
    add_person(store, "root", admin=True)
    ada, bob = add_person(store, admin=True), add_person(store, "bob")
    secret = "the-canary-in-the-coal-mine"
    for user in (ada, bob):
        conversation = store.chats.start(user.id, secret)
        reply = make_reply(user, secret, conversation_id=conversation.id)
        store.chats.add_replies([reply])
        store.chats.add_turn(conversation.id, secret, reply)
        with store.acts.once(user.id, "key", "hash"):
            thumb(store, user)
        store.people.add_session(f"token-{user.name}", user.id, "2999-01-01T00:00:00Z")
        store.people.add_key(user.id, f"hash-{user.name}", "my…")
        store.people.set(user.id, "asks", "off")
        store.versions.queue(user.id, BASE, "asked", 1, None, (1, 1), {})
        store.versions.add(
            make_version(user, store.versions.next_number(user.id)), activate=True, update_state="promoted"
        )
        store.versions.add_example(user.id, 1, Example(secret, secret, secret, 1, now()))
        store.trials.note(user.id, replace(begun(1, None), words=secret))
        other = make_reply(user, secret)
        store.chats.add_replies([other])
        store.trials.add_duel(user.id, Duel(1, reply.id, other.id, now()))
    both = store.commons.stamp([ada.id, bob.id])
    assert store.commons.keep("p", Common(np.full((2, 4), 7.25), 0.5, 0.1), both)
    tables = [row["name"] for row in store.database.rows("select name from sqlite_master where type = 'table'")]

    def rows_of(user: User) -> dict[str, int]:
        owned = [
            t for t in tables if any(c["name"] == "user_id" for c in store.database.rows(f"pragma table_info({t})"))
        ]
        sql = "select count(*) from {} where user_id = ?"
        return {table: store.database.value(sql.format(table), [user.id]) for table in owned}

    before = rows_of(bob)
    assert min(before.values()) > 0, f"the test fills every table: {before}"
    store.people.remove(bob.id)
    gone = store.people.remove(ada.id)
    assert not any(rows_of(ada).values()) and not any(rows_of(bob).values())
    for table in ("messages", "feedback_replies"):
        assert store.database.value(f"select count(*) from {table}") == 0
    assert gone["messages"] == 2 and gone["replies"] == 3 and gone["versions"] == 1
    with pytest.raises(NotFound):
        store.people.get(ada.id)
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert secret.encode() not in kept and np.full(4, 7.25).tobytes() not in kept
    store.close()


def test_the_last_admin_stays_and_a_name_that_returns_is_somebody_new(store: Store) -> None:
    root = add_person(store, "root", admin=True)
    with pytest.raises(Conflict, match="last admin"):
        store.people.remove(root.id)
    second = add_person(store, "second", admin=True)
    store.people.remove(root.id)
    again = add_person(store, "root")
    assert again.id != root.id and store.acts.events(again.id) == []
    with pytest.raises(Conflict):
        add_person(store, "root")
    with pytest.raises(Conflict):
        store.people.remove(second.id)


def test_sessions_and_keys_end(store: Store) -> None:
    user = add_person(store)
    store.people.add_session("old", user.id, "2001-01-01T00:00:00Z")
    store.people.add_session("now", user.id, "2999-01-01T00:00:00Z")
    store.people.add_session("other", user.id, "2999-01-01T00:00:00Z")
    assert store.people.session_user("old") is None
    assert store.people.session_user("now") == user
    store.people.set_password(user.id, "new hash", keep_session="now")
    assert store.people.session_user("other") is None and store.people.session_user("now") == user
    store.people.end_session("now")
    assert store.people.session_user("now") is None
    key = store.people.add_key(user.id, "kh", "my…")
    assert store.people.key_user("kh") == user
    (listed,) = store.people.keys(user.id)
    assert listed.used_at is not None and listed.hint == "my…"
    store.people.remove_key(key.id)
    assert store.people.key_user("kh") is None


def test_a_version_that_was_forgotten_keeps_no_example(store: Store) -> None:
    user = add_person(store)
    store.versions.add(make_version(user, 1), activate=True, update_state="promoted")
    example = Example("Why?", "Because.", "Since you ask.", 1, now())
    store.versions.add_example(user.id, 1, example)
    store.versions.forget(user.id, 1)
    with pytest.raises(NotFound, match="no version v1"):
        store.versions.add_example(user.id, 1, example)
    assert store.versions.examples(user.id) == {}


# ---- conversations ------------------------------------------------------------------------------------------------


def test_a_conversation_keeps_its_turns_in_order(store: Store) -> None:
    user = add_person(store)
    talk = store.chats.start(user.id, "First", system="Be kind.", learn=False)
    replies = [make_reply(user, text, conversation_id=talk.id) for text in ("one", "two", "two again")]
    store.chats.add_replies(replies)
    store.chats.add_turn(talk.id, "1?", replies[0])
    store.chats.add_turn(talk.id, "2?", replies[1])
    store.chats.show_instead(talk.id, replies[2])
    messages = store.chats.messages(talk.id)
    assert [m.content for m in messages] == ["1?", "one", "2?", "two again"]
    assert [m.position for m in messages] == [0, 1, 2, 3] and messages[3].reply_id == replies[2].id
    store.chats.rename(user.id, talk.id, "Renamed")
    assert store.chats.conversation(user.id, talk.id).title == "Renamed"
    newer = store.chats.start(user.id, "Second")
    assert [c.id for c in store.chats.conversations(user.id)] == [newer.id, talk.id]
    liked = thumb_preference(replies[0], 1, POPULATION)
    store.acts.add(user.id, "thumb", {"reply_id": replies[0].id, "thumb": 1}, [replies[0].id], BASE, liked)
    store.chats.remove(user.id, talk.id)
    assert store.chats.messages(talk.id) == []
    (kept,) = store.chats.all_replies(user.id)  # it taught something; the others went with the conversation
    assert (kept.id, kept.conversation_id) == (replies[0].id, None)


def test_own_prompts_are_what_may_be_learned_from(store: Store) -> None:
    user = add_person(store)
    chat = store.chats.start(user.id, "A chat")

    def ask(text: str, **changes: Any) -> Reply:
        reply = make_reply(user, prompt=[{"role": "user", "content": text}], **{"conversation_id": chat.id, **changes})
        store.chats.add_replies([reply])
        return reply

    ask("a")
    ask("b")
    ask("a")
    ask("private", learn=False)
    ask("edited", source="edit")
    assert own_prompts(store, user) == ["a", "b"]
    assert len(store.chats.own_prompts(user.id, 1)) == 1


def test_what_a_program_asked_is_an_own_prompt_while_something_is_said_about_it(store: Store) -> None:
    """A title or tags that another program asked for were nobody's words; what was clicked on there was read."""
    user = add_person(store)
    asked, title = (
        make_reply(user, prompt=[{"role": "user", "content": text}])
        for text in ("What is the sea?", "### Task: Generate a title")
    )
    store.chats.add_replies([asked, title])
    assert own_prompts(store, user) == []
    liked = thumb_preference(asked, 1, POPULATION)
    act, _ = store.acts.add(user.id, "thumb", {"reply_id": asked.id, "thumb": 1}, [asked.id], BASE, liked)
    assert own_prompts(store, user) == ["What is the sea?"]
    store.acts.retract(user.id, act.id)
    assert own_prompts(store, user) == []
    store.acts.add(user.id, "thumb", {"reply_id": asked.id, "thumb": 0}, [asked.id], BASE, None)
    assert own_prompts(store, user) == [], "a thumb that was only taken back says nothing"


def own_prompts(store: Store, user: User) -> list[str]:
    return [prompt[0]["content"] for prompt in store.chats.own_prompts(user.id, 10)]


def test_replies_come_in_the_order_asked(store: Store) -> None:
    user = add_person(store)
    made = [make_reply(user, str(i), token_ids=bytes([i])) for i in range(4)]
    store.chats.add_replies(made)
    asked = [made[2], made[0], made[3]]
    assert store.chats.replies(user.id, [reply.id for reply in asked]) == asked


def test_what_was_deleted_meanwhile_is_told_by_name(store: Store) -> None:
    """A reply that comes when its chat, or its person, is gone."""
    user = add_person(store)
    chat = store.chats.start(user.id, "Bees")
    reply = make_reply(user, conversation_id=chat.id)
    store.chats.remove(user.id, chat.id)
    with pytest.raises(NotFound, match="deleted meanwhile"):
        store.chats.add_replies([reply])
    assert store.chats.all_replies(user.id) == []
