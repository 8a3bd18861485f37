"""The shared pool: base replies to shipped prompts, made once a base and reused by everybody's updates.

Each prompt keeps several replies with their trunk activations and their log-probabilities under the base, so that a
person's update can score them all with its own reward head in milliseconds and learn from the best and the worst
without writing a single token. Nothing of any person is in it, so it lives beside the base, not in the data folder.

The pool is built in chunks; a killed build goes on with the first missing one. A damaged chunk is made again. Pools of
another release or of other settings are removed a month after their last use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from adapters.decoding import Sampling
from adapters.files import sha256_json, write_whole
from adapters.packing import Group, micro_batches, pack
from adapters.policy import Policy
from adapters.prompts import shipped_prompts
from adapters.rendering import DEFAULT_SYSTEM
from adapters.rollout import roll_out
from feedback.errors import CorruptFile
from feedback.types import wall

UNUSED = 30 * 86_400.0  # seconds
MAX_POSITIONS = 640  # packed positions a forward: bounds the memory of logits and activations
Prompts = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class PoolConfig:
    """What a pool holds.

    prompts: how many of those offered, 0 for all; chunk: prompts a file: whoever chats ends the build amid one.
    """

    prompts: int = 0
    replies: int = 8
    max_tokens: int = 64
    temperature: float = 0.8
    seed: int = 1
    chunk: int = 12


@dataclass(frozen=True)
class PoolEntry:
    """One prompt of the pool. ref_logprobs: (R, T) under the base, 0 beyond a reply's end."""

    prompt_id: str
    text: str
    group: Group
    ref_logprobs: Tensor


