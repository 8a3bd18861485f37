"""Small things that several tests of the policy need."""

from __future__ import annotations

import torch

from adapters.decoding import Generation, Sampling
from adapters.packing import Group
from adapters.policy import Policy
from adapters.rollout import roll_out

QUESTIONS = ("What do cats eat?", "Tell me about the sea, in two sentences.", "How do I boil an egg?")


def prompts(policy: Policy, count: int = len(QUESTIONS)) -> list[list[int]]:
    """A few prompts of different lengths."""
    return [policy.render([{"role": "user", "content": text}]) for text in QUESTIONS[:count]]


def replies(policy: Policy, *, copies: int = 2, tokens: int = 8, adapter: str | None = None) -> list[Group]:
    """Replies to the questions, ready to be learned from."""
    return roll_out(policy, prompts(policy), copies, Sampling(0.8, 1.0, tokens, 1), adapter=adapter)


def disturb(policy: Policy, adapter: str, seed: int, size: float = 0.02) -> None:
    """Give an adapter weights of its own, as training would."""
    random = torch.Generator().manual_seed(seed)
    state = policy.adapter_state(adapter)
    policy.set_adapter_state(
        adapter, {name: value + size * torch.randn(value.shape, generator=random) for name, value in state.items()}
    )


def write(policy: Policy, prompt: list[int], adapter: str | None, *, tokens: int = 6) -> list[int]:
    """The most likely reply, written alone."""
    batch = Generation([prompt], 1, Sampling(0.0, 1.0, tokens, 0), policy.renderer.end_ids, adapter=adapter)
    while not batch.done:
        policy.use(batch.adapter)
        batch.step(policy)
    return batch.replies[0]
