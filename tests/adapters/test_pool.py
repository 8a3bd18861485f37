"""The shared pool: built in chunks, resumed, repaired, and true to the base that wrote it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from adapters.base_model import BaseFiles
from adapters.policy import Policy
from adapters.pool import UNUSED, Pool, PoolConfig, load_groups, reply_logprobs, save_groups
from feedback.errors import CorruptFile

SMALL = PoolConfig(prompts=2, replies=2, max_tokens=6, chunk=1)


def pool_in(folder: Path, policy: Policy, config: PoolConfig = SMALL) -> Pool:
    return Pool(folder, policy.base_id, policy.split, config)


def test_a_pool_holds_replies_with_activations_and_base_logprobs(policy: Policy, tmp_path: Path) -> None:
    pool = pool_in(tmp_path, policy)
    shares: list[float] = []
    assert pool.ready == 0.0
    pool.build(policy, shares.append)
    assert shares == pytest.approx([0.5, 1.0]) and pool.ready == 1.0
    entries = pool.load()
    assert [entry.text for entry in entries] == [text for _, text in pool.prompts]
    for entry in entries:
        group = entry.group
        assert group.prompt == policy.render([{"role": "user", "content": entry.text}])
        assert len(group.replies) == 2 and all(1 <= len(reply) <= 6 for reply in group.replies)
        assert [trunk.shape[0] for trunk in group.trunks] == [len(reply) - 1 for reply in group.replies]
        # What was kept is what a fresh reading of the same tokens gives (bf16 activations: a coarse match).
        fresh = reply_logprobs(policy, [policy.read(group.prompt, group.replies, group.ended)], SMALL.temperature)[0]
        assert torch.allclose(entry.ref_logprobs, fresh, atol=0.5)
        assert (entry.ref_logprobs <= 0).all()


def test_a_killed_build_goes_on_and_a_damaged_chunk_is_made_again(policy: Policy, tmp_path: Path) -> None:
    pool = pool_in(tmp_path, policy)

    def stop(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        pool.build(policy, stop)
    assert pool.ready == 0.5
    first = pool.chunks[0].read_bytes()
    shares: list[float] = []
    pool.build(policy, shares.append)
    assert pool.chunks[0].read_bytes() == first, "what was there is not written again"
    pool.build(policy, shares.append)
    assert shares == [1.0], "the share of what was missing, or nobody could say how long the rest takes"

    pool.chunks[1].write_bytes(pool.chunks[1].read_bytes()[:-50])
    with pytest.raises(CorruptFile, match="is damaged"):
        pool.load()
    pool.build(policy)
    assert len(pool.load()) == 2


def test_the_same_pool_comes_out_twice(policy: Policy, tmp_path: Path) -> None:
    made = [pool_in(tmp_path / name, policy) for name in ("a", "b")]
    for pool in made:
        pool.build(policy)
    assert made[0].chunks[0].read_bytes() == made[1].chunks[0].read_bytes()


def test_another_base_trunk_or_configuration_has_its_own_folder(base_files: BaseFiles, tmp_path: Path) -> None:
    def folder(base_id: str = base_files.base_id, split: int = 20, config: PoolConfig = SMALL) -> Path:
        return Pool(tmp_path, base_id, split, config).folder

    assert len({folder(), folder("other@1/nf4"), folder(split=19), folder(config=PoolConfig())}) == 4
    assert folder() == folder()


def test_a_pool_of_another_release_goes_a_month_after_its_last_use(policy: Policy, tmp_path: Path) -> None:
    pool = pool_in(tmp_path, policy)
    pool.build(policy)
    ages = {
        "pool-older": 1.01 * UNUSED,
        "pool-newer": 0.99 * UNUSED,
        "gate-older": 2 * UNUSED,
        pool.folder.name: 2 * UNUSED,
    }
    for name, age in ages.items():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "chunk-000.safetensors").touch()
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    pool.build(policy)
    assert {path.name for path in tmp_path.iterdir()} == set(ages) - {"pool-older"}
    assert time.time() - pool.folder.stat().st_mtime < 60, "it was used just now"


def test_groups_survive_a_round_trip(policy: Policy, tmp_path: Path) -> None:
    prompt = policy.render([{"role": "user", "content": "Hello"}])
    group = policy.read(prompt, [[5, 6, 7], [8]], [False, True])  # a reply of one token has no activations
    logprobs = reply_logprobs(policy, [group], 1.0)
    save_groups(tmp_path / "g.safetensors", [group], logprobs)
    ((back, kept),) = load_groups(tmp_path / "g.safetensors")
    assert (back.prompt, back.replies, back.ended) == (group.prompt, group.replies, group.ended)
    assert all(torch.equal(a.float(), b.bfloat16().float()) for a, b in zip(back.trunks, group.trunks, strict=True))
    assert torch.equal(kept, logprobs[0])
    save_groups(tmp_path / "none.safetensors", [], [])
    assert load_groups(tmp_path / "none.safetensors") == []
