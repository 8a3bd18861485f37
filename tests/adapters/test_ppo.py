"""PPO: the loss by hand, and the loop on the real model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.latents import Latents
from adapters.packing import Group
from adapters.policy import Policy
from adapters.ppo import PPOConfig, PPOStats, adapted_kl_coef, ppo_loss, ppo_update
from adapters.value_head import ValueHead
from feedback.errors import InvalidInput
from tests.adapters.helpers import disturb, prompts

TINY = PPOConfig(batches=2, prompts=2, replies=3, max_tokens=6, epochs=2, minibatches=2, learning_rate=2e-3)
Tensors = dict[str, torch.Tensor]


def vowels(groups: Sequence[Group]) -> list[np.ndarray]:
    """Any score will do: how often a token's number is even."""
    return [np.array([np.mean([token % 2 == 0 for token in reply]) for reply in group.replies]) for group in groups]


def constant(groups: Sequence[Group]) -> list[np.ndarray]:
    return [np.ones(len(group.replies)) for group in groups]


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_ppo_loss_by_hand() -> None:
    old = torch.zeros(2, 2)
    logprobs = torch.log(torch.tensor([[1.5, 0.5], [1.1, 4.0]]))
    advantages = torch.tensor([[1.0, -1.0], [2.0, 9.0]])
    mask = torch.tensor([[True, True], [True, False]])
    loss, figures = ppo_loss(logprobs, old, advantages, mask, clip_range=0.2)
    # Ratio 1.5 with advantage 1 is cut to 1.2; ratio 0.5 with advantage -1 counts as 0.8; ratio 1.1 is within range.
    assert loss.item() == pytest.approx(-(1.2 * 1 + 0.8 * -1 + 1.1 * 2) / 3)
    assert figures["ratio"] == pytest.approx((1.5 + 0.5 + 1.1) / 3)
    assert figures["clip_fraction"] == pytest.approx(2 / 3)
    squares = [math.log(1.5) ** 2, math.log(0.5) ** 2, math.log(1.1) ** 2]
    assert figures["approx_kl"] == pytest.approx(0.5 * sum(squares) / 3)
    mean = 3.1 / 3
    assert figures["ratio_var"] == pytest.approx(((1.5 - mean) ** 2 + (0.5 - mean) ** 2 + (1.1 - mean) ** 2) / 3)


def test_at_ratio_one_the_gradient_is_that_of_the_policy_gradient() -> None:
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -4.0]])
    loss, _ = ppo_loss(logprobs, logprobs.detach(), advantages, torch.ones(1, 2, dtype=torch.bool), 0.2)
    loss.backward()
    torch.testing.assert_close(logprobs.grad, -advantages / 2)


def test_beyond_the_range_only_the_way_back_has_a_gradient() -> None:
    log_ratio = torch.log(torch.tensor([[1.5, 1.5, 0.5, 0.5]]))
    logprobs = log_ratio.clone().requires_grad_()
    loss, _ = ppo_loss(
        logprobs, torch.zeros(1, 4), torch.tensor([[1.0, -1.0, 1.0, -1.0]]), torch.ones(1, 4, dtype=torch.bool), 0.2
    )
    loss.backward()
    assert logprobs.grad is not None
    assert (logprobs.grad != 0).tolist() == [[False, True, True, False]]


def test_the_kl_coefficient_moves_towards_the_target_within_a_few_replies() -> None:
    config = PPOConfig(prompts=4, replies=4, target_kl=0.1, kl_horizon=32)
    assert adapted_kl_coef(0.2, 0.1, config) == pytest.approx(0.2)
    # 20% above target, 16 replies of a horizon of 32: up by 0.2 * 16 / 32.
    assert adapted_kl_coef(0.2, 0.12, config) == pytest.approx(0.2 * 1.1)
    assert adapted_kl_coef(0.2, 5.0, config) == pytest.approx(0.2 * 1.25), "the error counts for half at most"
    assert adapted_kl_coef(0.2, -0.3, config) == pytest.approx(0.2 * 0.75)
    assert adapted_kl_coef(0.2, 5.0, replace(config, kl_horizon=1)) == pytest.approx(0.3), "and so does a step"


@pytest.mark.parametrize(
    "wrong", [{"batches": -1}, {"prompts": 0}, {"replies": 1}, {"temperature": 0.0}, {"minibatches": 0}]
)
def test_an_impossible_configuration_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=f"ppo.{next(iter(wrong))}"):
        PPOConfig(**wrong)  # type: ignore[arg-type]


# ---- the loop --------------------------------------------------------------------------------------------------------


