"""Conversations beyond the next message: branches, search, a private chat, the trash, and being asked to compare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from assistant import turn as turn_module
from assistant.asking import EVERY
from assistant.trash import Trash
from assistant.writing import Draft
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.store import Store
from tests.assistant.conftest import Service
from tests.assistant.serving import wait_for

# ---- branches -----------------------------------------------------------------------------------------------------


def test_an_earlier_message_is_said_anew_and_both_branches_stay(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada, system="Be kind.")
    for text in ("What is the sea?", "And a lake?"):
        chat.send(ada, conversation.id, text, max_tokens=3).replies()
    old = chat.history(ada, conversation.id)
    (reply,) = chat.revise(ada, conversation.id, old[2].id, "And a river?", max_tokens=3).replies()
    assert [m["content"] for m in reply.prompt] == ["Be kind.", "What is the sea?", old[1].content, "And a river?"]
    shown = chat.history(ada, conversation.id)
    assert [m.content for m in shown] == ["What is the sea?", old[1].content, "And a river?", reply.text]
    versions = chat.versions(ada, conversation.id)
    assert [m.content for m in versions[old[2].id]] == ["And a lake?", "And a river?"]
    assert versions[old[2].id] == versions[shown[2].id] and len(versions[old[0].id]) == 1
    chat.turn_to(ada, conversation.id, old[3].id)
    assert chat.history(ada, conversation.id) == old
    chat.send(ada, conversation.id, "Thanks", max_tokens=2).replies()  # goes on where it is
    assert [m.content for m in chat.history(ada, conversation.id)][:5:2] == [
        "What is the sea?",
        "And a lake?",
        "Thanks",
    ]
    for wrong in (old[3].id, "m_absent", chat.open(ada).id):
        with pytest.raises(NotFound):
            chat.revise(ada, conversation.id, wrong, "Hello")
    with pytest.raises(InvalidInput):
        chat.revise(ada, conversation.id, old[2].id, " ")


def test_branches_stay_put_while_a_reply_is_written(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada)
    chat.send(ada, conversation.id, "What is the sea?", max_tokens=2).replies()
    (first, _) = chat.history(ada, conversation.id)
    chat.revise(ada, conversation.id, first.id, "What is a lake?", max_tokens=2).replies()
    turn = chat.send(ada, conversation.id, "And then?", max_tokens=300)
    for act in (
        lambda: chat.turn_to(ada, conversation.id, first.id),
        lambda: chat.revise(ada, conversation.id, first.id, "Hello"),
        lambda: chat.set_learn(ada, conversation.id, False),
    ):
        with pytest.raises(Conflict, match="still being written"):
            act()
    turn.stop()
    turn.replies()
    chat.turn_to(ada, conversation.id, first.id)


# ---- what can be changed, and found -------------------------------------------------------------------------------


def test_the_system_prompt_can_be_changed_later(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada)
    chat.set_system(ada, conversation.id, " Answer in verse. ")
    (reply,) = chat.send(ada, conversation.id, "What is the sea?", max_tokens=2).replies()
    assert reply.prompt[0] == {"role": "system", "content": "Answer in verse."}
    with pytest.raises(InvalidInput):
        chat.set_system(ada, conversation.id, "x" * 100_000)


def test_a_chat_kept_out_of_learning_later_takes_no_feedback(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada)
    (reply,) = chat.send(ada, conversation.id, "What is the sea?", max_tokens=2).replies()
    service.learning.thumb(ada, reply.id, 1)
    chat.set_learn(ada, conversation.id, False)
    with pytest.raises(Conflict):
        service.learning.thumb(ada, reply.id, -1)
    assert service.store.acts.label_count(ada.id) == 1  # what was said before stays said
    assert not chat.send(ada, conversation.id, "And now?", max_tokens=2).replies()[0].learn


def test_search(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada)
    chat.send(ada, conversation.id, "我想看电影", max_tokens=2).replies()
    assert [hit.conversation.id for hit in chat.search(ada, "电影")] == [conversation.id]
    assert chat.search(service.bob, "电影") == [] and chat.search(ada, '"*') == []
    chat.archive(ada, conversation.id)
    assert chat.list(ada) == [] and [c.id for c in chat.list(ada, archived=True)] == [conversation.id]
    assert chat.search(ada, "电影")[0].conversation.archived
    for wrong in ("", "x" * 5000, 3):
        with pytest.raises(InvalidInput):
            chat.search(ada, wrong)


# ---- the trash ----------------------------------------------------------------------------------------------------


def test_the_trash_empties_itself_also_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "mynah.db")
    ada = store.people.add("ada", "ada", "hash")
    trash = Trash(store, seconds=0.2)
    trash.start()
    first, second, third = (store.chats.start(ada.id, name) for name in ("first", "second", "third"))
    trash.put_away(ada, first.id)
    ((waiting, left),) = trash.waiting(ada)
    assert waiting.id == first.id and 0 < left <= 0.2
    trash.bring_back(ada, first.id)
    trash.put_away(ada, first.id)
    wait_for(lambda: len(store.chats.every_conversation(ada.id)) == 2, 10)
    with pytest.raises(NotFound, match="gone"):
        trash.bring_back(ada, first.id)
    trash.close()

    trash.put_away(ada, second.id)  # the server ends before its time has come
    time.sleep(0.3)
    store.close()
    store = Store(tmp_path / "mynah.db")
    assert len(store.chats.every_conversation(ada.id)) == 2
    again = Trash(store, seconds=60)
    again.start()
    assert [c.id for c, _ in again.waiting(ada)] == [second.id]  # not overdue by this clock: it can still come back
    again.close()
    again = Trash(store, seconds=0.2)
    again.start()
    assert [c.id for c in store.chats.every_conversation(ada.id)] == [third.id]
    again.close()
    store.close()


# ---- being asked --------------------------------------------------------------------------------------------------


def turns(service: Service, conversation: str, count: int) -> list[bool]:
    """So many turns that may ask; which of them did."""
    asked = []
    for _ in range(count):
        turn = service.chat.send(service.ada, conversation, "Tell me a long story.", max_tokens=16, ask=True)
        replies = turn.replies()
        assert len(turn.reply_ids) == len(replies)
        asked.append(turn.asked)
    return asked


@pytest.fixture
def curious(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any answer is worth asking for, whatever was drawn: how often Mynah asks is then a matter of its own rules."""

    def other(judge: object, first: Draft, drafts: Sequence[Draft], prompt: str) -> Draft:
        return next(draft for draft in drafts if draft is not first)

    monkeypatch.setattr(turn_module.Judge, "worth_asking", other)


