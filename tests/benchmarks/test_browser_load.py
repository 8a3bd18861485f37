"""The long history holds what is searched for; the table tells what was reached."""

from __future__ import annotations

from benchmarks.browser_load import GOALS, table
from benchmarks.search_load import QUERIES, fill
from feedback.store import Store


def test_a_long_history_has_all_that_is_searched_for(store: Store) -> None:
    user = store.people.add("Rea", "rea", "")
    fill(store, user.id, conversations=3, messages=12)
    chats = store.chats.conversations(user.id)
    assert [len(store.chats.messages(chat.id)) for chat in chats] == [4, 4, 4]
    assert {query: bool(store.search.find(user.id, query)) for query in QUERIES} == dict.fromkeys(QUERIES, True)
    assert store.search.find(user.id, "a word that is nowhere") == []


def test_the_table_says_what_missed_its_goal() -> None:
    found = {**GOALS, "people": 30, "errors": 1, "page_s_worst": 3.0}
    lines = table(found).splitlines()[2:]
    assert [line.split()[-1] for line in lines] == ["yes", "yes", "yes", "yes", "no"]
    assert "3.00 s" in lines[0]
