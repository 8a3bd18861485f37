"""What else could write and train on this machine, each in an environment of its own (`make bench-speed` makes them).

LlamaCpp    one token after the other, from the same weights at 4 bits, with the same adapter as a GGUF
trl         PPO with PEFT on the same quantized base: benchmarks/peer_trl.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from adapters.base_model import BaseFiles
from adapters.files import read_json
from adapters.gguf_adapter import write_gguf
from adapters.policy import Policy
from adapters.ppo import PPOConfig
from adapters.wheel import DEFAULT_WHEEL, fetch_member

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".cache" / "ecosystem"


def python_of(peer: str) -> Path | None:
    """The interpreter of a peer's environment, None where it was not made."""
    made, python = ENVIRONMENTS / peer / ".made", ENVIRONMENTS / peer / "bin" / "python"
    return python if made.exists() else None


class LlamaCpp:
    """llama.cpp as a process that waits to be asked for a run."""

    def __init__(self, python: Path, prompt: Sequence[int], tokens: int, lora: Path | None) -> None:
        asked = {
            "model": str(fetch_member(DEFAULT_WHEEL, ENVIRONMENTS)),
            "lora": str(lora) if lora else None,
            "prompt": list(prompt),
            "tokens": tokens,
            "threads": torch.get_num_threads(),
        }
        command = [str(python), str(Path(__file__).with_name("peer_llama_cpp.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps(asked))

    def milliseconds(self) -> float:
        """Of one more token."""
        self._say("run")
        assert self._process.stdout is not None
        return 1000 * float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def as_gguf(path: Path, policy: Policy, adapter: str, files: BaseFiles) -> Path:
    """A loaded adapter as llama.cpp's file."""
    tensors = {name: tensor.numpy() for name, tensor in policy.adapter_state(adapter).items()}
    lora = policy.lora_config().to_dict()
    write_gguf(path, tensors, lora, read_json(files.full / "config.json"), adapter)
    return path


def trl(python: Path, prompts: Sequence[Sequence[int]], config: PPOConfig, *, spared: bool) -> dict[str, Any]:
    """Episodes, seconds, and each batch's mean score of TRL's PPOTrainer, batches and epochs as in `config`.

    spared: without models of its own for value and reward, LoRA where Mynah has it, on a base that is unpacked.
    """
    asked: dict[str, Any] = {
        "prompts": [list(prompt) for prompt in prompts],
        "batch": config.prompts * config.replies,
        "tokens": config.max_tokens,
        "spared": spared,
        **{name: asdict(config)[name] for name in ("batches", "epochs", "minibatches")},
    }
    done = subprocess.run(
        [str(python), "-m", "benchmarks.peer_trl"], input=json.dumps(asked), capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        sys.stderr.write(done.stderr[-4000:])
        raise RuntimeError("TRL's run failed; what it said stands above.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
