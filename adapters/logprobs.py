"""Log-probabilities of chosen tokens, without keeping the whole distribution in the graph.

The language-model head is the largest matrix of a small model: computing it for reply positions only, and its
log-softmax and selection as one function with its own backward, halves the time of a training step, and no more than a
part of the distributions is ever there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

AT_ONCE = 128  # positions whose distribution over the vocabulary is held: 25 MB for 49,152 tokens in fp32
ROUND = 64  # their number is made a multiple of this: a product of a new shape is compiled first


def selected_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, softcap: float | None = None
) -> Tensor:
    """log p(target) at temperature T for each position.

    hidden: (N, H); weight: (V, H), frozen, used in the precision of `hidden`; targets: (N,); softcap: cap·tanh(x / cap)
    on the logits (Gemma 2). Returns (N,) fp32; differentiable in hidden.
    """
    weight = weight.to(hidden.dtype)
    if softcap is not None:
        logits = softcap * torch.tanh(torch.nn.functional.linear(hidden, weight).float() / softcap)
        return torch.log_softmax(logits / temperature, -1).gather(-1, targets[:, None])[:, 0]
    spare = -len(hidden) % ROUND
    padded = torch.nn.functional.pad(hidden, (0, 0, 0, spare)), torch.nn.functional.pad(targets, (0, spare))
    result: Tensor = _SelectedLogprobs.apply(padded[0], weight, padded[1], temperature)
    return result[: len(hidden)]


class _SelectedLogprobs(torch.autograd.Function):
    """The slope of log p(y) is a row of its own at every position, (W[y] - p W) / T, so it can be taken while p is
    there: some positions at a time, and what backward needs is as small as `hidden`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        chosen = hidden.new_empty(len(hidden), dtype=torch.float32)
        slopes = torch.empty_like(hidden) if hidden.requires_grad else None
        shape = min(AT_ONCE, len(hidden)), len(weight)
        # The largest tensors of a training step are made once and written over; what is exact anyway is not rounded.
        exact = [hidden.new_empty(shape, dtype=torch.float32) for _ in range(2)]
        rounded = exact if weight.dtype == torch.float32 else [weight.new_empty(shape)] * 2
        for start in range(0, len(hidden), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            few = len(hidden[some])
            logits, probabilities, found, slope = (each[:few] for each in (*exact, *rounded))
            torch.mm(hidden[some], weight.T, out=found)
            logits.copy_(found).div_(temperature)
            target = targets[some, None]
            top, place = logits.max(-1, keepdim=True)
            torch.softmax(logits, -1, out=probabilities)
            # log of the sum of exponentials, by way of the likeliest token: it is never too small for a logarithm
            total = top - probabilities.gather(-1, place).log()
            chosen[some] = (logits.gather(-1, target) - total)[:, 0]
            if slopes is not None:
                probabilities.scatter_add_(-1, target, torch.full_like(top, -1.0))
                torch.mm(slope.copy_(probabilities), weight, out=slopes[some])
        if slopes is not None:
            ctx.save_for_backward(slopes)
            ctx.temperature = temperature
        return chosen

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * (grad / -ctx.temperature)[:, None]).to(slopes.dtype), None, None, None
