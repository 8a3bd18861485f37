"""Conversations on the real model: how they go on, whose they are, what is refused."""

from __future__ import annotations

import pytest

from assistant.asking import EVERY
from assistant.chat import NEWEST, title_of
from assistant.turn import Turn
from feedback.errors import Conflict, InvalidInput, NotFound
from tests.assistant.conftest import Service, start


def test_a_conversation_goes_on(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada, system="Be kind.")
    assert chat.history(ada, conversation.id) == []
    first = chat.send(ada, conversation.id, "What is the sea?", seed=1)
    assert chat.history(ada, conversation.id) == []  # not before it is finished
    first.replies()
    chat.send(ada, conversation.id, "And a lake?", seed=2).replies()
    history = chat.history(ada, conversation.id)
    assert [(m.role, m.position) for m in history] == [("user", 0), ("assistant", 1), ("user", 2), ("assistant", 3)]
    assert history[1].reply_id == first.reply_ids[0]
    (reply,) = service.store.chats.replies(ada.id, [str(history[3].reply_id)])
    assert reply.prompt == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is the sea?"},
        {"role": "assistant", "content": history[1].content},
        {"role": "user", "content": "And a lake?"},
    ]
    assert [c.title for c in chat.list(ada)] == ["What is the sea?"]
    assert chat.list(service.bob) == []


def test_another_reply_is_shown_instead_and_both_can_be_compared(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada)
    assert chat.candidates(ada, conversation.id) == []
    with pytest.raises(Conflict, match="empty"):
        chat.again(ada, conversation.id)
    first = chat.send(ada, conversation.id, "What is the sea?", seed=1, n=2)
    first.replies()
    second = chat.again(ada, conversation.id, seed=2)
    list(second.pieces())
    history = chat.history(ada, conversation.id)
    assert [m.reply_id for m in history] == [None, second.reply_ids[0]]
    assert [r.id for r in chat.candidates(ada, conversation.id)] == [*first.reply_ids, *second.reply_ids]
    service.learning.rank(ada, [[first.reply_ids[1]], second.reply_ids])
    chat.show(ada, conversation.id, first.reply_ids[1])
    assert chat.history(ada, conversation.id)[1].reply_id == first.reply_ids[1]
    edited = service.learning.edit(ada, first.reply_ids[1], "It is wet.").reply_id
    chat.show(ada, conversation.id, edited)
    assert chat.history(ada, conversation.id)[1].content == "It is wet."
    with pytest.raises(NotFound):
        chat.show(ada, conversation.id, start(service).reply_ids[0])


def test_one_thing_at_a_time_in_a_conversation(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada)
    turn = chat.send(ada, conversation.id, "What is the sea?", max_tokens=300)
    with pytest.raises(Conflict, match="still being written"):
        chat.send(ada, conversation.id, "Hello?")
    with pytest.raises(Conflict, match="still being written"):
        chat.again(ada, conversation.id)
    turn.stop()
    turn.parts[0].writing.result(timeout=30)  # the reader is gone: nobody asked for the replies
    chat.send(ada, conversation.id, "Hello?", max_tokens=2).replies()
    assert [m.role for m in chat.history(ada, conversation.id)] == ["user", "assistant"] * 2


