"""People, replies and acts for the tests of this package."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from feedback.labels import thumb_preference
from feedback.population import Population, load_population
from feedback.reward_head import Act, Array
from feedback.store import Store
from feedback.types import AdapterVersion, Reply, User, new_id, now

POPULATION = load_population(16)
BASE = "tiny@0123456789ab/nf4"


def add_person(store: Store, name: str = "ada", *, admin: bool = False) -> User:
    """A person with an account."""
    return store.people.add(name, name.casefold(), "hash", admin=admin)


def make_reply(user: User, text: str = "Fine. Thank you.", group: str = "g", **changes: object) -> Reply:
    """A reply that was not stored yet."""
    fields: dict[str, object] = {
        "id": new_id("r"),
        "user_id": user.id,
        "conversation_id": None,
        "group_id": group,
        "prompt": [{"role": "user", "content": "How are you?"}],
        "text": text,
        "arm": "base",
        "version": None,
        "base_id": BASE,
        "sampling": {"temperature": 0.8},
        "seed": 1,
        "token_ids": b"",
        "ended": True,
        "learn": True,
        "source": "chat",
        "latent": np.zeros(16).tobytes(),
        "created_at": now(),
    }
    return Reply(**(fields | changes))  # type: ignore[arg-type]


def make_version(user: User, number: int, **changes: Any) -> AdapterVersion:
    """A version that passed the gate."""
    made = AdapterVersion(user.id, number, BASE, "retired", None, None, 1, 20, 1, {}, {}, [], "0" * 64, now())
    return replace(made, **changes)


def thumb(store: Store, user: User, value: int = 1) -> str:
    """A thumb on a new reply; the event's id."""
    reply = make_reply(user)
    store.chats.add_replies([reply])
    fields = thumb_preference(reply, value, POPULATION)
    event, _ = store.acts.add(user.id, "thumb", {"reply_id": reply.id, "thumb": value}, [reply.id], BASE, fields)
    return event.id


def pair(better: Array, worse: Array) -> Act:
    """`better` was preferred to `worse`."""
    return Act("ranking", np.stack([better, worse]), ((0,), (1,)))


def ranking(rows: Array, *tiers: tuple[int, ...]) -> Act:
    """Rows of features in tiers, best first."""
    return Act("ranking", np.asarray(rows, dtype=float), tiers)


def reply_row(population: Population, text: str) -> Array:
    """Features of a text without latent ones, (D,)."""
    return population.features([text], np.zeros((1, population.latents)))[0]
