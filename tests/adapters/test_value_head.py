"""The value head: closed-form fit, and where its values stand."""

from __future__ import annotations

import torch

from adapters.packing import Group
from adapters.value_head import ValueHead

H = 6


def make_group(lengths: list[int], seed: int) -> Group:
    random = torch.Generator().manual_seed(seed)
    trunks = [torch.randn(length - 1, H, generator=random) for length in lengths]
    return Group([1, 2], [[5] * n for n in lengths], [True] * len(lengths), torch.randn(2, H, generator=random), trunks)


def test_values_stand_before_each_token_and_are_zero_after_the_end() -> None:
    head = ValueHead(torch.zeros(H), torch.ones(H))
    with torch.no_grad():
        head.linear.weight[0] = torch.arange(float(H))
        head.linear.bias.fill_(2.0)
    group = make_group([3, 1], 0)
    values = head.values([group])
    states = [group.prompt_trunk[-1], *group.trunks[0]]  # what is known before tokens 1, 2 and 3 of the first reply
    expected = torch.stack([state @ torch.arange(float(H)) + 2.0 for state in states])
    torch.testing.assert_close(values[0], expected)
    torch.testing.assert_close(values[1], torch.tensor([expected[0].item(), 0.0, 0.0]))


def test_fit_recovers_a_linear_value_with_its_level() -> None:
    slope, level = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 0.3]), 7.0
    groups, scores = [], []
    for seed in range(40):
        random = torch.Generator().manual_seed(1000 + seed)
        state = torch.randn(H, generator=random)  # constant over a prompt, so that every position tells the score
        groups.append(Group([1], [[5] * 4] * 2, [True] * 2, state[None], [state.expand(3, H)] * 2))
        scores.append((state @ slope + level).repeat(2))
    mean, sd = torch.full((H,), 0.5), torch.full((H,), 2.0)
    head = ValueHead(mean, sd)
    head.fit(groups, scores, ridge=1e-6)
    torch.testing.assert_close(head.linear.weight[0].detach() / sd, slope, atol=1e-3, rtol=1e-3)
    predicted = head.values(groups).detach()
    torch.testing.assert_close(predicted[:, 0], torch.cat(scores), atol=1e-3, rtol=1e-3)


def test_a_strong_ridge_leaves_the_mean_score() -> None:
    groups = [make_group([4, 5], seed) for seed in range(10)]
    scores = [torch.tensor([3.0 + seed, 5.0 - seed]) for seed in range(10)]
    head = ValueHead(torch.zeros(H), torch.ones(H))
    head.fit(groups, scores, ridge=1e9)
    torch.testing.assert_close(head.values(groups)[:, 0].detach(), torch.full((20,), 4.0), atol=1e-3, rtol=1e-3)