def test_one_turn_in_five_at_most_asks_with_and_without_labels(service: Service, curious: None) -> None:
    conversation = service.chat.open(service.ada).id
    asked = turns(service, conversation, 6)
    assert asked == [False] * (EVERY - 1) + [True, False]
    (reply,) = service.chat.send(service.ada, conversation, "Hello", max_tokens=4).replies()
    service.learning.thumb(service.ada, reply.id, 1)
    assert service.chat.served(service.ada)[0] == "rerank"
    for _ in range(EVERY):
        service.chat.asking.count(service.ada, False)
    turn = service.chat.send(service.ada, conversation, "Tell me a long story.", max_tokens=16, ask=True)
    replies = turn.replies()
    assert turn.asked and len(replies) == 2 and replies[0].text != replies[1].text
    history = service.chat.history(service.ada, conversation)
    assert history[-1].reply_id == replies[0].id  # the better one is shown to whoever does not answer
    service.learning.rank(service.ada, [[replies[1].id], [replies[0].id]])


def test_it_never_asks_in_private_nor_whoever_does_not_want_it_nor_twice_at_once(
    service: Service, curious: None
) -> None:
    chat, ada = service.chat, service.ada
    for _ in range(EVERY):
        chat.asking.count(ada, False)
    private, talk, other = chat.open(ada, learn=False).id, chat.open(ada).id, chat.open(ada).id
    assert turns(service, private, 1) == [False]
    chat.asking.want(ada, False)
    assert turns(service, talk, 1) == [False] and not chat.asking.wanted(ada)
    chat.asking.want(ada, True)
    plain = chat.send(ada, talk, "Hello", max_tokens=2)
    assert not plain.may_ask and len(plain.replies()) == 1  # the page did not let it
    first = chat.send(ada, talk, "Tell me a long story.", max_tokens=16, ask=True)
    second = chat.send(ada, other, "Tell me a long story.", max_tokens=16, ask=True)
    assert first.may_ask and not second.may_ask
    assert len(first.replies()) == 2 and len(second.replies()) == 1


def test_it_does_not_ask_when_the_answer_would_teach_too_little(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_module, "LEAST_BITS", 1.0)
    assert turns(service, service.chat.open(service.ada).id, EVERY + 2) == [False] * (EVERY + 2)


def test_a_stopped_turn_does_not_ask(service: Service, curious: None) -> None:
    chat, ada = service.chat, service.ada
    for _ in range(EVERY):
        chat.asking.count(ada, False)
    turn = chat.send(ada, chat.open(ada).id, "Tell me a long story.", max_tokens=300, ask=True)
    next(turn.pieces())
    turn.stop()
    turn.replies()
    assert not turn.asked
