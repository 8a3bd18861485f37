"""The trash goes on emptying itself, whatever happens to one try."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest

from assistant.trash import Trash
from feedback.errors import NotSaved
from feedback.store import Store
from tests.assistant.serving import wait_for


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [NotSaved("The disk is full."), sqlite3.OperationalError("a defect")], ids=str)
def test_an_error_does_not_end_the_purging(store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    ada = store.people.add("ada", "ada", "hash")
    tries, purge = list[Sequence[str]](), store.chats.purge

    def fails_once(conversation_ids: Sequence[str]) -> int:
        tries.append(conversation_ids)
        if len(tries) == 1:
            raise error
        return purge(conversation_ids)

    trash = Trash(store, seconds=0.05)
    trash.start()
    monkeypatch.setattr(store.chats, "purge", fails_once)
    talk = store.chats.start(ada.id, "first")
    trash.put_away(ada, talk.id)
    wait_for(lambda: not store.chats.every_conversation(ada.id), 10)
    assert tries[:2] == [[talk.id], [talk.id]]
    trash.close()
