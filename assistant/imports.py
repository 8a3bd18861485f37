"""Preferences given elsewhere, as they come in: checked as a whole, so that nothing is kept of a faulty list.

    {"messages": [..], "replies": ["..", ".."], "ranking": [[0], [1]]}
    {"messages": [..], "replies": [".."], "thumb": 1}

Pure functions; learning.py keeps what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.rendering import ChatMessage
from assistant.messages import check_messages, check_text
from feedback.errors import InvalidInput
from feedback.labels import MAX_RANKED, check_tiers

MAX_BROUGHT = 1000  # preferences a call
_FIELDS = {"messages", "replies", "ranking", "thumb"}


@dataclass(frozen=True)
class Brought:
    """One preference: tiers of places in `texts`, best first, or else a thumb for the only text."""

    messages: list[ChatMessage]
    texts: list[str]
    tiers: list[list[int]]
    thumb: int


def check_brought(items: object) -> list[Brought]:
    """One preference or a list of them. Raises InvalidInput that names the place and what is wrong there."""
    listed = items if isinstance(items, list) else [items]
    if not 1 <= len(listed) <= MAX_BROUGHT:
        raise InvalidInput(f"There are {len(listed)} preferences; a call takes 1 to {MAX_BROUGHT}. Split the list.")
    brought = []
    for number, item in enumerate(listed):
        try:
            brought.append(_check_one(item))
        except InvalidInput as error:
            raise InvalidInput(f"preferences[{number}]: {error.message}", param=error.param) from error
    return brought


def _check_one(item: object) -> Brought:
    if not isinstance(item, Mapping):
        raise InvalidInput('a preference is an object: {"messages": [..], "replies": [..], "ranking": [[0], [1]]}.')
    if unknown := sorted(str(name) for name in set(item) - _FIELDS):
        raise InvalidInput(
            f"unknown field {min(map(str, unknown))[:40]!r}; a preference has {', '.join(sorted(_FIELDS))}."
        )
    if (item.get("ranking") is None) == (item.get("thumb") is None):
        raise InvalidInput("give either a ranking or a thumb.", param="ranking")
    messages = check_messages(item.get("messages"))
    replies = item.get("replies")
    if not isinstance(replies, list) or not 1 <= len(replies) <= MAX_RANKED:
        raise InvalidInput(f"replies must be a list of 1 to {MAX_RANKED} texts.", param="replies")
    texts = [check_text(text, f"replies[{place}]", "replies") for place, text in enumerate(replies)]
    if item.get("thumb") is not None:
        return Brought(messages, texts, [], _check_thumb(item["thumb"], len(texts)))
    return Brought(messages, texts, _check_ranking(item["ranking"], len(texts)), 0)


def _check_thumb(thumb: object, texts: int) -> int:
    if isinstance(thumb, bool) or thumb not in (1, -1):
        raise InvalidInput(f"thumb is {str(thumb)[:40]}; it can be 1 or -1.", param="thumb")
    if texts != 1:
        raise InvalidInput(f"a thumb is for one reply, not {texts}; give a ranking.", param="thumb")
    return 1 if thumb == 1 else -1


def _check_ranking(ranking: object, texts: int) -> list[list[int]]:
    """Tiers of places; the rules are those of any ranking."""
    if not isinstance(ranking, list) or not all(
        isinstance(tier, list) and all(isinstance(place, int) and not isinstance(place, bool) for place in tier)
        for tier in ranking
    ):
        raise InvalidInput("ranking must be a list of tiers of places in replies: [[1], [0, 2]].", param="ranking")
    tiers = check_tiers([[str(place) for place in tier] for tier in ranking])
    places = [[int(place) for place in tier] for tier in tiers]
    if wrong := [place for tier in places for place in tier if not 0 <= place < texts]:
        raise InvalidInput(f"ranking names reply {wrong[0]}; there are {texts}, counted from 0.", param="ranking")
    return places
