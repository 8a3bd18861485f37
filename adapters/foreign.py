"""A LoRA adapter that was made elsewhere: read, checked, and put into the one shape that adapters have here.

    foreign = read_foreign(Path("adapter.zip"), policy, origin(files))    # a folder or a zip, as PEFT saves it

Two files of it are read, into memory: adapter_config.json and adapter_model.safetensors. Nothing is unpacked, so no
name in a zip leads anywhere, and nothing is unpickled. What is less than an adapter here is filled up without a change
of what it does: a smaller rank with zeros, missing modules with a B of zeros, another scaling within B. What is more (a
larger rank, other modules, layers of the shared trunk) is refused.

Left out on purpose: taking an adapter for its own good word. It is judged afterwards (assistant/foreign.py).
"""

from __future__ import annotations

import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from adapters.policy import LORA_MODULES, Policy
from adapters.versions import CONFIG, MANIFEST, WEIGHTS
from feedback.errors import AdapterRefused

MOST_FILES = 100  # in the folder or zip; PEFT writes three
MOST_CONFIG = 2**20  # bytes
WIDEST = 8  # bytes of a number
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# What this code reads, and what says nothing about what the adapter does once it is trained.
READ = {"peft_type", "task_type", "r", "lora_alpha", "use_rslora", "target_modules", "base_model_name_or_path"}
SILENT = {
    "peft_version", "revision", "inference_mode", "auto_mapping", "lora_dropout", "init_lora_weights",
    "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "loftq_config",
    "runtime_config", "eva_config", "corda_config", "lora_ga_config",
}  # fmt: skip
_NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.[a-z_]+\.([a-z_]+)\.lora_[AB]\.weight")


@dataclass(frozen=True)
class Foreign:
    """An adapter as the policy holds it. state: PEFT's names, fp32; rank: its own, before it was filled up."""

    state: dict[str, Tensor]
    rank: int
    alpha: float


def read_foreign(source: Path, policy: Policy, base: Mapping[str, str]) -> Foreign:
    """Read and check. base: `origin` of the base. Raises AdapterRefused: what was found, and what is needed."""
    name = "foreign"
    policy.new_adapter(name)
    try:
        empty = policy.adapter_state(name)
    finally:
        policy.drop_adapter(name)
    most = WIDEST * sum(tensor.numel() for tensor in empty.values()) + MOST_CONFIG
    files = _read(source, {CONFIG: MOST_CONFIG, WEIGHTS: most, MANIFEST: MOST_CONFIG})
    config = _object(files, CONFIG)
    rank, alpha, scaling = _settings(config, policy)
    _same_base(config, files, base)
    tensors = _tensors(files[WEIGHTS], empty, policy, rank)
    here = policy.config.alpha / policy.config.rank
    for key, tensor in tensors.items():
        part = empty[key]
        if "lora_A" in key:
            part[:rank], part[rank:] = tensor, 0.0
        else:
            part[:, :rank] = tensor * (scaling / here)
    return Foreign(empty, rank, alpha)


# ---- files --------------------------------------------------------------------------------------------------------


