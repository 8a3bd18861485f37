"""One update as a job: everything the worker needs, frozen in a folder of plain data and tensors.

    JOB_DIR/
        job.json            JobSpec (or PoolJob) without its tensors
        heads.safetensors   the heads that are learned from and judged by (feedback/foretelling.py)
        latents/            the directions that the heads' latent features are along (adapters/latents.py)
        parent/vN/          the version folder to start from, if any
        elsewhere.json      only where another machine has frozen it: see `settle`

No database, no account: a job can be killed, resumed, or run on another machine. What the worker adds to the folder is
described in `adapters/worker.py`.
"""

from __future__ import annotations

import shutil
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from adapters.base_model import BaseFiles, base_by_id, describe
from adapters.checks import GateConfig
from adapters.files import alone, code_version, read_json, write_json, write_whole
from adapters.gate_set import GateFiles
from adapters.latents import Latents
from adapters.policy import AdapterConfig
from adapters.pool import Pool, PoolConfig
from adapters.ppo import PPOConfig
from adapters.rendering import ChatMessage
from adapters.reward import RewardConfig
from adapters.warm_start import WarmStartConfig
from feedback.errors import CorruptFile, InvalidInput, NotSupported
from feedback.foretelling import Split
from feedback.reward_head import RewardHead

HEADS = ("full", "train", "judge")  # of a `Split`, in its order


@dataclass(frozen=True)
class UpdateConfig:
    """How an update is made.

    own_prompts: at most so many of the person's own conversations take part; own_tokens: longer ones lose their oldest
    turns; own_replies: base replies drawn to each. start: from nothing, or from the parent's weights (the head
    remembers all feedback, so nothing is lost by starting anew).
    tensorboard: also write event files into the job's folder (needs the "tensorboard" extra).
    """

    pool: PoolConfig = field(default_factory=PoolConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    own_prompts: int = 8
    own_tokens: int = 256
    own_replies: int = 4
    start: Literal["fresh", "parent"] = "fresh"
    tensorboard: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain nested data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Any) -> UpdateConfig:
        """The reverse of `as_dict`; what is missing keeps its default. Raises InvalidInput for a wrong name or type."""
        return _build(cls, raw, "config")


@dataclass(frozen=True)
class JobSpec:
    """One update: whose evidence, on which base, from what, how.

    population: version of the shared prior that the heads were fitted under; prompts: the person's own conversations,
    newest first, each ending with a user turn; heads: what is learned from and judged by; strict: the person will not
    be asked to compare the result with what they have now, so the gate asks for more; latents: None for those that the
    base has on the machine where the job runs, which are others on every machine.
    """

    update_id: str
    base: BaseFiles
    population: str
    seed: int
    prompts: list[list[ChatMessage]]
    heads: Split
    parent: Path | None = None
    config: UpdateConfig = field(default_factory=UpdateConfig)
    strict: bool = False
    latents: Latents | None = None

    @property
    def labels(self) -> int:
        """How many the person gave; corrections do not count."""
        return self.heads.full.labels


@dataclass(frozen=True)
class PoolJob:
    """Only prepare what all updates on a base share."""

    base: BaseFiles
    config: UpdateConfig


def write_job(folder: Path, spec: JobSpec) -> None:
    """Freeze a job into a folder; it exists once job.json does."""
    folder.mkdir(parents=True, exist_ok=True)
    heads = {  # as contiguous copies: safetensors writes a view of a larger array with the wrong values
        f"{name}.{part}": np.array(getattr(head, part), dtype=np.float64, order="C")
        for name in HEADS
        for head in [getattr(spec.heads, name)]
        for part in ("mean", "cov", "threshold", "labels")
    }
    write_whole(folder / "heads.safetensors", save(heads))
    if spec.parent is not None:
        shutil.copytree(spec.parent, folder / "parent" / spec.parent.name, dirs_exist_ok=True)
    if spec.latents is not None:
        spec.latents.save(folder / "latents")
    raw = {
        "kind": "update",
        "update_id": spec.update_id,
        "base": _base_as_dict(spec.base),
        "population": spec.population,
        "foretold": spec.heads.foretold,
        "seed": spec.seed,
        "prompts": spec.prompts,
        "parent": spec.parent.name if spec.parent else None,
        "config": spec.config.as_dict(),
        "strict": spec.strict,
    }
    write_json(folder / "job.json", raw)


