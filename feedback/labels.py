"""From what people did to what the head learns: thumbs, rankings and edits become preferences in feature space.

The event's payload is what the person said, word for word, and everything the head needs can be made from it again:

    thumb        {"reply_id", "thumb", "reasons": [..], "comment"}
    ranking      {"ranking": tiers of ids, "verdict", "comment"}
    edit         {"reply_id", "edit", "edited_reply_id"}
    correction   {"name", "weight"}

Reasons and comments stay words: they are shown again and exported, and no head guesses at their meaning.

Also left out on purpose: guesses from silence (reading time, copying). Only what a person says counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from feedback.errors import InvalidInput
from feedback.population import Population
from feedback.reward_head import Act, Array
from feedback.store import Store
from feedback.traits import TRAIT_NAMES
from feedback.types import Feedback, Preference, Reply

MAX_RANKED = 12  # what a fit costs grows with the cube


def reply_features(replies: Sequence[Reply], population: Population) -> Array:
    """Feature rows of stored replies, (N, D)."""
    latents = np.zeros((len(replies), population.latents))
    for row, reply in enumerate(replies):
        kept = np.frombuffer(reply.latent, dtype=np.float64)
        if len(kept) == population.latents:
            latents[row] = kept
    return population.features([reply.text for reply in replies], latents)


def of_base(replies: Sequence[Reply], base_id: str) -> list[Reply]:
    """Replies as they are learned from on a base: without the latent features of another one, which mean nothing."""
    return [reply if reply.base_id == base_id else replace(reply, latent=b"") for reply in replies]


def thumb_preference(reply: Reply, thumb: int, population: Population) -> dict[str, Any]:
    """A thumb up (1) or down (-1)."""
    return _preference("thumb", reply_features([reply], population), population, thumb=thumb)


def ranking_preference(
    replies: Sequence[Reply], tiers: Sequence[Sequence[str]], population: Population
) -> dict[str, Any]:
    """A ranking of replies to one prompt; `tiers` holds their ids, best first."""
    place = {reply.id: row for row, reply in enumerate(replies)}
    rows = [[place[reply_id] for reply_id in tier] for tier in tiers]
    return _preference("ranking", reply_features(replies, population), population, tiers=rows)


def neither_preference(replies: Sequence[Reply], population: Population) -> dict[str, Any]:
    """All of them are bad: a thumb down for each, still one act."""
    return _preference("thumb", reply_features(replies, population), population, thumb=-1)


def edit_preference(original: Reply, edited: Reply, population: Population) -> dict[str, Any]:
    """The text as it should have been beats the original."""
    return _preference("ranking", reply_features([edited, original], population), population, tiers=[[0], [1]])


def correction_preference(name: str, level: float, population: Population) -> dict[str, Any]:
    """The person set a trait's weight by hand; `level` is in the head's units."""
    return _preference("correction", population.trait_row(name), population, value=level)


def act_of(preference: Preference, population: Population, *, same_base: bool) -> Act:
    """A stored preference as the head takes it. Latent features of another base mean nothing and are left out.

    The features must be of this population: see `remake_preferences`.
    """
    assert preference.population == population.version, "made under another prior; remake_preferences comes first"
    features = np.frombuffer(preference.features, dtype=np.float64).reshape(preference.rows, -1)
    if not same_base:
        features = features.copy()
        features[:, len(population.names) - population.latents :] = 0.0
    return Act(preference.kind, features, preference.tiers, preference.thumb, preference.value)


def remake_preferences(store: Store, population: Population) -> int:
    """Measure anew what was kept under another version of the shared prior; how many preferences that were.

    Everything comes from the acts and the replies they are about. A correction of a trait that no longer exists
    corrects nothing from now on, but stays in the list of acts.
    """
    outdated = store.acts.outdated(population.version)
    made = []
    for event, preference in outdated:
        tiers = preference.tiers
        if event.kind == "correction":
            name = event.payload["name"]
            known = name in TRAIT_NAMES
            rows = population.trait_row(name) if known else np.zeros((1, len(population.names)))
        else:
            ((_, base_id),) = store.acts.preferences(event.user_id, [event.id])
            replies = of_base(store.chats.replies(event.user_id, _named(event)), base_id)
            rows = reply_features(replies, population)
            if tiers and event.kind == "ranking":  # rows now stand in its order; before, those of imports did not
                places = iter(range(len(rows)))
                tiers = tuple(tuple(next(places) for _ in tier) for tier in event.payload["ranking"])
        made.append((event.id, _preference(preference.kind, rows, population, tiers=tiers)))
    store.acts.replace_features(made)
    return len(made)


def _named(event: Feedback) -> list[str]:
    """Ids of the replies an act is about, in the order of its feature rows."""
    payload = event.payload
    if event.kind == "edit":
        return [payload["edited_reply_id"], payload["reply_id"]]
    return [payload["reply_id"]] if event.kind == "thumb" else [name for tier in payload["ranking"] for name in tier]


def check_tiers(ranking: object) -> list[list[str]]:
    """A ranking as it came from outside → tiers of reply ids. Raises InvalidInput naming what is wrong."""
    if not isinstance(ranking, list) or not all(
        isinstance(tier, list) and tier and all(isinstance(name, str) for name in tier) for tier in ranking
    ):
        raise InvalidInput(
            'ranking must be a list of tiers, each a list of reply ids: [["r2"], ["r1", "r3"]].', param="ranking"
        )
    named = [name for tier in ranking for name in tier]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise InvalidInput(f"The ranking names {twice} twice; name each reply once.", param="ranking")
    if not 2 <= len(named) <= MAX_RANKED:
        raise InvalidInput(
            f"The ranking names {len(named)} replies; it takes 2 to {MAX_RANKED}. For a single reply give a thumb.",
            param="ranking",
        )
    return [list(tier) for tier in ranking]


def _preference(
    kind: str,
    features: Array,
    population: Population,
    *,
    tiers: Sequence[Sequence[int]] = (),
    thumb: int = 0,
    value: float = 0.0,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "population": population.version,
        "tiers": [list(tier) for tier in tiers],
        "thumb": thumb,
        "value": value,
        "rows": len(features),
        "features": np.ascontiguousarray(features, dtype=np.float64).tobytes(),
    }
