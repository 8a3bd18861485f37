"""The first long steps: what they do to the real policy, and how far they go."""

from __future__ import annotations

import pytest
import torch

from adapters.packing import Group
from adapters.policy import Policy
from adapters.pool import reply_logprobs
from adapters.warm_start import Rated, WarmStartConfig, scale_b, warm_start
from tests.adapters.helpers import replies

CONFIG = WarmStartConfig(steps=2)


def by_length(policy: Policy, groups: list[Group], sign: float = 1.0) -> list[Rated]:
    """Credit at every token for having fewer letters than the other replies to the prompt."""
    rated = []
    for group, ref in zip(groups, reply_logprobs(policy, groups, 0.8), strict=True):
        lengths = torch.tensor([float(len(policy.renderer.text(reply))) for reply in group.replies])
        gained = sign * (lengths.mean() - lengths) / (lengths.std() + 1e-3)
        rated.append(Rated(group, ref, gained[:, None].expand(-1, ref.shape[1])))
    return rated


def gains(policy: Policy, rated: list[Rated], adapter: str) -> list[float]:
    """Covariance of credit and of what an adapter changed in a reply's log-probability, prompt by prompt."""
    mine = reply_logprobs(policy, [each.group for each in rated], 0.8, adapter)
    moved = [(rows - each.ref_logprobs).sum(1) for rows, each in zip(mine, rated, strict=True)]
    return [float((each.credit[:, 0] * change).mean()) for each, change in zip(rated, moved, strict=True)]


def test_what_earned_more_becomes_more_likely(policy: Policy) -> None:
    rated = by_length(policy, replies(policy, copies=4, tokens=12))
    policy.new_adapter("mia")
    before = policy.adapter_state("mia")
    assert max(map(abs, gains(policy, rated, "mia"))) < 0.3, "bf16 in a batch of another shape"
    seen: list[tuple[int, int, dict[str, float]]] = []
    warm_start(policy, "mia", rated, 0.8, CONFIG, seed=1, on_batch=lambda *batch: seen.append(batch))
    assert min(gains(policy, rated, "mia")) > 0.5
    assert [batch[:2] for batch in seen] == [(i + 1, len(seen)) for i in range(len(seen))]
    after = policy.adapter_state("mia")
    assert all(torch.equal(before[key], after[key]) == ("lora_A" in key) for key in after), "A is shared and stays"
    entries = torch.cat([value.flatten() for key, value in after.items() if "lora_B" in key])
    assert CONFIG.size < float(entries.pow(2).mean().sqrt()) < 2 * CONFIG.size, "two steps, not quite in one direction"
    assert not any(p.requires_grad for p in policy.model.parameters())


def test_an_opposite_taste_gives_the_opposite_step_and_the_same_taste_the_same(policy: Policy) -> None:
    groups = replies(policy, copies=3, tokens=6)
    for name, sign in (("mia", 1.0), ("noah", 1.0), ("zoe", -1.0)):
        policy.new_adapter(name)
        warm_start(policy, name, by_length(policy, groups, sign), 0.8, WarmStartConfig(steps=1), seed=1)
    mia, noah, zoe = (policy.adapter_state(name) for name in ("mia", "noah", "zoe"))
    assert all(torch.equal(mia[key], noah[key]) for key in mia)
    assert all(torch.allclose(mia[key], -zoe[key], atol=1e-4) for key in mia if "lora_B" in key)


def test_it_can_be_stopped_and_without_credit_nothing_changes(policy: Policy) -> None:
    rated = by_length(policy, replies(policy, tokens=4))
    policy.new_adapter("mia")
    fresh = policy.adapter_state("mia")
    idle = [Rated(each.group, each.ref_logprobs, torch.zeros_like(each.credit)) for each in rated]
    warm_start(policy, "mia", idle, 0.8, CONFIG, seed=1)
    warm_start(policy, "mia", [], 0.8, CONFIG, seed=1)
    assert all(torch.equal(value, fresh[key]) for key, value in policy.adapter_state("mia").items())

    def stop(done: int, total: int, metrics: dict[str, float]) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        warm_start(policy, "mia", rated, 0.8, CONFIG, seed=1, on_batch=stop)
    assert not any(p.requires_grad for p in policy.model.parameters())


def test_scaling_changes_b_alone(policy: Policy) -> None:
    policy.new_adapter("mia")
    warm_start(policy, "mia", by_length(policy, replies(policy, tokens=4)), 0.8, CONFIG, seed=1)
    before = policy.adapter_state("mia")
    scale_b(policy, "mia", 0.5)
    after = policy.adapter_state("mia")
    assert all(torch.equal(after[key], before[key] * (0.5 if "lora_B" in key else 1.0)) for key in after)


def test_what_earned_most_and_least_is_learned_from() -> None:
    def group(*lengths: int) -> Group:
        replies = [[number] * length for number, length in enumerate(lengths)]
        trunks = [torch.zeros(length - 1, 2) for length in lengths]
        return Group([1], replies, [True] * len(replies), torch.zeros(1, 2), trunks)

    credit = torch.tensor(
        [[0.5, 0.0, 0.1], [3.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.1, 0.0, 0.0], [1.0, 0.5, 0.0], [-1, 0, 0]]
    )
    kept = Rated(group(3, 1, 1, 1, 2, 1), credit - 9.0, credit).extremes(4)
    assert kept.group.replies == [[1], [2], [4, 4], [5]]
    assert kept.credit.tolist() == [[3.0, 0.0], [-2.0, 0.0], [1.0, 0.5], [-1.0, 0.0]], "no wider than what is kept"
    assert torch.equal(kept.ref_logprobs, kept.credit - 9.0)
    few = Rated(group(3, 1, 1), credit[:3], credit[:3])
    assert few.extremes(4) is few
