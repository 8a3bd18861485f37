"""Checkpoints: whole or absent, of one run, without pickles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapters.checkpoint import Checkpoint, adam_state, restore_adam
from feedback.errors import CorruptFile

STATE = {"adapter.x": torch.arange(4.0), "value.y": torch.ones(2, 2)}


def test_the_newest_comes_back_and_the_older_ones_go(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "run", "key")
    assert kept.latest() is None
    kept.save(1, STATE, {"kl_coef": 0.1})
    kept.save(2, {**STATE, "adapter.x": torch.zeros(4)}, {"kl_coef": 0.2})
    saved = kept.latest()
    assert saved is not None
    assert saved.numbers == {"kl_coef": 0.2}
    assert torch.equal(saved.state["adapter.x"], torch.zeros(4))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["batch-0002"]
    assert {path.suffix for path in (tmp_path / "run" / "batch-0002").iterdir()} == {".safetensors", ".json"}


def test_another_run_does_not_go_on_from_it(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "key").save(3, STATE, {})
    other = Checkpoint(tmp_path, "other")
    assert other.latest() is None
    other.save(3, STATE, {"mine": True})
    saved = other.latest()
    assert saved is not None
    assert saved.numbers == {"mine": True}


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path, "key")
    kept.save(1, STATE, {})
    (tmp_path / ".tmp-batch-0002-abc").mkdir()
    (tmp_path / ".tmp-batch-0002-abc" / "state.safetensors").write_bytes(b"half")
    assert kept.latest() is not None
    assert [path.name for path in tmp_path.iterdir()] == ["batch-0001"]


def test_a_damaged_one_is_an_error_in_words(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path, "key")
    kept.save(1, STATE, {})
    (tmp_path / "batch-0001" / "state.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CorruptFile, match="delete it to start over"):
        kept.latest()


def test_adam_goes_on_as_if_nothing_had_happened() -> None:
    def optimizer_for(parameter: torch.nn.Parameter) -> torch.optim.Adam:
        return torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.99))

    def descend(parameter: torch.nn.Parameter, optimizer: torch.optim.Adam, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (parameter**2).sum().backward()
            optimizer.step()

    through = torch.nn.Parameter(torch.tensor([1.0, -3.0]))
    descend(through, optimizer_for(through), 6)
    first = torch.nn.Parameter(torch.tensor([1.0, -3.0]))
    before = optimizer_for(first)
    descend(first, before, 3)
    second = torch.nn.Parameter(first.detach().clone())
    after = optimizer_for(second)
    restore_adam(after, {name: tensor.clone() for name, tensor in adam_state(before).items()})
    descend(second, after, 3)
    assert torch.equal(second, through)