def failed(service: Service, conversation_id: str, monkeypatch: pytest.MonkeyPatch, ask: bool = False) -> Turn:
    """A turn of Ada's whose step went wrong, with an error that has no name here."""

    def broken(*given: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(service.engine.policy, "step", broken)
        turn = service.chat.send(service.ada, conversation_id, "Are you there?", ask=ask)
        assert turn.parts[0].writing.wait(60)
    return turn


def test_a_conversation_goes_on_after_a_defect(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chat, ada = service.chat, service.ada
    talk, other = chat.open(ada).id, chat.open(ada).id
    chat.send(ada, talk, "What is the sea?", max_tokens=2).replies()
    first = chat.history(ada, talk)[0].id
    with pytest.raises(RuntimeError, match="no memory"):
        failed(service, talk, monkeypatch).replies()
    assert "over" not in caplog.text
    chat.send(ada, talk, "Hello?", max_tokens=2).replies()
    assert "A turn met a defect" in caplog.text and "no memory" in caplog.text
    assert [message.content for message in chat.history(ada, talk)][::2] == ["What is the sea?", "Hello?"]

    failed(service, talk, monkeypatch)
    chat.revise(ada, talk, first, "What is a lake?", max_tokens=2).replies()
    failed(service, talk, monkeypatch)
    chat.turn_to(ada, talk, first)
    assert chat.history(ada, talk)[0].id == first
    failed(service, talk, monkeypatch)
    chat.set_learn(ada, talk, False)

    failed(service, talk, monkeypatch)
    chat.send(ada, other, "Hello?", max_tokens=2).replies()
    assert talk not in chat._under_way, "nobody has to come back for it"

    failed(service, talk, monkeypatch)
    chat.remove(ada, talk)
    failed(service, other, monkeypatch)
    chat.discard(ada, other)
    assert chat.list(ada) == []


def test_after_a_defect_comparisons_are_asked_for_as_before(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    chat, ada = service.chat, service.ada
    for _ in range(EVERY):
        chat.asking.count(ada, False)
    assert failed(service, chat.open(ada).id, monkeypatch, ask=True).may_ask
    turn = chat.send(ada, chat.open(ada).id, "Hello?", max_tokens=2, ask=True)
    assert turn.may_ask and turn.replies()


def test_conversations_of_others_do_not_exist(service: Service) -> None:
    chat, bob = service.chat, service.bob
    conversation = chat.open(service.ada)
    for act in (
        lambda: chat.history(bob, conversation.id),
        lambda: chat.send(bob, conversation.id, "Hello"),
        lambda: chat.again(bob, conversation.id),
        lambda: chat.candidates(bob, conversation.id),
        lambda: chat.rename(bob, conversation.id, "Mine"),
        lambda: chat.remove(bob, conversation.id),
        lambda: chat.discard(bob, conversation.id),
        lambda: chat.archive(bob, conversation.id),
        lambda: chat.set_system(bob, conversation.id, "Be rude."),
        lambda: chat.set_learn(bob, conversation.id, False),
        lambda: chat.versions(bob, conversation.id),
        lambda: chat.revise(bob, conversation.id, "m_1", "Hello"),
        lambda: chat.turn_to(bob, conversation.id, "m_1"),
        lambda: chat.trash.bring_back(bob, conversation.id),
        lambda: start(service, bob, conversation_id=conversation.id),
    ):
        with pytest.raises(NotFound):
            act()


def test_renaming_and_removing(service: Service) -> None:
    chat, ada = service.chat, service.ada
    conversation = chat.open(ada)
    chat.rename(ada, conversation.id, " My sea ")
    turn = chat.send(ada, conversation.id, "What is the sea?", max_tokens=200)
    assert [c.title for c in chat.list(ada)] == ["My sea"]
    for bad, says in (("", "is empty"), ("x" * 300, "at most 200"), (3, "must be text")):
        with pytest.raises(InvalidInput, match=says):
            chat.rename(ada, conversation.id, bad)
    chat.remove(ada, conversation.id)  # while it is being written
    assert turn.done
    assert chat.list(ada) == []
    with pytest.raises(NotFound):
        chat.history(ada, conversation.id)
    chat.trash.bring_back(ada, conversation.id)
    assert [m.role for m in chat.history(ada, conversation.id)] == ["user", "assistant"]
    chat.discard(ada, conversation.id)
    assert service.store.chats.all_replies(ada.id) == []


def test_a_conversation_kept_out_of_learning_stays_so(service: Service) -> None:
    conversation = service.chat.open(service.ada, learn=False)
    turn = service.chat.send(service.ada, conversation.id, "What is the sea?", max_tokens=2)
    assert not turn.replies()[0].learn


def test_bad_messages_are_refused_and_nothing_is_kept(service: Service) -> None:
    conversation = service.chat.open(service.ada)
    for text, says in (("", "is empty"), ("x" * 100_000, "at most 32,000"), (None, "must be text")):
        with pytest.raises(InvalidInput, match=says):
            service.chat.send(service.ada, conversation.id, text)
    with pytest.raises(InvalidInput, match="n is 9"):
        service.chat.send(service.ada, conversation.id, "Hello", n=9)
    assert service.chat.history(service.ada, conversation.id) == []


@pytest.mark.parametrize("words", [20, 1600], ids=["many messages", "more than a request may hold"])
def test_a_very_long_conversation_still_goes_on(service: Service, words: int) -> None:
    conversation = service.chat.open(service.ada)
    service.chat.send(service.ada, conversation.id, "What is the sea?", max_tokens=1).replies()
    (shown,) = service.chat.candidates(service.ada, conversation.id)
    for number in range(NEWEST):
        service.store.chats.add_turn(conversation.id, f"Question {number}? " + "sea " * words, shown)
    turn = service.chat.send(service.ada, conversation.id, "And a lake?", max_tokens=2)
    assert turn.dropped > 0
    assert turn.replies()[0].text


def test_titles_are_the_start_of_the_first_message() -> None:
    assert title_of("  What is\n the sea? ") == "What is the sea?"
    assert title_of("word " * 40) == "word word word word word word word word word…"
    assert len(title_of("x" * 400)) <= 49
