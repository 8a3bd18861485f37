"""Rewards, returns and advantages, as pure functions of tensors.

Shapes: R replies of up to T tokens. A mask is True where a token counts; replies are left-aligned, so a row's mask is
a run of True followed by False. Everything is fp32 and without gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (R, T) values where the mask is True, a scalar."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale (R, T) values to masked mean 0 and variance 1 over the whole batch; 0 where masked."""
    centred = (values - masked_mean(values, mask)) * mask
    variance = masked_mean(centred**2, mask)
    return centred * torch.rsqrt(variance + 1e-8)


def kl_shaped_rewards(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Per-token rewards: -kl_coef · (log p - log ref) at every token, plus the score at the last (Ziegler 2019, eq. 2).

    scores: (R,), one a reply; the others (R, T). Returns (R, T), 0 where masked.
    """
    rewards = -kl_coef * (logprobs - ref_logprobs) * mask
    last = mask.sum(1).clamp(min=1) - 1
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


def returns_to_go(rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """Discounted sum of rewards from each token on, (R, T) → (R, T), 0 where masked."""
    out = torch.zeros_like(rewards)
    running = rewards.new_zeros(rewards.shape[0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        running = rewards[:, t] + gamma * running
        out[:, t] = running
    return out * mask


def leave_one_out(rewards: Tensor, mask: Tensor, groups: Tensor) -> Tensor:
    """Return minus the mean return, at the same token, of the other replies to the same prompt.

    groups: (R,) prompt number of each reply. A reply that ended earlier stands in the others' baseline with its last
    reward. A baseline may not depend on the token it judges, and this one does not (Kool 2019; RLOO, Ahmadian 2024).
    A reply alone with its prompt gets advantage 0. Returns (R, T), 0 where masked.
    """
    returns = returns_to_go(rewards, mask)
    last = mask.sum(1).clamp(min=1) - 1
    held = torch.where(mask, returns, returns.gather(1, last[:, None]))
    same = (groups[:, None] == groups[None, :]).to(returns.dtype)
    same.fill_diagonal_(0.0)
    others = same.sum(1, keepdim=True)
    baseline = same @ held / others.clamp(min=1)
    return (returns - baseline) * mask * (others > 0)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman 2016, eq. 16) and the value targets, (R, T) each.

    The value after a reply's last token is 0: the reply is the whole episode.
    """
    advantages = torch.zeros_like(rewards)
    following = rewards.new_zeros(rewards.shape[0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        if t + 1 < rewards.shape[1]:
            next_value = values[:, t + 1] * mask[:, t + 1]
        else:
            next_value = values.new_zeros(values.shape[0])
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * gae_lambda * following) * mask[:, t]
        advantages[:, t] = following
    return advantages, (advantages + values) * mask


def kl_estimates(logprobs: Tensor, other: Tensor, mask: Tensor) -> tuple[float, float]:
    """Schulman's k1 (unbiased) and k3 (of low variance, never negative) of KL(p ‖ other), in nats a token."""
    log_ratio = other - logprobs
    k1 = masked_mean(-log_ratio, mask)
    k3 = masked_mean(torch.expm1(log_ratio) - log_ratio, mask)
    return float(k1), float(k3)
