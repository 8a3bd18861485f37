"""What an update takes from the pool."""

from __future__ import annotations

import torch

from adapters.latents import Latents
from adapters.policy import Policy
from adapters.pool import PoolEntry, reply_logprobs
from adapters.reward import RewardModel
from adapters.safety import SafetyTerm
from adapters.update import rate
from adapters.warm_start import WarmStartConfig
from feedback.population import Population
from tests.adapters.helpers import replies
from tests.adapters.jobs import head_for

CONFIG = WarmStartConfig(replies=2)


def test_of_many_replies_the_extremes_are_kept_in_memory_of_their_own(
    policy: Policy, latents: Latents, population: Population
) -> None:
    head = head_for(population, {"length": 2.0})
    model = RewardModel(head, population, latents, policy.renderer, SafetyTerm.load("term"))
    group = replies(policy, copies=5, tokens=12)[0]
    (logprobs,) = reply_logprobs(policy, [group], 0.8)
    entry = PoolEntry("p1", "What do cats eat?", group, logprobs)
    read = model.read(group, entry.text)
    baseline = model.baseline(read)
    keep = model.extremes(read, baseline, 2)

    rated = rate(model, entry, CONFIG)
    assert rated.group.replies == [group.replies[i] for i in keep] and len(keep) == 2
    longest = max(len(group.replies[i]) for i in keep)
    assert rated.credit.shape == rated.ref_logprobs.shape == (2, longest), "no wider than what is kept"
    assert torch.equal(rated.ref_logprobs, logprobs[keep, :longest])
    # What the base does is known from all five, not from the two.
    expected = model.credit(group.only(keep), entry.text, baseline, CONFIG.discount)
    assert torch.equal(rated.credit, torch.from_numpy(expected))
    theirs = [rated.group.prompt_trunk, *rated.group.trunks, rated.ref_logprobs]
    pool = {each.untyped_storage().data_ptr() for each in (group.prompt_trunk, *group.trunks, logprobs)}
    assert not pool & {each.untyped_storage().data_ptr() for each in theirs if each.numel()}
