"""Stage one of an update: learn from base replies that were written long ago, without writing a token.

Every prompt of the shared pool has several base replies. The person's reward scores them all; the best and the worst
of each prompt make a pair, and the adapter learns to prefer the one to the other by direct preference optimisation
(Rafailov 2023), which has the same optimum as PPO's objective: reward less a KL penalty to the base. Trunk
activations and base log-probabilities come with the pool, so a pass is one forward and backward through the top layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapters.packing import Group, micro_batches, pack
from adapters.policy import Policy
from adapters.pool import MAX_POSITIONS


@dataclass(frozen=True)
class WarmStartConfig:
    """beta: DPO's inverse temperature; pairs: prompts a step; passes: over all pairs; margin: least gap of scores."""

    learning_rate: float = 2e-3
    beta: float = 0.1
    pairs: int = 4
    passes: int = 2
    margin: float = 0.2
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class Pair:
    """A prompt's best and worst reply: `group` holds the two, in this order; gap: difference of their scores."""

    group: Group
    ref_logprobs: Tensor  # (2,) sums over each reply, under the base
    gap: float


def best_and_worst(
    groups: Sequence[Group], refs: Sequence[Tensor], scores: Sequence[np.ndarray], margin: float
) -> list[Pair]:
    """One pair a prompt, where best and worst differ by more than `margin`. refs: (R, T) base log-probabilities."""
    pairs = []
    for group, ref, score in zip(groups, refs, scores, strict=True):
        best, worst = int(score.argmax()), int(score.argmin())
        gap = float(score[best] - score[worst])
        if gap > margin:
            pairs.append(Pair(group.only([best, worst]), ref[[best, worst]].sum(1), gap))
    return pairs


def dpo_loss(logprobs: Tensor, ref_logprobs: Tensor, beta: float) -> Tensor:
    """-log σ(β · (difference of log-ratios)), mean over pairs. Both (P, 2), sums over a reply, preferred first."""
    ratios = logprobs - ref_logprobs
    return -torch.nn.functional.logsigmoid(beta * (ratios[:, 0] - ratios[:, 1])).mean()


def warm_start(
    policy: Policy,
    adapter: str,
    pairs: Sequence[Pair],
    temperature: float,
    config: WarmStartConfig,
    seed: int,
    on_step: Callable[[int, int, dict[str, float]], None] = lambda done, total, metrics: None,
) -> None:
    """Fit the adapter to the pairs. `on_step` gets steps done, all steps and metrics, and may raise to stop."""
    if not pairs:
        return
    parameters = policy.trainable(adapter)
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, betas=(0.9, 0.99))
    random = np.random.default_rng(seed)
    steps = [
        chunk
        for _ in range(config.passes)
        for chunk in np.array_split(random.permutation(len(pairs)), max(1, len(pairs) // config.pairs))
    ]
    try:
        for number, chosen in enumerate(steps):
            for group in optimizer.param_groups:  # linear decay to a tenth
                group["lr"] = config.learning_rate * (1 - 0.9 * number / len(steps))
            loss, accuracy = _step(policy, [pairs[i] for i in chosen], temperature, config)
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            on_step(number + 1, len(steps), {"warm_start/loss": loss, "warm_start/accuracy": accuracy})
    finally:
        policy.freeze(adapter)


def _step(policy: Policy, pairs: Sequence[Pair], temperature: float, config: WarmStartConfig) -> tuple[float, float]:
    """Accumulate the gradient of one step; returns the loss and the share of pairs ranked right."""
    total, right = 0.0, 0
    for batch in micro_batches([pair.group for pair in pairs], MAX_POSITIONS):
        chosen = [pairs[i] for i in batch]
        packed = pack([pair.group for pair in chosen], policy.device, policy.dtype)
        sums = policy.logprobs(packed, temperature).sum(1).view(-1, 2)
        refs = torch.stack([pair.ref_logprobs for pair in chosen]).to(sums.device)
        loss = dpo_loss(sums, refs, config.beta) * len(chosen) / len(pairs)
        loss.backward()
        total += loss.item()
        ratios = (sums - refs).detach()
        right += int((ratios[:, 0] > ratios[:, 1]).sum())
    return total, right / len(pairs)