def write_pool_job(folder: Path, base: BaseFiles, config: UpdateConfig) -> None:
    """Freeze a job that only prepares the shared pool."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "job.json", {"kind": "pool", "base": _base_as_dict(base), "config": config.as_dict()})


def read_job(folder: Path) -> JobSpec | PoolJob:
    """The job in a folder. Raises CorruptFile."""
    try:
        raw = read_json(folder / "job.json")
        base = BaseFiles(**{**raw["base"], **{k: Path(raw["base"][k]) for k in ("folder", "full", "quantized")}})
        config = UpdateConfig.from_dict(raw["config"])
        if raw["kind"] == "pool":
            return PoolJob(base, config)
        arrays = load_file(folder / "heads.safetensors")
        full, train, judge = (_head(arrays, name) for name in HEADS)
        return JobSpec(
            raw["update_id"],
            base,
            raw["population"],
            raw["seed"],
            raw["prompts"],
            Split(full, train, judge, float(raw["foretold"])),
            folder / "parent" / raw["parent"] if raw["parent"] else None,
            config,
            bool(raw.get("strict", False)),
            Latents.read(folder / "latents") if (folder / "latents").exists() else None,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CorruptFile(f"The job in {folder.name} cannot be read ({error}); start a new update.") from error


def can_be_read(folder: Path) -> bool:
    """Whether a whole job lies there that is one of this release."""
    try:
        read_job(folder)
    except (CorruptFile, InvalidInput):
        return False
    return True


def settle(folder: Path) -> None:
    """Make a job that was frozen on another machine one of this machine; nothing to do for any other.

    elsewhere.json holds {"models": this machine's models folder, "source": what the base was made from over there,
    "code": that machine's `code_version()`}. Raises MynahError when this machine cannot do what that one asked for.
    """
    if not (folder / "elsewhere.json").exists():
        return
    order = read_json(folder / "elsewhere.json")
    if order["code"] != code_version():
        raise NotSupported("another Mynah is installed there than on the server; bring both to the same release.")
    models = Path(order["models"])
    models.mkdir(parents=True, exist_ok=True)
    raw = read_json(folder / "job.json")
    with alone(models / "preparing", wait=True):  # two jobs may come to a new machine at once
        base = base_by_id(str(raw["base"]["base_id"]), str(order["source"]), models)
    write_json(folder / "job.json", {**raw, "base": _base_as_dict(base)})


def pool_ready(base: BaseFiles, config: UpdateConfig) -> bool:
    """Whether the pool and the gate's base replies are there, so that an update needs no preparation."""
    depth = int(describe(base)["layers"])
    split = config.adapter.first_layer(depth)
    pool = Pool(base.folder / "pool", base.base_id, split, config.pool)
    return pool.ready == 1.0 and GateFiles(base, split, config.gate.measured).ready


def _head(arrays: dict[str, Any], name: str) -> RewardHead:
    return RewardHead(
        arrays[f"{name}.mean"],
        arrays[f"{name}.cov"],
        float(arrays[f"{name}.threshold"]),
        int(arrays[f"{name}.labels"]),
    )


def _base_as_dict(base: BaseFiles) -> dict[str, str]:
    return {name: str(value) for name, value in vars(base).items()}


def _build(cls: Any, raw: Any, where: str) -> Any:
    """A config dataclass from nested plain data."""
    if not isinstance(raw, dict):
        raise InvalidInput(f"{where} is {raw!r}; it must be an object.", param=where)
    known = {each.name for each in fields(cls)}
    if unknown := sorted(set(raw) - known):
        raise InvalidInput(f"{where} has no {unknown[0]!r}; it can hold {', '.join(sorted(known))}.", param=where)
    hints = get_type_hints(cls)
    return cls(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in raw.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, where)
    if get_origin(kind) is Literal:
        allowed: Sequence[Any] = get_args(kind)
        if value not in allowed:
            raise InvalidInput(f"{where} is {value!r}; it can be {', '.join(map(str, allowed))}.", param=where)
        return value
    if get_origin(kind) is types.UnionType:
        if value is None:
            return None
        kind = next(option for option in get_args(kind) if option is not type(None))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise InvalidInput(f"{where} is {value!r}; it must be a {kind.__name__}.", param=where)
    return value
