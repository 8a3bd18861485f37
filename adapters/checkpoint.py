"""Where a training run stands, on disk, so that a kill costs at most one batch.

Below the run's folder lies one whole folder a finished batch, of which the newest is kept:

    batch-0007/state.safetensors    the adapter, Adam's moments and whatever else learns
    batch-0007/numbers.json         counters, coefficients and metrics, with the key of the run they belong to

Tensors are safetensors and numbers are JSON: nothing here can run code when it is read. Left out: older batches.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.files import read_json, sweep, whole_folder, write_json
from feedback.errors import CorruptFile

ADAM_FIELDS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Saved:
    """What one finished batch left. state: tensors by name; numbers: JSON values by name."""

    state: dict[str, Tensor]
    numbers: dict[str, Any]


class Checkpoint:
    """The checkpoint folder of one run. key: hash of all that makes the run what it is; another key's is ignored."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def save(self, number: int, state: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Publish the state after `number` finished batches, then let go of the older ones."""
        final = self.folder / f"batch-{number:04d}"
        shutil.rmtree(final, ignore_errors=True)  # only another run's can be in the way
        with whole_folder(final) as draft:
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
            save_file(plain, draft / "state.safetensors")
            write_json(draft / "numbers.json", {**numbers, "key": self.key})
        for folder in self._batches():
            if folder != final:
                shutil.rmtree(folder, ignore_errors=True)

    def latest(self) -> Saved | None:
        """The newest state of this very run, if there is one. Raises CorruptFile when it cannot be read."""
        if not self.folder.is_dir():
            return None
        sweep(self.folder)
        for folder in reversed(self._batches()):
            try:
                numbers = read_json(folder / "numbers.json")
                if numbers.pop("key") == self.key:
                    return Saved(load_file(folder / "state.safetensors"), numbers)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                raise CorruptFile(f"{folder} cannot be read ({error}); delete it to start over.") from error
        return None

    def _batches(self) -> list[Path]:
        return sorted(self.folder.glob("batch-*"))


def adam_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments as plain tensors, `adam.<parameter number>.<field>`; empty before the first step."""
    moments = optimizer.state_dict()["state"]
    return {f"adam.{index}.{field}": fields[field] for index, fields in moments.items() for field in ADAM_FIELDS}


def restore_adam(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Put back what `adam_state` gave; other names are ignored."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("adam."):
            _, index, field = name.split(".")
            moments.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
