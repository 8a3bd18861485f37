"""What is behind a trait: the clicks that moved it most, in a form that people recognize and can take back.

How far a click moved a trait comes from the head (`pulls` in feedback/reward_head.py); here it gets its words: what was
said, and how the replies begin. Corrections are left out on purpose: the slider shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assistant.profile import STRONGEST
from feedback.store import Store
from feedback.traits import TRAIT_NAMES
from feedback.types import Feedback, Reply, User

MOST = 3  # clicks shown for a trait
LEAST, LEAST_SHARE = 0.0005, 0.1  # of the scale from -1 to 1, and of what moved the trait most: less says nothing
BEGINNING = 90  # characters


@dataclass(frozen=True)
class Click:
    """One act behind a trait. moved: how far, on the scale from -1 to 1; what: what was said, as a phrase.

    liked, disliked: how the replies begin, "" where there is none; at: when, ISO 8601.
    """

    feedback_id: str
    moved: float
    what: str
    liked: str
    disliked: str
    at: str


def clicks_behind(
    store: Store, user: User, feedback_ids: Sequence[str], pulls: NDArray[np.float64]
) -> dict[str, list[Click]]:
    """By trait, what moved it most first. pulls: (N, D) in the head's units, as `Heads.pulls` gives them."""
    events = {event.id: event for event in store.acts.events(user.id)}
    clicks = [row for row, feedback_id in enumerate(feedback_ids) if events[feedback_id].kind != "correction"]
    moved = pulls[clicks, : len(TRAIT_NAMES)] / STRONGEST
    chosen: dict[str, list[tuple[Feedback, float]]] = {}
    for place, name in enumerate(TRAIT_NAMES):
        order = np.argsort(-np.abs(moved[:, place]), kind="stable")[:MOST]
        found = [(events[feedback_ids[clicks[row]]], float(moved[row, place])) for row in order]
        least = max(LEAST, LEAST_SHARE * abs(found[0][1])) if found else LEAST
        chosen[name] = [(event, by) for event, by in found if abs(by) >= least]
    named = {reply_id for found in chosen.values() for event, _ in found for reply_id in _replies_of(event)}
    replies = {reply.id: reply for reply in store.chats.replies(user.id, sorted(named))}
    return {name: [_click(event, by, replies) for event, by in found] for name, found in chosen.items()}


def _replies_of(event: Feedback) -> list[str]:
    """The replies that are shown for an act: the best and the worst of a ranking."""
    payload = event.payload
    if event.kind == "edit":
        return [payload["edited_reply_id"], payload["reply_id"]]
    if event.kind == "thumb":
        return [payload["reply_id"]]
    if event.kind == "ranking":
        return [payload["ranking"][0][0], payload["ranking"][-1][-1]]
    return []


def _click(event: Feedback, moved: float, replies: dict[str, Reply]) -> Click:
    texts = [beginning(replies[reply_id].text) for reply_id in _replies_of(event)]
    what, liked, disliked = "", "", ""
    if event.kind == "thumb":
        up = event.payload["thumb"] > 0
        what, liked, disliked = ("a thumb up", texts[0], "") if up else ("a thumb down", "", texts[0])
    elif event.kind == "edit":
        what, liked, disliked = "your own words", texts[0], texts[1]
    elif event.payload["verdict"] == "neither":
        what, disliked = "none was good", texts[0]
    elif len(event.payload["ranking"]) == 1:
        what, liked = "a tie", texts[0]
    else:
        count = sum(len(tier) for tier in event.payload["ranking"])
        what, liked, disliked = ("a choice" if count == 2 else f"{count} in order"), texts[0], texts[1]
    return Click(event.id, moved, what, liked, disliked, event.created_at)


def beginning(text: str) -> str:
    """How a text begins, in one line."""
    line = " ".join(text[: 4 * BEGINNING].split())
    return line if len(line) <= BEGINNING else line[:BEGINNING].rsplit(" ", 1)[0] + "…"
