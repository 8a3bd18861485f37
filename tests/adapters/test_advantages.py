"""Rewards and advantages against numbers worked out by hand."""

from __future__ import annotations

import math

import torch

from adapters.advantages import (
    gae,
    kl_estimates,
    kl_shaped_rewards,
    leave_one_out,
    masked_mean,
    masked_whiten,
    returns_to_go,
)

# Two replies, of three tokens and of two.
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_masked_mean_counts_what_the_mask_keeps() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]])
    assert masked_mean(values, MASK).item() == 3.0  # (1 + 2 + 3 + 4 + 5) / 5
    assert masked_mean(values, torch.zeros_like(MASK)).item() == 0.0


def test_rewards_pay_the_kl_at_every_token_and_the_score_at_the_last() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, -1.0, -7.0]])
    reference = torch.tensor([[-1.5, -2.0, -1.5], [-0.5, -2.0, 7.0]])
    rewards = kl_shaped_rewards(torch.tensor([2.0, -1.0]), logprobs, reference, MASK, kl_coef=0.1)
    # log-ratios 0.5, 0, 1 and -0.5, 1: each costs a tenth; then +2 on the third token and -1 on the second.
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.0, -0.1 + 2.0], [0.05, -0.1 - 1.0, 0.0]]))


def test_returns_sum_what_is_still_to_come() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 0.0]])
    torch.testing.assert_close(returns_to_go(rewards, MASK), torch.tensor([[7.0, 6.0, 4.0], [3.0, 2.0, 0.0]]))
    # gamma = 1/2: 4; 2 + 4/2 = 4; 1 + 4/2 = 3, and 2; 1 + 2/2 = 2.
    torch.testing.assert_close(returns_to_go(rewards, MASK, 0.5), torch.tensor([[3.0, 4.0, 4.0], [2.0, 2.0, 0.0]]))


def test_leave_one_out_compares_with_the_others_of_the_prompt() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False], [True, True, True]])
    rewards = torch.tensor([[0.0, 0.0, 6.0], [1.0, 2.0, 0.0], [9.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    advantages = leave_one_out(rewards, mask, torch.tensor([0, 0, 0, 1]))
    # Returns, each held at its last value once a reply has ended:
    #   first 6 6 6     second 3 2 (2)     third 9 (9 9)
    # first:  6 - (3 + 9)/2 = 0,  6 - (2 + 9)/2 = 0.5,  6 - (2 + 9)/2 = 0.5
    # second: 3 - (6 + 9)/2 = -4.5,  2 - (6 + 9)/2 = -5.5
    # third:  9 - (6 + 3)/2 = 4.5;  the fourth is alone with its prompt.
    expected = [[0.0, 0.5, 0.5], [-4.5, -5.5, 0.0], [4.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(advantages, torch.tensor(expected))


def test_gae_adds_up_temporal_differences() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    values = torch.tensor([[0.5, 0.6, 0.8], [1.0, 1.0, 55.0]])
    advantages, targets = gae(rewards, values, MASK, gamma=0.9, gae_lambda=0.5)
    # First reply, from the end: d3 = 1 - 0.8 = 0.2;  d2 = 0.9 * 0.8 - 0.6 = 0.12;  d1 = 0.9 * 0.6 - 0.5 = 0.04
    #   A3 = 0.2;  A2 = 0.12 + 0.45 * 0.2 = 0.21;  A1 = 0.04 + 0.45 * 0.21 = 0.1345
    # Second: its value after the last token is 0, not 55: d2 = 2 - 1 = 1;  d1 = 0.9 - 1 = -0.1
    #   A2 = 1;  A1 = -0.1 + 0.45 = 0.35
    expected = torch.tensor([[0.1345, 0.21, 0.2], [0.35, 1.0, 0.0]])
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(targets, (expected + values) * MASK)


def test_gae_with_lambda_one_is_return_minus_value() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 0.0]])
    values = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.25, 9.0]])
    advantages, targets = gae(rewards, values, MASK, gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(advantages, (returns_to_go(rewards, MASK) - values) * MASK)
    torch.testing.assert_close(targets, returns_to_go(rewards, MASK))


def test_whitening_leaves_mean_zero_and_variance_one_over_the_mask() -> None:
    whitened = masked_whiten(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]]), MASK)
    # Mean 3, variance (4 + 1 + 0 + 1 + 4) / 5 = 2.
    by_hand = torch.tensor([[-2.0, -1.0, 0.0], [1.0, 2.0, 0.0]]) / math.sqrt(2)
    torch.testing.assert_close(whitened, by_hand)
    assert abs(masked_mean(whitened, MASK).item()) < 1e-6


def test_kl_estimates_by_hand() -> None:
    logprobs = torch.log(torch.tensor([[0.5, 0.25]]))
    other = torch.log(torch.tensor([[0.25, 0.5]]))
    k1, k3 = kl_estimates(logprobs, other, torch.tensor([[True, True]]))
    # Log-ratios log 2 and -log 2: k1 is their mean, 0; k3 = mean of (1/2 - 1 + log 2) and (2 - 1 - log 2) = 0.25.
    assert abs(k1) < 1e-6
    assert abs(k3 - 0.25) < 1e-6