def _read(source: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """The bytes of the wanted files that are there, each no longer than allowed."""
    try:
        if source.is_dir():
            names = [path.name for path in source.iterdir()]
            _check_names(names)
            found = {}
            for name in set(names) & set(wanted):
                with (source / name).open("rb") as file:
                    found[name] = _at_most(file.read(wanted[name] + 1), name, wanted[name])
        elif source.is_file():
            found = _unzipped(source, wanted)
        else:
            raise AdapterRefused(f"There is no folder or file {source}.")
    except OSError as error:
        raise AdapterRefused(f"{source.name} cannot be read: {error.strerror or error}.") from error
    if missing := [name for name in (CONFIG, WEIGHTS) if name not in found]:
        raise AdapterRefused(
            f"{source.name} holds no {missing[0]}; an adapter is a folder or a zip with {CONFIG} and {WEIGHTS}, as "
            "PEFT saves it."
        )
    return found


def _unzipped(source: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """The same out of a zip, whose files may lie in one folder. Only so much is unpacked as may be there."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_names([member.filename for member in members])
            found: dict[str, bytes] = {}
            for member in members:
                name = PurePosixPath(member.filename).name
                if name not in wanted:
                    continue
                if name in found:
                    raise AdapterRefused(f"{source.name} holds {name} twice; one adapter at a time can be brought.")
                with archive.open(member) as file:
                    found[name] = _at_most(file.read(wanted[name] + 1), name, wanted[name])
            return found
    except AdapterRefused:
        raise
    # RuntimeError: it is encrypted, or packed in a way that Python does not know; ValueError: a name is no UTF-8.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as error:
        raise AdapterRefused(f"{source.name} is no zip that can be read ({error}).") from error


def _check_names(names: list[str]) -> None:
    """Nothing that leads elsewhere, nothing that runs code when it is read."""
    if len(names) > MOST_FILES:
        raise AdapterRefused(f"It holds {len(names)} files; an adapter has a few, at most {MOST_FILES} are looked at.")
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
            raise AdapterRefused(f"It holds {name[:80]!r}, a name that leads out of its folder; it was not touched.")
        if name.lower().endswith(UNSAFE):
            raise AdapterRefused(
                f"It holds {name[:80]!r}, a pickle, which can run any code when it is read. Save the adapter as "
                f"safetensors (PEFT's save_pretrained does) and leave the pickle out."
            )


def _at_most(data: bytes, name: str, most: int) -> bytes:
    if len(data) > most:
        raise AdapterRefused(f"{name} is larger than {most:,} bytes, which is more than any adapter here can take.")
    return data


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        value = json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise AdapterRefused(f"{name} is no JSON ({error}).") from error
    if not isinstance(value, dict):
        raise AdapterRefused(f"{name} holds {type(value).__name__}, not an object.")
    return value


# ---- what it says of itself ---------------------------------------------------------------------------------------


def _settings(config: Mapping[str, Any], policy: Policy) -> tuple[int, float, float]:
    """Rank, alpha and scaling of a plain LoRA."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterRefused(f"peft_type is {_shown(kind)}; only LORA can be brought.")
    rank, alpha, most = config.get("r"), config.get("lora_alpha"), policy.config.rank
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= most:
        raise AdapterRefused(f"r is {_shown(rank)}; adapters here have a rank of {most}, and 1 to {most} fit into it.")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < 1e6:
        raise AdapterRefused(f"lora_alpha is {_shown(alpha)}; it must be a number above 0.")
    targets = config.get("target_modules")
    named = targets if isinstance(targets, list) else [targets]
    if not all(isinstance(name, str) for name in named):
        raise AdapterRefused(f"target_modules is {_shown(targets)}; it must be a list of {', '.join(LORA_MODULES)}.")
    kinds = {str(name).rpartition(".")[2] for name in named}
    if isinstance(targets, list) and (other := sorted(kinds - set(LORA_MODULES))):
        raise AdapterRefused(f"It changes {other[0][:80]}; adapters here change {', '.join(LORA_MODULES)} only.")
    usual = LoraConfig().to_dict()
    for name in sorted(set(config) - READ - SILENT):
        if config[name] and config[name] != usual.get(name):
            raise AdapterRefused(f"{name[:80]} is {_shown(config[name])}; only plain LoRA can be brought.")
    root = bool(config.get("use_rslora"))
    return rank, float(alpha), alpha / (rank**0.5 if root else rank)


def _same_base(config: Mapping[str, Any], files: Mapping[str, bytes], base: Mapping[str, str]) -> None:
    """By hash where Mynah exported it; else by the last part of the name it tells, unless that is a path of somebody's
    machine."""
    told = ""
    if MANIFEST in files:
        kept = _object(files, MANIFEST).get("base")
        told = str(kept.get("id", "")) if isinstance(kept, dict) else ""
    if told and told.partition("/")[0] != base["id"].partition("/")[0]:
        raise AdapterRefused(f"It was made for the base {told[:80]}; this server runs {base['id']}.")
    name = config.get("base_model_name_or_path")
    if told or not isinstance(name, str) or not name or name.startswith((".", "/", "~")) or "\\" in name:
        return
    known = {base["name"].rpartition("/")[2].lower(), base["id"].partition("@")[0].lower()}
    if name.rstrip("/").rpartition("/")[2].lower() not in known:
        raise AdapterRefused(f"It was made for the base {name[:80]!r}; this server runs {base['name']} ({base['id']}).")


# ---- weights ------------------------------------------------------------------------------------------------------


def _tensors(data: bytes, empty: Mapping[str, Tensor], policy: Policy, rank: int) -> dict[str, Tensor]:
    """The weights in fp32 under the names that adapters have here; each fits."""
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise AdapterRefused(f"{WEIGHTS} is no whole safetensors file ({error}).") from error
    if not found:
        raise AdapterRefused(f"{WEIGHTS} holds no weights.")
    if strangers := sorted(set(found) - set(empty)):
        raise AdapterRefused(_stranger(strangers[0], policy))
    for key, tensor in sorted(found.items()):
        wanted = list(empty[key].shape)
        wanted[0 if "lora_A" in key else 1] = rank
        if list(tensor.shape) != wanted:
            raise AdapterRefused(
                f"{key} is {list(tensor.shape)}; on {policy.base_id} with r = {rank} it must be {wanted}, so it was "
                "made for another base or another rank."
            )
        if not tensor.is_floating_point():
            raise AdapterRefused(f"{key} holds {tensor.dtype}; weights must be floating-point numbers.")
        found[key] = tensor.to(torch.float32)
        if not torch.isfinite(found[key]).all():
            raise AdapterRefused(f"{key} holds numbers that are not finite.")
        if (other := _other_half(key)) not in found:
            raise AdapterRefused(f"{WEIGHTS} has {key} without {other}.")
    return found


def _stranger(key: str, policy: Policy) -> str:
    """Why a tensor has no place here."""
    shown, parts = key[:120], _NAME.fullmatch(key)
    if parts and parts[2] in LORA_MODULES and int(parts[1]) < policy.split:
        return (
            f"{shown} changes layer {parts[1]}; adapters here change the layers {policy.split} to {policy.depth - 1}, "
            "since all below are shared by everybody. Train it with layers_to_transform."
        )
    return (
        f"{shown} is no weight of an adapter on {policy.base_id}, so it was made for another base or by another method."
    )


def _other_half(key: str) -> str:
    return key.replace("lora_A", "lora_B") if "lora_A" in key else key.replace("lora_B", "lora_A")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