def run(policy: Policy, name: str, checkpoint: Path | None = None, stop_after: int = 99) -> list[PPOStats]:
    """TINY from a fresh adapter, perhaps stopped."""

    def on_batch(done: int, stats: PPOStats) -> None:
        if done == stop_after:
            raise InterruptedError

    policy.new_adapter(name)
    return ppo_update(policy, name, prompts(policy), vowels, TINY, seed=7, checkpoint=checkpoint, on_batch=on_batch)


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(policy: Policy, tmp_path: Path) -> None:
    whole = run(policy, "mia")
    through = policy.adapter_state("mia")
    policy.drop_adapter("mia")
    with pytest.raises(InterruptedError):
        run(policy, "mia", tmp_path / "run", stop_after=1)
    assert not any(p.requires_grad for p in policy.model.parameters()), "stopped, nothing asks for gradients"
    policy.drop_adapter("mia")
    resumed = run(policy, "mia", tmp_path / "run")
    assert same(policy.adapter_state("mia"), through)
    assert [replace(stats, seconds=0) for stats in resumed] == [replace(stats, seconds=0) for stats in whole]
    # A third call has nothing left to do, and another seed is another run.
    assert run_again(policy, tmp_path / "run") == resumed


def run_again(policy: Policy, checkpoint: Path) -> list[PPOStats]:
    def never(groups: Sequence[Group]) -> list[np.ndarray]:
        raise AssertionError("nothing was to be written")

    return ppo_update(policy, "mia", prompts(policy), never, TINY, seed=7, checkpoint=checkpoint)


def test_the_first_batch_of_a_fresh_adapter_is_the_base_and_its_figures_say_so(policy: Policy) -> None:
    policy.new_adapter("mia")
    before = policy.adapter_state("mia")
    seen: list[int] = []
    config = replace(TINY, batches=1, epochs=1, minibatches=1)
    (stats,) = ppo_update(
        policy, "mia", prompts(policy), vowels, config, seed=1, on_batch=lambda done, stats: seen.append(done)
    )
    assert seen == [1]
    metrics = stats.as_metrics()
    assert metrics["objective/kl"] == pytest.approx(0, abs=1e-3)
    assert metrics["val/ratio"] == pytest.approx(1, abs=1e-3), "one step on what was just written"
    assert metrics["policy/approxkl_avg"] == pytest.approx(0, abs=1e-6)
    assert metrics["policy/clipfrac_avg"] == 0
    assert metrics["loss/policy_avg"] == pytest.approx(0, abs=1e-5), "whitened advantages have mean 0"
    assert metrics["objective/rlhf_reward"] == pytest.approx(metrics["objective/scores"], abs=1e-3)
    assert metrics["episode"] == 6
    assert metrics["lr"] == 2e-3
    assert all(math.isfinite(value) for value in metrics.values())
    assert not same(policy.adapter_state("mia"), before)


def test_groups_without_a_difference_teach_nothing(policy: Policy) -> None:
    policy.new_adapter("mia")
    disturb(policy, "mia", seed=1)  # so that the KL alone would move it
    before = policy.adapter_state("mia")
    (stats,) = ppo_update(policy, "mia", prompts(policy), constant, replace(TINY, batches=1), seed=1)
    assert (stats.learned_groups, stats.steps) == (0, 0)
    assert stats.kl3_per_token > 0
    assert same(policy.adapter_state("mia"), before)


def test_epochs_end_when_the_policy_has_gone_too_far(policy: Policy) -> None:
    policy.new_adapter("mia")
    config = replace(TINY, batches=1, learning_rate=0.05, epochs=4, minibatches=1, max_approx_kl=1e-3)
    (stats,) = ppo_update(policy, "mia", prompts(policy), vowels, config, seed=1)
    assert stats.steps == 1


def test_gae_learns_values_beside_the_policy(policy: Policy, latents: Latents) -> None:
    policy.new_adapter("mia")
    config = replace(TINY, batches=1, advantage="gae")
    with pytest.raises(InvalidInput, match="value head"):
        ppo_update(policy, "mia", prompts(policy), vowels, config, seed=1)
    head = ValueHead(torch.tensor(latents.reply_mean), torch.tensor(latents.reply_sd))
    (stats,) = ppo_update(policy, "mia", prompts(policy), vowels, config, seed=1, value_head=head)
    assert stats.value_loss > 0
    assert head.linear.weight.abs().sum() > 0
    assert any(bool(value.any()) for key, value in policy.adapter_state("mia").items() if "lora_B" in key)


def test_what_scores_higher_becomes_likelier(policy: Policy) -> None:
    policy.new_adapter("mia")
    config = PPOConfig(batches=5, prompts=3, replies=8, max_tokens=4, learning_rate=5e-3, kl_coef=0.01)
    stats = ppo_update(policy, "mia", prompts(policy), vowels, config, seed=1)
    assert stats[-1].scores > stats[0].scores + 0.1
    assert stats[-1].kl > 0
