"""A process of its own that loads an export as its user would and compares it with the version as it is served.

    python -m adapters.export_check < job.json      the result is the last line printed, JSON

The version answers some prompts where it is served (quantized base, adapter on), and so does the base. Then the bundle
is loaded on the unquantized base: `peft` and `vllm` with plain PEFT; `gguf` from what the file holds, put back into
transformers' order of rows; `merged` as a model by itself. What it does to the log-probability of each token of those
replies must be what the version does on the same base; how far that is from where it is served is told.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from adapters.base_model import BaseFiles, load_unquantized
from adapters.decoding import Sampling
from adapters.files import read_json, write_json
from adapters.gguf_adapter import read_gguf
from adapters.policy import Policy
from adapters.pool import reply_logprobs
from adapters.prompts import shipped_prompts
from adapters.rollout import roll_out
from adapters.versions import CONFIG, WEIGHTS

PROMPTS, TOKENS, TEMPERATURE, SEED = 4, 16, 0.8, 0


@dataclass(frozen=True)
class Served:
    """One prompt where the version is served. replies: the version's and the base's; on, off: (2, T) log-probabilities
    with the adapter and without, 0 beyond an end."""

    prompt: list[int]
    replies: list[list[int]]
    on: Tensor
    off: Tensor


def main() -> None:
    """Do what stdin asks for."""
    os.nice(10)
    job = json.loads(sys.stdin.read())
    paths = {key: Path(job["base"][key]) for key in ("folder", "full", "quantized")}
    files = BaseFiles(**{**job["base"], **paths})
    version, bundle, kind = Path(job["version"]), Path(job["bundle"]), str(job["format"])
    found = merge(files, version, bundle) if job["what"] == "merge" else check(files, version, bundle, kind)
    print(json.dumps(found))


def merge(files: BaseFiles, version: Path, bundle: Path) -> dict[str, Any]:
    """Add the adapter to the unquantized weights and save them, in the base's own precision."""
    model, tokenizer = load_unquantized(files)
    config = read_json(files.full / "config.json")
    stored = config.get("dtype") or config.get("torch_dtype")
    merged = _with_adapter(model, version).merge_and_unload()
    merged.to(getattr(torch, str(stored), torch.bfloat16)).save_pretrained(bundle)
    tokenizer.save_pretrained(bundle, save_jinja_files=False)  # several templates would be files in a folder
    return {}


def check(files: BaseFiles, version: Path, bundle: Path, kind: str) -> dict[str, Any]:
    """The figures of `adapters.export.Checked`."""
    served = as_served(files, version)
    base, _ = load_unquantized(files)
    off = [_logprobs(base, each) for each in served]
    version_on = [_logprobs(model, each) for model in [_with_adapter(base, version)] for each in served]
    del base
    on = [_logprobs(model, each) for model in [as_exported(files, bundle, kind)] for each in served]
    return compare(served, off, version_on, on)


def as_served(files: BaseFiles, version: Path) -> list[Served]:
    """What the version and the base write to some prompts, and how likely each finds both."""
    policy = Policy.load(files)
    policy.load_adapter("version", version)
    prompts = [policy.render([{"role": "user", "content": text}]) for _, text in shipped_prompts("gate")[:PROMPTS]]
    sampling = Sampling(TEMPERATURE, 1.0, TOKENS, SEED)
    mine, base = (roll_out(policy, prompts, 1, sampling, adapter=adapter) for adapter in ("version", None))
    groups = [one.joined(other) for one, other in zip(mine, base, strict=True)]
    on, off = (reply_logprobs(policy, groups, 1.0, adapter) for adapter in ("version", None))
    return [Served(g.prompt, g.replies, p, q) for g, p, q in zip(groups, on, off, strict=True)]


def as_exported(files: BaseFiles, bundle: Path, kind: str) -> Any:
    """The model that a bundle makes."""
    if kind == "merged":
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(bundle, dtype=torch.float32, local_files_only=True).eval()
    model, _ = load_unquantized(files)
    if kind != "gguf":
        return _with_adapter(model, bundle)
    tensors, alpha = read_gguf(bundle / "adapter.gguf", read_json(files.full / "config.json"))
    with tempfile.TemporaryDirectory() as scratch:
        save_file(tensors, Path(scratch) / WEIGHTS)
        write_json(Path(scratch) / CONFIG, _lora_of(tensors, alpha))
        return _with_adapter(model, Path(scratch))


def compare(served: list[Served], off: list[Tensor], version_on: list[Tensor], on: list[Tensor]) -> dict[str, Any]:
    """off, version_on, on: of each prompt (2, T) log-probabilities of the same tokens on the unquantized base, by
    itself, with the version and by the bundle."""
    there = [s.on - s.off for s in served]
    here = [p - q for p, q in zip(on, off, strict=True)]
    meant = [p - q for p, q in zip(version_on, off, strict=True)]
    moved = sum(float((t**2).sum()) for t in meant)
    differs = sum(float(((t - h) ** 2).sum()) for t, h in zip(meant, here, strict=True))
    lengths = np.array([[len(reply) for reply in s.replies] for s in served])
    kl = sum(float((s.on[0] - p[0]).sum()) for s, p in zip(served, on, strict=True)) / int(lengths[:, 0].sum())
    margins = [[float(t[0].sum() - t[1].sum()) for t in each] for each in (there, here)]
    told = [(a, b) for a, b in zip(*margins, strict=True) if a]
    return {
        "replies": 2 * len(served),
        "tokens": int(lengths.sum()),
        "contrasts": len(told),
        "kl": kl,
        "agreement": float(np.mean([a * b > 0 for a, b in told])) if told else 1.0,
        "off": differs / moved if moved else float(differs > 0),
    }


@torch.inference_mode()
def _logprobs(model: Any, served: Served) -> Tensor:
    """(2, T) log-probabilities of the replies, 0 beyond an end."""
    width = served.on.shape[1]
    padded = torch.tensor([reply + [0] * (width - len(reply)) for reply in served.replies])
    rows = torch.cat([torch.tensor([served.prompt]).expand(len(padded), -1), padded], 1)  # padding is seen by nothing
    logits = model(input_ids=rows.to(model.device)).logits[:, len(served.prompt) - 1 : -1].float()
    chosen = torch.log_softmax(logits, -1).cpu().gather(2, padded[:, :, None])[:, :, 0]
    lengths = torch.tensor([len(reply) for reply in served.replies])
    return chosen.masked_fill(torch.arange(width) >= lengths[:, None], 0.0)


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for an attribute under its old name
        return PeftModel.from_pretrained(model, str(folder)).eval()


def _lora_of(tensors: dict[str, Any], alpha: float) -> dict[str, Any]:
    """PEFT's description of what a GGUF holds; llama.cpp takes the rank from the matrices."""
    modules = {key.split(".lora_")[0].removeprefix("base_model.model.") for key in tensors}
    rank = next(tensor.shape[0] for key, tensor in tensors.items() if ".lora_A." in key)
    return {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
            "bias": "none", "target_modules": sorted(modules)}  # fmt: skip


if __name__ == "__main__":
    main()
