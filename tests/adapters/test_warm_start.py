"""Learning from given replies: the loss by hand, and what it does to the real policy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adapters.packing import Group
from adapters.policy import Policy
from adapters.pool import reply_logprobs
from adapters.warm_start import Pair, WarmStartConfig, best_and_worst, dpo_loss, warm_start
from tests.adapters.helpers import replies

CONFIG = WarmStartConfig(pairs=2, passes=3, learning_rate=2e-3)


def by_length(groups: list[Group], policy: Policy) -> list[Pair]:
    """Pairs in which the reply with fewer letters is the better one."""
    refs = reply_logprobs(policy, groups, 0.8)
    scores = [np.array([-len(policy.renderer.text(reply)) for reply in group.replies], float) for group in groups]
    return best_and_worst(groups, refs, scores, margin=0.5)


def margins(policy: Policy, pairs: list[Pair], adapter: str) -> np.ndarray:
    """How much more the adapter prefers the better reply than the base does, nats a pair."""
    sums = [rows.sum(1) for rows in reply_logprobs(policy, [pair.group for pair in pairs], 0.8, adapter)]
    gaps = [(row - pair.ref_logprobs) for row, pair in zip(sums, pairs, strict=True)]
    return np.array([float(gap[0] - gap[1]) for gap in gaps])


def test_dpo_loss_by_hand() -> None:
    logprobs = torch.tensor([[-10.0, -20.0], [-5.0, -5.0]])
    reference = torch.tensor([[-12.0, -19.0], [-4.0, -4.0]])
    # Log-ratios: 2 and -1, so the preferred gains 3; in the second pair both lose 1 and the difference is 0.
    expected = -(math.log(1 / (1 + math.exp(-0.1 * 3))) + math.log(0.5)) / 2
    assert dpo_loss(logprobs, reference, beta=0.1).item() == pytest.approx(expected, abs=1e-6)


def test_pairs_are_best_and_worst_where_they_differ_enough() -> None:
    def group(first: int) -> Group:
        return Group([1], [[first], [first + 1], [first + 2]], [True] * 3, torch.zeros(1, 2), [torch.zeros(0, 2)] * 3)

    refs = [torch.tensor([[-1.0], [-2.0], [-3.0]])] * 2
    scores = [np.array([0.0, 2.0, -1.0]), np.array([0.1, 0.0, 0.2])]
    pairs = best_and_worst([group(10), group(20)], refs, scores, margin=0.5)
    assert [pair.group.replies for pair in pairs] == [[[11], [12]]]
    assert pairs[0].gap == 3.0
    assert pairs[0].ref_logprobs.tolist() == [-2.0, -3.0]


def test_the_adapter_comes_to_prefer_what_scores_higher(policy: Policy) -> None:
    pairs = by_length(replies(policy, copies=4, tokens=12), policy)
    policy.new_adapter("mia")
    before = policy.adapter_state("mia")
    start = margins(policy, pairs, "mia")
    assert (abs(start) < 0.3).all(), "zero but for the roundings of bf16 in a batch of another shape"
    seen: list[tuple[int, int, dict[str, float]]] = []
    warm_start(policy, "mia", pairs, 0.8, CONFIG, seed=1, on_step=lambda *step: seen.append(step))
    assert (margins(policy, pairs, "mia") > start + 0.5).all()
    assert [step[:2] for step in seen] == [(i + 1, len(seen)) for i in range(len(seen))]
    assert seen[-1][2]["warm_start/loss"] < seen[0][2]["warm_start/loss"]
    after = policy.adapter_state("mia")
    assert all(torch.equal(before[key], after[key]) == ("lora_A" in key) for key in after), "A is shared and stays"


def test_the_same_seed_gives_the_same_adapter(policy: Policy) -> None:
    pairs = by_length(replies(policy, copies=3, tokens=6), policy)
    for name in ("mia", "noah"):
        policy.new_adapter(name)
        warm_start(policy, name, pairs, 0.8, WarmStartConfig(pairs=1), seed=4)
    mia, noah = policy.adapter_state("mia"), policy.adapter_state("noah")
    assert all(torch.equal(mia[key], noah[key]) for key in mia)


def test_it_can_be_stopped_and_has_nothing_to_do_without_pairs(policy: Policy) -> None:
    policy.new_adapter("mia")
    fresh = policy.adapter_state("mia")
    warm_start(policy, "mia", [], 0.8, CONFIG, seed=1)
    assert all(torch.equal(value, fresh[key]) for key, value in policy.adapter_state("mia").items())

    def stop(done: int, total: int, metrics: dict[str, float]) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        warm_start(policy, "mia", by_length(replies(policy, tokens=4), policy), 0.8, CONFIG, seed=1, on_step=stop)
    assert not any(p.requires_grad for p in policy.model.parameters())
