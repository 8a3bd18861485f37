"""The clicks behind a trait, in words, from acts in a store and pulls made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from assistant.evidence import MOST, beginning, clicks_behind
from assistant.learning import Learning
from assistant.profile import STRONGEST
from feedback.store import Store
from feedback.traits import TRAIT_NAMES
from feedback.types import FeedbackKind, User
from tests.assistant.conftest import Service
from tests.feedback.helpers import BASE, add_person, make_reply

LENGTH, EMOJI = TRAIT_NAMES.index("length"), TRAIT_NAMES.index("emoji")


def act(store: Store, user: User, kind: FeedbackKind, texts: list[str], **payload: Any) -> str:
    """An act about new replies with these texts; in the payload their places become ids."""
    replies = [make_reply(user, text) for text in texts]
    store.chats.add_replies(replies)
    ids = [reply.id for reply in replies]
    if "ranking" in payload:
        payload["ranking"] = [[ids[place] for place in tier] for tier in payload["ranking"]]
    elif kind == "edit":
        payload |= {"edited_reply_id": ids[0], "reply_id": ids[1]}
    elif kind == "thumb":
        payload["reply_id"] = ids[0]
    return store.acts.add(user.id, kind, payload, ids, BASE, None)[0].id


def test_clicks_come_with_what_moved_most_first_and_in_words(store: Store) -> None:
    user = add_person(store)
    acts = [
        act(store, user, "thumb", ["Up."], thumb=1),
        act(store, user, "thumb", ["Down."], thumb=-1),
        act(store, user, "ranking", ["Good.", "Bad."], ranking=[[0], [1]], verdict=None),
        act(store, user, "ranking", ["Best.", "Middle.", "Worst."], ranking=[[0], [1], [2]], verdict=None),
        act(store, user, "ranking", ["Same.", "Equal."], ranking=[[0, 1]], verdict=None),
        act(store, user, "ranking", ["Awful.", "Poor."], ranking=[[0, 1]], verdict="neither"),
        act(store, user, "edit", ["As it should be.", "As it was."], edit="As it should be."),
        act(store, user, "correction", [], name="length", weight=-1.0),
    ]
    pulls = np.zeros((8, len(TRAIT_NAMES) + 5))
    pulls[:, LENGTH] = np.array([0.1, 0.2, -0.3, 0.001, 0, 0, 0, 2]) * STRONGEST
    pulls[:, EMOJI] = np.array([0, 0, 0, 0.1, 0.2, -0.3, 0, 0]) * STRONGEST
    pulls[6, TRAIT_NAMES.index("code")] = STRONGEST
    behind = clicks_behind(store, user, acts, pulls)
    told = {
        name: [(click.what, click.liked, click.disliked, round(click.moved, 3)) for click in clicks]
        for name, clicks in behind.items()
        if clicks
    }
    assert told == {
        "length": [
            ("a choice", "Good.", "Bad.", -0.3), ("a thumb down", "", "Down.", 0.2), ("a thumb up", "Up.", "", 0.1),
        ],
        "emoji": [
            ("none was good", "", "Awful.", -0.3), ("a tie", "Same.", "", 0.2), ("3 in order", "Best.", "Worst.", 0.1),
        ],
        "code": [("your own words", "As it should be.", "As it was.", 1.0)],
    }  # fmt: skip
    assert [click.feedback_id for click in behind["length"]] == [acts[2], acts[1], acts[0]]
    assert clicks_behind(store, user, [], np.zeros((0, len(TRAIT_NAMES))))["length"] == []


def test_a_beginning_is_one_line() -> None:
    assert beginning("A\nshort  one.") == "A short one."
    assert beginning("word " * 100).endswith("word…") and len(beginning("word " * 100)) < 92


def test_what_is_taken_back_is_behind_nothing(service: Service) -> None:
    learning: Learning = service.learning
    items = [
        {
            "messages": [{"role": "user", "content": f"Tell me about the number {number}."}],
            "replies": [f"{number} is fine.", f"The number {number} is a number that follows {number - 1}, " * 4],
            "ranking": [[0], [1]],
        }
        for number in range(4)
    ]
    acks = learning.bring(service.ada, items)
    strongest = max(learning.profile(service.ada), key=lambda view: abs(view.weight))
    clicks = learning.behind(service.ada)[strongest.name]
    assert len(clicks) == MOST and all(click.moved * strongest.weight > 0 for click in clicks)
    assert clicks[0].liked.endswith("is fine.") and clicks[0].disliked.startswith("The number")
    learning.retract(service.ada, clicks[0].feedback_id)
    after = {view.name: view.weight for view in learning.profile(service.ada)}[strongest.name]
    assert abs(after) < abs(strongest.weight), "without a click for it the taste is weaker"
    for ack in acks:
        if ack.feedback_id != clicks[0].feedback_id:
            learning.retract(service.ada, ack.feedback_id)
    assert not any(learning.behind(service.ada).values())
