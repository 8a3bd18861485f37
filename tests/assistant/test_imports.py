"""Preferences brought along: they teach like clicks, and one bad item keeps all of them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assistant.imports import MAX_BROUGHT
from feedback.errors import InvalidInput
from feedback.labels import remake_preferences
from tests.assistant.conftest import Service, said
from tests.assistant.test_learning import LONG, SHORT, kept, taste


def brought(**changes: Any) -> dict[str, Any]:
    return {"messages": said("What is the sea?"), "replies": [LONG, SHORT], "ranking": [[1], [0]], **changes}


def test_preferences_from_elsewhere_teach(service: Service) -> None:
    learning, ada = service.learning, service.ada
    (ack,) = learning.bring(ada, brought())
    assert ack.labels == 1
    assert taste(learning, ada) > 0
    thumb = {"messages": said("Hello"), "replies": [SHORT], "thumb": 1}
    acks = learning.bring(ada, [brought(), thumb])
    assert [a.labels for a in acks] == [3, 3]
    assert len({a.feedback_id for a in acks}) == 2
    replies = service.store.chats.all_replies(ada.id)
    assert {reply.source for reply in replies} == {"import"}
    assert any(np.frombuffer(reply.latent).any() for reply in replies)
    assert learning.record(ada).arms == []  # no arm of ours wrote them
    assert learning.retract(ada, acks[0].feedback_id).labels == 2


def test_what_was_brought_means_the_same_under_another_prior(service: Service) -> None:
    """Whatever the order of its texts, and with one that the ranking leaves out."""
    learning, ada, store = service.learning, service.ada, service.store
    (first, second) = learning.bring(
        ada, [brought(), brought(replies=[LONG, "Nobody ranks this.", SHORT], ranking=[[2], [0]])]
    )
    before = store.acts.preferences(ada.id)
    with store.database.transaction() as db:  # as an earlier Mynah kept it: features in the order of the texts
        rows = np.frombuffer(before[0][0].features).reshape(2, -1)[::-1].tobytes()
        db.execute(
            "update preferences set population = 'older', tiers = '[[1], [0]]', features = ? where feedback_id = ?",
            [rows, first.feedback_id],
        )
        db.execute("update preferences set population = 'older' where feedback_id = ?", [second.feedback_id])
    assert remake_preferences(store, service.engine.population) == 2
    for (made, _), (was, _) in zip(store.acts.preferences(ada.id), before, strict=True):
        assert made.tiers == was.tiers == ((0,), (1,))
        np.testing.assert_allclose(np.frombuffer(made.features), np.frombuffer(was.features))
    for ack in (first, second):
        learning.retract(ada, ack.feedback_id)
    assert store.chats.all_replies(ada.id) == []


def test_one_bad_item_and_nothing_is_kept(service: Service) -> None:
    bad: list[tuple[Any, str]] = [
        ("x", "is an object"),
        (brought(ranking=[[0], [0]]), "twice"),
        (brought(ranking=[[0]]), "names 1"),
        (brought(ranking=[[0], [2]]), "names reply 2; there are 2"),
        (brought(ranking=[["0"], ["1"]]), "tiers of places"),
        (brought(thumb=1), "either a ranking or a thumb"),
        (brought(ranking=None), "either a ranking or a thumb"),
        (brought(ranking=None, thumb=1), "for one reply, not 2"),
        (brought(ranking=None, thumb=0, replies=[SHORT]), "can be 1 or -1"),
        (brought(replies=[SHORT, ""]), "is empty"),
        (brought(replies=[]), "1 to 12"),
        (brought(messages=[]), "must be a list"),
        (brought(messages=said("sea " * 3000)), "Shorten"),
        (brought(weight=2), "unknown field 'weight'"),
    ]
    for item, says in bad:
        with pytest.raises(InvalidInput, match=rf"preferences\[1\].*{says}"):
            service.learning.bring(service.ada, [brought(), item])
    with pytest.raises(InvalidInput, match=f"1 to {MAX_BROUGHT}"):
        service.learning.bring(service.ada, [brought()] * (MAX_BROUGHT + 1))
    assert service.store.acts.events(service.ada.id) == []
    assert service.store.chats.all_replies(service.ada.id) == []


def test_a_thousand_at_once_are_taken_and_the_head_keeps_up(service: Service) -> None:
    items = [
        brought(messages=said(f"What is {number}?"), replies=[f"{LONG} {number}", f"{number}."])
        for number in range(MAX_BROUGHT)
    ]
    acks = service.learning.bring(service.ada, items)
    assert acks[-1].labels == MAX_BROUGHT
    ack = service.learning.thumb(service.ada, kept(service, service.ada, SHORT), 1)
    assert ack.labels == MAX_BROUGHT + 1
    assert ack.head_ms < 2000  # 100 ms on an idle machine, see LOG.md; tests share theirs
