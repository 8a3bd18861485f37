"""Heads are those of the event log, also where old acts fade: nothing that was kept on the way shows."""

from __future__ import annotations

import random

import numpy as np

from assistant.heads import Heads
from feedback.labels import ranking_preference
from feedback.store import Store
from feedback.types import User
from tests.feedback.helpers import BASE, POPULATION, add_person, make_reply
from tests.feedback.test_reward_head import digest

SHORT = ("Fine.", "Yes, it is.", "A boat is at sea.", "Nobody knows that yet.")
LONG = tuple(f"{text} {'The sea is wide and the night is long, and so is this answer. ' * 3}" for text in SHORT)


def click(store: Store, user: User, better: str, worse: str) -> str:
    """One text was preferred to another; the event's id."""
    replies = [make_reply(user, text) for text in (better, worse)]
    store.chats.add_replies(replies)
    names = [reply.id for reply in replies]
    fields = ranking_preference(replies, [[name] for name in names], POPULATION)
    return store.acts.add(user.id, "ranking", {}, names, BASE, fields)[0].id


def test_a_person_who_turns_is_followed_and_every_way_to_the_head_gives_the_same_bits(store: Store) -> None:
    """Click by click, all at once after a restart, and with a click taken back that had counted."""
    user, heads, chosen = add_person(store), Heads(store, BASE, POPULATION), random.Random(4)
    events = list[str]()

    def clicks(better: tuple[str, ...], worse: tuple[str, ...], count: int) -> None:
        for _ in range(count):
            events.append(click(store, user, chosen.choice(better), chosen.choice(worse)))
            heads.refit(user.id)

    def new() -> Heads:
        return Heads(store, BASE, POPULATION)

    clicks(SHORT, LONG, 40)
    assert not heads.fades(user.id)
    clicks(LONG, SHORT, 20)
    assert heads.fades(user.id) and new().fades(user.id)
    rows = POPULATION.features([SHORT[0], LONG[0]], np.zeros((2, POPULATION.latents)))
    short, long = heads.head(user.id).score(rows)[0]
    assert long > short, "the newest clicks say so"
    assert digest(heads.head(user.id)) == digest(new().head(user.id))
    for place in (35, 5, 44):
        store.acts.retract(user.id, events[place])
        assert digest(heads.refit(user.id)) == digest(new().head(user.id))
    names, moved = heads.pulls(user.id)
    length = np.abs(moved[:, POPULATION.names.index("length")])
    assert len(names) == 57 and length[-10:].mean() > 2 * length[:10].mean(), "older clicks pull less"
    split, again = heads.split(user.id), new().split(user.id)
    assert (split.full.labels, split.train.labels + split.judge.labels) == (57, 57)
    assert digest(split.full) == digest(heads.head(user.id)) and digest(split.train) == digest(again.train)
    assert split.foretold == again.foretold
