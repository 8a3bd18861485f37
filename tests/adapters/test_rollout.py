"""Rollouts: complete, in order, repeatable, with the right activations beside every token."""

from __future__ import annotations

import torch

from adapters.decoding import Sampling
from adapters.policy import Policy
from adapters.rollout import ROWS, roll_out
from tests.adapters.helpers import disturb, prompts, replies


def test_groups_come_in_the_order_of_the_prompts_and_repeat(policy: Policy) -> None:
    asked = prompts(policy)
    groups = replies(policy, copies=3)
    assert [group.prompt for group in groups] == asked
    assert all(len(group.replies) == 3 for group in groups)
    again = replies(policy, copies=3)
    assert [group.replies for group in again] == [group.replies for group in groups]
    for group in groups:
        for reply, ended, trunk in zip(group.replies, group.ended, group.trunks, strict=True):
            assert ended == (reply[-1] in policy.renderer.end_ids)
            assert len(trunk) == len(reply) - 1


def test_more_prompts_than_fit_at_once_are_all_answered(policy: Policy) -> None:
    asked = prompts(policy) * 3
    groups = roll_out(policy, asked, ROWS // 4, Sampling(0.8, 1.0, 2, 1), adapter=None)
    assert [group.prompt for group in groups] == asked
    assert groups[0].replies != groups[3].replies, "the same prompt in another batch gets its own draws"


def test_no_prompts_are_no_replies(policy: Policy) -> None:
    assert roll_out(policy, [], 4, Sampling(0.8, 1.0, 2, 1), adapter=None) == []


def test_trunk_activations_are_the_hidden_states_below_the_adapter(exact: Policy) -> None:
    for group in replies(exact):
        for reply, trunk in zip(group.replies, group.trunks, strict=True):
            with torch.no_grad():
                states = exact.model(torch.tensor([group.prompt + reply]), output_hidden_states=True).hidden_states
            at = len(group.prompt)
            expected = states[exact.split][0]
            torch.testing.assert_close(group.prompt_trunk, expected[:at], atol=2e-3, rtol=1e-3)
            torch.testing.assert_close(trunk, expected[at : at + len(trunk)], atol=2e-3, rtol=1e-3)


def test_the_adapter_that_was_named_writes(policy: Policy) -> None:
    policy.new_adapter("mia")
    disturb(policy, "mia", seed=3, size=0.2)
    base = replies(policy)
    policy.use("mia")
    assert [g.replies for g in replies(policy, adapter=None)] == [g.replies for g in base]
    assert [g.replies for g in replies(policy, adapter="mia")] != [g.replies for g in base]
