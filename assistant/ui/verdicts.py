"""From presses in a comparison to tiers of replies, best first, and the quiet line after a click."""

from __future__ import annotations

import gradio as gr

from assistant.learning import Ack
from assistant.ui.events import pressed
from assistant.ui.language import counted, joined, told
from feedback.errors import InvalidInput


def voted(order: list[str], pick: str) -> list[list[str]]:
    """A vote between replies as tiers, best first."""
    if pick in ("tie", "neither"):
        return [order]
    return [order[:1], order[1:]] if pick == "left" else [order[1:], order[:1]]


def placed(order: list[str], event: gr.EventData) -> list[list[str]]:
    """Places given to replies ("1" is best; equal ones share a tier) as tiers, best first."""
    places = {reply_id: pressed(event, reply_id, "") for reply_id in order}
    chosen = sorted({place for place in places.values() if place})
    tiers = [[reply_id for reply_id in order if places[reply_id] == place] for place in chosen]
    if sum(len(tier) for tier in tiers) < 2:
        raise InvalidInput("Give at least two of the replies a place, then save the order.")
    return tiers


def learned(ack: Ack) -> str:
    """The quiet line after a click."""
    count = counted(ack.labels, "Learned from {count} click.", "Learned from {count} clicks.")
    return joined(count, told(ack.trial), told(ack.moved))
