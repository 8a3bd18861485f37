"""The lean top says what transformers and PEFT say, and learns what they would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adapters import expanded
from adapters.base_model import BaseFiles
from adapters.packing import PackedBatch, pack
from adapters.policy import AdapterConfig, Policy
from tests.adapters.helpers import disturb, prompts

SEVERAL = ([[5, 6, 7, 8, 9], [40], [60, 70, 80]], [[50, 51], [7, 8, 9]])
SINGLE = ([[5], [6]], [[7], [8]])


def batch_of(policy: Policy, replies: tuple[list[list[int]], ...]) -> PackedBatch:
    """Prompts of different lengths, with these replies."""
    groups = [
        policy.read(prompt, mine, [False] * len(mine)) for prompt, mine in zip(prompts(policy), replies, strict=False)
    ]
    return pack(groups, policy.device, policy.dtype)


def learned(
    policy: Policy, adapter: str | None, *, lean: bool, replies: tuple[list[list[int]], ...] = SEVERAL
) -> tuple[Tensor, list[Tensor]]:
    """Log-probabilities, and with an adapter the gradient of a weighted sum of them."""
    kept = policy.lean_top
    policy.lean_top = kept if lean else None
    try:
        batch = batch_of(policy, replies)
        weights = torch.linspace(-1, 1, batch.targets.numel()).view(batch.targets.shape)
        if adapter is None:
            policy.use(None)
            with torch.no_grad():
                return policy.logprobs(batch, 0.8), []
        parameters = policy.trainable(adapter)
        found = policy.logprobs(batch, 0.8)
        gradients = torch.autograd.grad((found * weights).sum(), parameters)
        policy.freeze(adapter)
        return found.detach(), list(gradients)
    finally:
        policy.lean_top = kept


@pytest.mark.parametrize("replies", [SEVERAL, SINGLE])
@pytest.mark.parametrize("adapter", [None, "mia"])
def test_in_full_precision_it_is_the_same(
    exact: Policy, adapter: str | None, replies: tuple[list[list[int]], ...]
) -> None:
    exact.new_adapter("mia")
    disturb(exact, "mia", seed=1)
    (mine, slopes), (theirs, other) = (learned(exact, adapter, lean=lean, replies=replies) for lean in (True, False))
    assert exact.lean_top is not None
    torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-4)
    for slope, expected in zip(slopes, other, strict=True):
        torch.testing.assert_close(slope, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("in_fp32", [False, True])
def test_in_the_served_precision_it_is_as_near_as_bf16_allows(
    in_fp32: bool, base_files: BaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two a processor multiplies faster by."""
    monkeypatch.setattr(expanded, "faster_in_fp32", lambda: in_fp32)
    policy = Policy.load(base_files)
    policy.new_adapter("mia")
    disturb(policy, "mia", seed=1)
    (mine, slopes), (theirs, other) = (learned(policy, "mia", lean=lean) for lean in (True, False))
    torch.testing.assert_close(mine, theirs, atol=0.3, rtol=0.05)
    for slope, expected in zip(slopes, other, strict=True):
        assert slope.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(slope.flatten(), expected.flatten(), dim=0) > 0.98


def test_another_adapter_and_the_base_are_not_touched(policy: Policy) -> None:
    for seed, name in enumerate(("mia", "noa"), start=1):
        policy.new_adapter(name)
        disturb(policy, name, seed=seed)
    batch, found = batch_of(policy, SEVERAL), dict[str | None, Tensor]()
    with torch.no_grad():
        for adapter in (None, "mia", "noa", None, "mia", "noa"):
            policy.use(adapter)
            logprobs = policy.logprobs(batch, 1.0)
            assert torch.equal(logprobs, found.setdefault(adapter, logprobs))
    assert not torch.equal(found["mia"], found["noa"]) and not torch.equal(found["mia"], found[None])


def test_an_a_that_learns_is_left_to_transformers(policy: Policy, base_files: BaseFiles) -> None:
    assert policy.lean_top is not None
    assert Policy.load(base_files, AdapterConfig(train_a=True)).lean_top is None
