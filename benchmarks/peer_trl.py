"""Runs where TRL is (`make bench-speed`): episodes a second of its PPOTrainer with PEFT, on the same base.

    python -m benchmarks.peer_trl < asked.json        {"prompts": token ids, "tokens", "batch", "batches", "epochs",
                                                       "minibatches", "spared"}

What a reply is worth is a count of its tokens, the same as on the other side. As TRL's own examples have it, that is
the business of a reward model, a second model is trained whole as the value model, and LoRA is on all layers of a base
in 4 bits. Spared, it reads no reward model, trains one row on top of a frozen base, has LoRA where Mynah has it, and a
base that is unpacked once. Prints one line of JSON, the last.
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
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding
from trl.experimental.ppo import PPOConfig, PPOTrainer

from adapters.base_model import DEFAULT_BASE, load_base, prepare_base
from adapters.policy import Policy
from assistant.config import default_models_dir


class Reads(nn.Module):
    """The share of even token ids of a reply so far, as a hidden state of width one.

    tokens: how many columns at the end are the reply. model: read as well, as a reward model would be.
    """

    def __init__(self, tokens: int, model: nn.Module | None) -> None:
        super().__init__()
        self.tokens, self.model = tokens, model

    def forward(self, input_ids: Tensor, **kwargs: Any) -> SimpleNamespace:
        if self.model is not None:
            self.model(input_ids, **kwargs)
        even = (input_ids[:, -self.tokens :] % 2 == 0).float().cumsum(1)
        share = even / torch.arange(1, self.tokens + 1, device=even.device)
        before = even.new_zeros(len(input_ids), input_ids.shape[1] - self.tokens)
        return SimpleNamespace(hidden_states=[torch.cat([before, share], dim=1)[..., None]])


class Reward(nn.Module):
    """A reward model by TRL's interface."""

    base_model_prefix = "reads"

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads, self.score = reads, nn.Identity()


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
    spared, tokens = asked["spared"], asked["tokens"]
    files = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
    base, tokenizer = load_base(files)
    lora = Policy(base, tokenizer, files.base_id).lora_config()
    value: nn.Module
    if spared:
        base, value, reward = load_base(files)[0], Value(load_base(files)[0]), Reward(Reads(tokens, None))
    else:
        lora.layers_to_transform = lora.layers_pattern = None
        base = load_base(files, expand=False)[0]
        value, judge = (
            AutoModelForSequenceClassification.from_pretrained(files.full, num_labels=1, dtype=base.dtype)
            for _ in range(2)
        )
        reward = Reward(Reads(tokens, judge.model))
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
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": rows}),
            eval_dataset=Dataset.from_dict({"input_ids": rows[:8]}),
            data_collator=DataCollatorWithPadding(tokenizer),
            peft_config=lora,
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    scores = [entry["objective/scores"] for entry in trainer.state.log_history if "objective/scores" in entry]
    print(json.dumps({"episodes": asked["batch"] * asked["batches"], "seconds": seconds, "scores": scores}))


if __name__ == "__main__":
    main()
