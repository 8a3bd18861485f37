"""Log-probabilities of chosen tokens, without keeping the whole distribution in the graph.

The language-model head is the largest matrix of a small model: computing it for reply positions only, and its
log-softmax and selection as one function with its own backward, halves the time and the memory of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def selected_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, softcap: float | None = None
) -> Tensor:
    """log p(target) at temperature T for each position.

    hidden: (N, H); weight: (V, H), frozen; targets: (N,); softcap: cap·tanh(x / cap) on the logits (Gemma 2).
    Returns (N,) fp32; differentiable in hidden.
    """
    if softcap is not None:
        logits = softcap * torch.tanh(torch.nn.functional.linear(hidden, weight).float() / softcap)
        return torch.log_softmax(logits / temperature, -1).gather(-1, targets[:, None])[:, 0]
    result: Tensor = _SelectedLogprobs.apply(hidden, weight, targets, temperature)
    return result


class _SelectedLogprobs(torch.autograd.Function):
    """d log p(y) / d logits = onehot(y) - p, so p is all that backward needs."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        logits = torch.nn.functional.linear(hidden, weight).float()
        if temperature != 1.0:
            logits.div_(temperature)
        chosen = logits.gather(-1, targets[:, None])[:, 0]
        total = torch.logsumexp(logits, -1)
        if hidden.requires_grad:
            probabilities = logits.sub_(total[:, None]).exp_()
            ctx.save_for_backward(probabilities, weight, targets)
            ctx.temperature, ctx.dtype = temperature, hidden.dtype
        return chosen - total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        probabilities, weight, targets = ctx.saved_tensors
        scaled = grad / ctx.temperature
        logit_grad = probabilities * -scaled[:, None]
        logit_grad.scatter_add_(-1, targets[:, None], scaled[:, None])
        return (logit_grad.to(ctx.dtype) @ weight).to(ctx.dtype), None, None, None
