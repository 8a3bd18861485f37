"""Rollouts: replies written by the policy (or the base) to a list of prompts, ready to be learned from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adapters.decoding import Generation, Sampling
from adapters.memory import give_back
from adapters.packing import Group
from adapters.policy import Policy

ROWS = 72  # replies written at once: more tokens a second than in smaller batches, memory for their caches allowing


def roll_out(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    copies: int,
    sampling: Sampling,
    *,
    adapter: str | None,
) -> list[Group]:
    """Write `copies` replies to every prompt, keeping trunk activations.

    Prompts of like length are written together, which saves padding; the result is in the order of the prompts. The
    seed of every batch follows from `sampling.seed` and its place, so the same call gives the same replies.
    """
    if not prompts:
        return []
    calls = math.ceil(len(prompts) / max(1, ROWS // copies))
    at_once = math.ceil(len(prompts) / calls)  # evenly: a small last batch takes nearly as long as a full one
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    groups: dict[int, Group] = {}
    for start in range(0, len(order), at_once):
        give_back()  # what training left: caches are about to take as much, in pages of their own
        chosen = order[start : start + at_once]
        drawn = Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed * 100_003 + start)
        batch = Generation(
            [prompts[i] for i in chosen],
            copies,
            drawn,
            policy.renderer.end_ids,
            adapter=adapter,
            keep_trunk=True,
        )
        policy.use(adapter)
        batch.run(policy)
        trunks = batch.trunks()
        for place, index in enumerate(chosen):
            mine = slice(place * copies, (place + 1) * copies)
            groups[index] = Group(
                list(prompts[index]),
                batch.replies[mine],
                batch.ended[mine],
                batch.prompt_trunks[place],
                trunks[mine],
            )
    return [groups[i] for i in range(len(prompts))]