class Pool:
    """The pool of one base, one configuration and one set of prompts, in a folder. Only `build` needs a model.

    name: what it is for; split: the first layer above the trunk (`AdapterConfig.first_layer`); prompts: (id, text) of
    those offered, None for the shipped ones to learn from.
    """

    def __init__(
        self,
        folder: Path,
        base_id: str,
        split: int,
        config: PoolConfig,
        name: str = "pool",
        prompts: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        self.name = name
        offered = list(shipped_prompts("pool") if prompts is None else prompts)
        self.prompts = offered[: config.prompts] if config.prompts else offered
        self.config, self.base_id, self.split = config, base_id, split
        key = sha256_json([asdict(config), self.prompts, base_id, split, DEFAULT_SYSTEM])[:12]
        self.folder = folder / f"{name}-{key}"

    @property
    def chunks(self) -> list[Path]:
        """Where each chunk is or will be."""
        count = -(-len(self.prompts) // self.config.chunk)
        return [self.folder / f"chunk-{index:03d}.safetensors" for index in range(count)]

    @property
    def ready(self) -> float:
        """The share that is built, 0 to 1."""
        return sum(path.exists() for path in self.chunks) / len(self.chunks)

    def build(self, policy: Policy, progress: Callable[[float], None] = lambda share: None) -> None:
        """Write what is missing or damaged; `progress` gets the share of that done and may raise to stop in between."""
        assert (policy.base_id, policy.split) == (self.base_id, self.split), "another base, or another trunk"
        missing = [index for index, path in enumerate(self.chunks) if not is_sound(path)]
        for done, index in enumerate(missing, start=1):
            self._build_chunk(policy, index, self.chunks[index])
            progress(done / len(missing))
        self._clear_up()

    def load(self) -> list[PoolEntry]:
        """All entries, in the order of the prompts; memory-mapped until used. Raises CorruptFile."""
        kept = [pair for path in self.chunks for pair in load_groups(path)]
        return [PoolEntry(*prompt, *pair) for prompt, pair in zip(self.prompts, kept, strict=True)]

    def _clear_up(self) -> None:
        """Mark this pool as used now, and remove those of the same name that nobody has used for long."""
        with contextlib.suppress(OSError):  # a folder that only others may write to is used as it is
            os.utime(self.folder, times=(wall().timestamp(),) * 2)
            for other in self.folder.parent.glob(f"{self.name}-*"):
                if other.is_dir() and wall().timestamp() - other.stat().st_mtime > UNUSED:
                    shutil.rmtree(other)

    def _build_chunk(self, policy: Policy, index: int, path: Path) -> None:
        chunk = self.prompts[index * self.config.chunk : (index + 1) * self.config.chunk]
        ids = [policy.render([{"role": "user", "content": text}]) for _, text in chunk]
        sampling = Sampling(self.config.temperature, 1.0, self.config.max_tokens, self.config.seed * 1000 + index)
        groups = roll_out(policy, ids, self.config.replies, sampling, adapter=None)
        save_groups(path, groups, reply_logprobs(policy, groups, self.config.temperature))


def save_groups(path: Path, groups: Sequence[Group], logprobs: Sequence[Tensor]) -> None:
    """Write groups with the (R, T) log-probabilities of their replies under the base, in one step."""
    tensors: dict[str, Tensor] = {}
    for number, (group, logprob) in enumerate(zip(groups, logprobs, strict=True)):
        lengths = [len(reply) for reply in group.replies]
        tensors[f"{number}.prompt"] = torch.tensor(group.prompt, dtype=torch.int32)
        tensors[f"{number}.lengths"] = torch.tensor(lengths, dtype=torch.int32)
        tensors[f"{number}.ended"] = torch.tensor(group.ended)
        tensors[f"{number}.tokens"] = torch.tensor([t for reply in group.replies for t in reply], dtype=torch.int32)
        tensors[f"{number}.prompt_trunk"] = group.prompt_trunk.to("cpu", torch.bfloat16).contiguous()
        tensors[f"{number}.trunks"] = torch.cat(group.trunks).to("cpu", torch.bfloat16).contiguous()
        tensors[f"{number}.ref_logprobs"] = logprob.detach().cpu().contiguous()
    write_whole(path, save(tensors))


def load_groups(path: Path) -> list[tuple[Group, Tensor]]:
    """What `save_groups` wrote. Raises CorruptFile."""
    try:
        tensors = load_file(path)
        count = sum(name.endswith(".lengths") for name in tensors)
        return [_group(tensors, number) for number in range(count)]
    except (OSError, SafetensorError, KeyError) as error:
        raise CorruptFile(
            f"{path.name} in {path.parent.name} is damaged ({error}); delete it, it is made again."
        ) from error


def _group(tensors: dict[str, Tensor], number: int) -> tuple[Group, Tensor]:
    lengths = tensors[f"{number}.lengths"].tolist()
    group = Group(
        tensors[f"{number}.prompt"].tolist(),
        [reply.tolist() for reply in tensors[f"{number}.tokens"].split(lengths)],
        tensors[f"{number}.ended"].tolist(),
        tensors[f"{number}.prompt_trunk"],
        list(tensors[f"{number}.trunks"].split([length - 1 for length in lengths])),
    )
    return group, tensors[f"{number}.ref_logprobs"]


def is_sound(path: Path) -> bool:
    """Whether a file of groups is there and as long as its own header says."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


@torch.no_grad()
def reply_logprobs(
    policy: Policy, groups: Sequence[Group], temperature: float, adapter: str | None = None
) -> list[Tensor]:
    """Log-probabilities of every reply token under the base (or an adapter): one (R, T) tensor a group, on the CPU."""
    out: dict[int, Tensor] = {}
    policy.use(adapter)
    for batch in micro_batches(groups, MAX_POSITIONS):
        packed = pack([groups[i] for i in batch], policy.device, policy.dtype)
        logprobs = policy.logprobs(packed, temperature)
        for index, rows in zip(batch, logprobs.split([len(groups[i].replies) for i in batch]), strict=True):
            out[index] = rows[:, : max(len(reply) for reply in groups[index].replies)].cpu().contiguous()
    return [out[i] for i in range(len(groups))]
