"""Stage one of an update: a few long policy-gradient steps on replies that were written long ago.

The pool holds base replies with their trunk activations, so for an adapter that changes nothing yet it is a rollout:
PPO's first, forty times as large as one that a person could wait for. The person's reward reads every beginning of
every reply (adapters/reward.py, `credit`), which says at which token it went up or down. Every step takes another part
of the pool:

    B += size · g / (f + damping · mean f)      g: sum over the part's tokens of credit · ratio · ∇ log p
                                                f: mean square of g's terms so far, the diagonal of the empirical
                                                   Fisher matrix: a natural-gradient step (Amari 1998; Kunstner 2019)
                                                ratio: p / p(base) of a token, clipped above, since the base wrote it

and is made equally long whatever the taste. How far to go in the end is not a matter of the gradient but of the KL
budget: what an adapter adds is linear in B, so the caller scales it afterwards (`scale_b`). Against preference pairs of
best and worst replies (DPO), which this replaced, the first direction correlates half as much again with what unseen
replies are worth (LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapters.memory import give_back
from adapters.packing import Group, micro_batches, pack
from adapters.policy import Policy
from adapters.pool import MAX_POSITIONS


@dataclass(frozen=True)
class WarmStartConfig:
    """How the pool is learned from.

    replies: of each prompt, those that earned most and least; steps: parts of the pool; size: root mean square of B's
    entries after one step; discount: of what the reward does later, a token; damping: share of the mean curvature that
    is added everywhere; max_ratio: clip above.
    """

    replies: int = 4
    steps: int = 6
    size: float = 0.005
    discount: float = 0.9
    damping: float = 0.01
    max_ratio: float = 2.0


@dataclass(frozen=True)
class Rated:
    """Base replies to one prompt: the group, their (R, T) log-probabilities under the base, and (R, T) credit."""

    group: Group
    ref_logprobs: Tensor
    credit: Tensor

    def extremes(self, count: int) -> Rated:
        """The `count` replies that say most: half of them those that earned most, half those that earned least."""
        order = self.credit.sum(1).argsort(descending=True, stable=True).tolist()
        if len(order) <= count:
            return self
        keep = sorted(order[: count - count // 2] + order[len(order) - count // 2 :])
        longest = max(len(self.group.replies[i]) for i in keep)
        return Rated(self.group.only(keep), self.ref_logprobs[keep, :longest], self.credit[keep, :longest])


def warm_start(
    policy: Policy,
    adapter: str,
    rated: Sequence[Rated],
    temperature: float,
    config: WarmStartConfig,
    seed: int,
    on_batch: Callable[[int, int, dict[str, float]], None] = lambda done, total, metrics: None,
) -> None:
    """Take the steps with an adapter that changes nothing yet; the seed draws the parts.

    on_batch(done, total, metrics) after every micro-batch may raise to stop. Without any credit nothing changes.
    """
    parameters = policy.trainable(adapter)
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    order = np.random.default_rng(seed).permutation(len(rated))
    parts = [
        [rated[i].extremes(config.replies) for i in part] for part in np.array_split(order, config.steps) if len(part)
    ]
    batches = [
        [[part[i] for i in batch] for batch in micro_batches([r.group for r in part], MAX_POSITIONS)] for part in parts
    ]
    done, total = 0, sum(map(len, batches))
    try:
        for part in batches:
            sums = [torch.zeros_like(parameter) for parameter in parameters]
            for batch in part:
                gradients = torch.autograd.grad(_gain(policy, batch, temperature, config.max_ratio), parameters)
                for gradient, summed, squared in zip(gradients, sums, squares, strict=True):
                    summed += gradient
                    squared += gradient**2
                done += 1
                norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
                on_batch(done, total, {"policy/grad_norm": float(norm)})
            _step(parameters, sums, squares, config)
            give_back()  # batches of all shapes leave holes that none fits: half a gigabyte by the last
    finally:
        policy.freeze(adapter)


def scale_b(policy: Policy, adapter: str, factor: float) -> None:
    """Multiply what an adapter adds to the base by `factor`; its KL to the base grows with the square, at first."""
    state = policy.adapter_state(adapter)
    policy.set_adapter_state(
        adapter, {name: tensor * factor if "lora_B" in name else tensor for name, tensor in state.items()}
    )


def _gain(policy: Policy, batch: Sequence[Rated], temperature: float, max_ratio: float) -> Tensor:
    """The sum whose gradient is the policy gradient of base replies."""
    packed = pack([each.group for each in batch], policy.device, policy.dtype)
    logprobs = policy.logprobs(packed, temperature)
    credit, ref = (
        _stacked(tensors, logprobs) for tensors in ([r.credit for r in batch], [r.ref_logprobs for r in batch])
    )
    ratio = (logprobs.detach() - ref).exp().clamp(max=max_ratio)
    return (credit * ratio * logprobs).sum()


@torch.no_grad()
def _step(
    parameters: Sequence[Tensor], sums: Sequence[Tensor], squares: Sequence[Tensor], config: WarmStartConfig
) -> None:
    count = sum(parameter.numel() for parameter in parameters)
    mean = sum(float(squared.sum()) for squared in squares) / count
    if mean == 0.0:
        return
    steps = [summed / (squared + config.damping * mean) for summed, squared in zip(sums, squares, strict=True)]
    length = (sum(float((step**2).sum()) for step in steps) / count) ** 0.5
    if length > 0.0:
        for parameter, step in zip(parameters, steps, strict=True):
            parameter += step * (config.size / length)


def _stacked(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    """(R, T) of several groups below one another, as wide as `like` and on its device, 0 where there is nothing."""
    out, row = torch.zeros_like(like), 0
    for tensor in tensors:
        out[row : row + len(tensor), : tensor.shape[1]] = tensor.to(like)
        row += len(tensor)
    return out
