"""Runs where TRL is (`make bench-speed`): episodes a second of its PPOTrainer with PEFT, on the same base.

    python -m benchmarks.peer_trl < asked.json        {"prompts": token ids, "tokens", "batch", "batches", "epochs",
                                                       "minibatches"}

What TRL is spared here: its reward model is a count of tokens and takes no time, and its value model is the base with
one trained row on top, where its own examples train a second model whole. Prints one line of JSON, the last.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import DataCollatorWithPadding
from trl.experimental.ppo import PPOConfig, PPOTrainer

from adapters.base_model import DEFAULT_BASE, load_base, prepare_base
from adapters.policy import Policy
from assistant.config import default_models_dir


class Reads(nn.Module):
    """The share of even token ids so far, as a hidden state of width one."""

    def forward(self, input_ids: Tensor, **kwargs: Any) -> SimpleNamespace:
        even = (input_ids % 2 == 0).float().cumsum(1)
        return SimpleNamespace(hidden_states=[(even / torch.arange(1, input_ids.shape[1] + 1))[..., None]])


class Reward(nn.Module):
    """A reward model by TRL's interface."""

    base_model_prefix = "reads"

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.score = Reads(), nn.Identity()


class Value(nn.Module):
    """A value model by TRL's interface: the frozen base and one row."""

    base_model_prefix = "model"

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.model, self.row = base.model, nn.Linear(base.config.hidden_size, 1)

    def score(self, hidden: Tensor) -> Tensor:
        """(B, T, H) → (B, T, 1)."""
        value: Tensor = self.row(hidden.float())
        return value


def main() -> None:
    """Train, print."""
    asked = json.load(sys.stdin)
    files = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
    base, tokenizer = load_base(files)
    lora = Policy(base, tokenizer, files.base_id).lora_config()
    base, _ = load_base(files)
    tokenizer.pad_token = "<|endoftext|>"  # TRL masks every pad, and Mynah's chats are full of the usual one
    tokenizer.padding_side = "left"
    rows = asked["prompts"] * -(-asked["batch"] // len(asked["prompts"]))
    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=asked["batch"] // 8,
            num_mini_batches=asked["minibatches"],
            num_ppo_epochs=asked["epochs"],
            total_episodes=asked["batch"] * asked["batches"],
            response_length=asked["tokens"],
            local_rollout_forward_batch_size=asked["batch"],
            temperature=0.8,
            learning_rate=1e-3,
            stop_token="eos",
            num_sample_generations=0,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=base,
            ref_model=None,
            reward_model=Reward(),
            value_model=Value(load_base(files)[0]),
            train_dataset=Dataset.from_dict({"input_ids": rows}),
            eval_dataset=Dataset.from_dict({"input_ids": rows[:8]}),
            data_collator=DataCollatorWithPadding(tokenizer),
            peft_config=lora,
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    print(json.dumps({"episodes": asked["batch"] * asked["batches"], "seconds": seconds}))


if __name__ == "__main__":
    main()
