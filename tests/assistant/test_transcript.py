"""A conversation as a file: Markdown to read, JSON with all branches, and only for whom it belongs to."""

from __future__ import annotations

import pytest

from assistant.transcript import as_markdown, as_record, file_name
from feedback.errors import NotFound
from feedback.store import Store
from tests.feedback.helpers import add_person, make_reply


def test_both_forms(store: Store) -> None:
    ada, bob = add_person(store, "Ada"), add_person(store, "bob")
    talk = store.chats.start(ada.id, "Bees", system="Be kind.")
    replies = [
        make_reply(ada, text, conversation_id=talk.id, arm=arm, version=version)
        for text, arm, version in (("Nectar.", "base", None), ("Pollen.", "adapter+rerank", 2))
    ]
    store.chats.add_replies(replies)
    store.chats.add_turn(talk.id, "What do bees eat?", replies[0])
    (first, answer) = store.chats.messages(talk.id)
    store.chats.add_turn(talk.id, "What do 蜜蜂 eat?", replies[1], beside=first)
    assert as_markdown(store, ada, talk.id) == (
        f"# Bees\n\n*{talk.created_at[:10]}*\n\n**How to answer:** Be kind.\n\n"
        "## Ada\n\nWhat do 蜜蜂 eat?\n\n## Mynah (adapter+rerank, v2)\n\nPollen.\n"
    )
    record = as_record(store, ada, talk.id)
    assert [message["content"] for message in record["messages"]] == [
        "What do bees eat?", "Nectar.", "What do 蜜蜂 eat?", "Pollen.",
    ]  # fmt: skip
    assert record["shown"] == [message["id"] for message in record["messages"][2:]]
    assert record["messages"][1]["parent_id"] == first.id and record["messages"][1]["arm"] == "base"
    assert record["messages"][3]["version"] == 2 and record["system"] == "Be kind." and record["title"] == "Bees"
    assert "user_id" not in record and answer.id == record["messages"][1]["id"]
    for form in (as_markdown, as_record):
        with pytest.raises(NotFound):
            form(store, bob, talk.id)


def test_a_reply_that_is_gone_leaves_its_text(store: Store) -> None:
    ada = add_person(store)
    talk = store.chats.start(ada.id, "")
    reply = make_reply(ada, "Nectar.", conversation_id=talk.id)
    store.chats.add_replies([reply])
    store.chats.add_turn(talk.id, "What do bees eat?", reply)
    with store.database.transaction() as db:
        db.execute("delete from replies")
    assert as_markdown(store, ada, talk.id).endswith("## Mynah\n\nNectar.\n")
    assert as_record(store, ada, talk.id)["messages"][1]["reply_id"] is None


def test_file_names() -> None:
    assert file_name("What do bees eat?", "md") == "What do bees eat.md"
    assert file_name("../../etc/passwd\n", "md") == "etc passwd.md"
    assert file_name("我想看电影", "json") == "我想看电影.json"
    assert file_name("?!", "md") == "chat.md" and len(file_name("x" * 300, "md")) == 63
