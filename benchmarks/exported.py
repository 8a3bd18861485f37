"""An exported adapter outside of Mynah: loaded with plain PEFT on the unquantized base, does it still prefer the same?

Only `peft` and `transformers` touch the weights here; of Mynah it takes the prompt's form (the chat template with the
same system prompt) and the replies to compare. The direction is kept if the adapter raises the log-probability of
what the person likes more, against what they like less, on prompts that were not learned from.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from adapters.base_model import BaseFiles, load_unquantized
from adapters.rendering import DEFAULT_SYSTEM


@dataclass(frozen=True)
class Contrast:
    """A prompt with the reply the person likes more and the one they like less."""

    prompt: str
    better: str
    worse: str


@dataclass(frozen=True)
class Direction:
    """What plain PEFT found. moved: mean change of the log-probability margin, nats; right: share of the contrasts
    whose margin grew."""

    contrasts: int
    moved: float
    right: float

    @property
    def kept(self) -> bool:
        """The preference points the same way."""
        return self.moved > 0 and self.right > 0.5


def unpack(archive: bytes, folder: Path) -> list[str]:
    """Unpack an export; returns what is wrong with it (missing files, a local path inside), nothing if all is well."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        opened.extractall(folder)
    wanted = ("adapter_config.json", "adapter_model.safetensors", "README.md", "manifest.json")
    faults = [f"{name} is missing" for name in wanted if not (folder / name).is_file()]
    for path in folder.glob("*.json"):
        faults += [f"{path.name} names the local path {text}" for text in _texts(json.loads(path.read_text("utf-8")))
                   if text.startswith(("/", "~", "file:"))]  # fmt: skip
    return faults


def direction(files: BaseFiles, folder: Path, contrasts: Sequence[Contrast]) -> Direction:
    """Load the adapter with plain PEFT and compare margins with the adapter on and off."""
    from peft import PeftModel

    base, tokenizer = load_unquantized(files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for an attribute under its old name
        model = PeftModel.from_pretrained(base, str(folder)).eval()
    changes = []
    for each in contrasts:
        on = _margin(model, tokenizer, each)
        with model.disable_adapter():
            off = _margin(model, tokenizer, each)
        changes.append(on - off)
    return Direction(len(changes), fmean(changes), fmean(change > 0 for change in changes))


def _margin(model: Any, tokenizer: Any, each: Contrast) -> float:
    """Log-probability of the better reply less that of the worse, each as a mean over its tokens times their number."""
    return _logprob(model, tokenizer, each.prompt, each.better) - _logprob(model, tokenizer, each.prompt, each.worse)


@torch.inference_mode()
def _logprob(model: Any, tokenizer: Any, prompt: str, reply: str) -> float:
    messages = [{"role": "system", "content": DEFAULT_SYSTEM}, {"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    head = tokenizer.encode(text, add_special_tokens=False)
    tail = tokenizer.encode(reply, add_special_tokens=False)
    ids = torch.tensor([head + tail])
    logprobs = torch.log_softmax(model(input_ids=ids).logits[0, len(head) - 1 : -1].float(), -1)
    return float(logprobs.gather(1, torch.tensor(tail)[:, None]).sum())


def _texts(value: Any) -> list[str]:
    """Every text in nested plain data."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    return [text for each in value for text in _texts(each)] if isinstance(value, list) else []
