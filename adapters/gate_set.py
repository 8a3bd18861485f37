"""What the base itself does at the gate: made once a base, kept beside the pool, compared with every candidate.

    gate        base replies to prompts that nobody learns from
    provoking   base replies to prompts that ask for harm
    limits      base replies to questions whose honest answer admits a limit
    questions   plain questions with one right answer, each answer's log-probability under the base

Nothing of any person is in it. Left out on purpose: any judgement (adapters/gate.py).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adapters.base_model import BaseFiles
from adapters.files import sha256_json
from adapters.packing import Group
from adapters.policy import Policy
from adapters.pool import Pool, PoolConfig, PoolEntry, is_sound, load_groups, reply_logprobs, save_groups
from adapters.prompts import Question, limit_prompts, plain_questions, shipped_prompts
from adapters.rendering import DEFAULT_SYSTEM
from adapters.safety import DATA as SAFETY

CHUNK = 12  # prompts a file, so that a killed build loses little
STRIDE = 4
Array = NDArray[np.float64]


@dataclass(frozen=True)
class GateSetConfig:
    """How much is asked. prompts, provoking, limits, questions: how many, 0 for all there are; replies: to each gate
    prompt, provoking_replies and limits_replies: to each of those, by the base and by the candidate alike."""

    prompts: int = 0
    replies: int = 4
    provoking: int = 24
    provoking_replies: int = 2
    limits: int = 0
    limits_replies: int = 8
    questions: int = 0
    max_tokens: int = 64
    temperature: float = 0.8
    seed: int = 2


@dataclass(frozen=True)
class GateSet:
    """The base's side. questions: a group's first reply is the right answer, the others are wrong."""

    prompts: list[PoolEntry]
    provoking: list[PoolEntry]
    limits: list[PoolEntry]
    questions: list[tuple[Group, Tensor]]


class GateFiles:
    """Where the base's side lies. Only `build` needs a model."""

    def __init__(self, base: BaseFiles, split: int, config: GateSetConfig) -> None:
        folder, c = base.folder / "pool", config
        ordinary = PoolConfig(c.prompts, c.replies, c.max_tokens, c.temperature, c.seed, CHUNK)
        provoking = PoolConfig(c.provoking, c.provoking_replies, c.max_tokens, c.temperature, c.seed, CHUNK)
        self.prompts = Pool(folder, base.base_id, split, ordinary, "gate", shipped_prompts("gate"))
        self.provoking = Pool(folder, base.base_id, split, provoking, "provoking", provoking_prompts())
        limits = PoolConfig(c.limits, c.limits_replies, c.max_tokens, c.temperature, c.seed, CHUNK)
        self.limits = Pool(folder, base.base_id, split, limits, "limits", limit_prompts("gate"))
        self.asked = plain_questions()[: config.questions or None]
        asked = [[each.question, each.answer, each.wrong] for each in self.asked]
        self._questions = folder / f"questions-{sha256_json([asked, base.base_id, split, DEFAULT_SYSTEM])[:12]}"

    @property
    def ready(self) -> bool:
        """Whether all of it is there."""
        replies = (self.prompts, self.provoking, self.limits)
        return all(pool.ready == 1.0 for pool in replies) and all(path.exists() for path, _ in self._chunks())

    def build(self, policy: Policy, progress: Callable[[float], None] = lambda share: None) -> None:
        """Write what is missing; `progress` gets the share done and may raise to stop."""
        self.prompts.build(policy, lambda share: progress(0.4 * share))
        self.provoking.build(policy, lambda share: progress(0.4 + 0.15 * share))
        self.limits.build(policy, lambda share: progress(0.55 + 0.2 * share))
        chunks = self._chunks()
        for index, (path, asked) in enumerate(chunks):
            if not is_sound(path):
                groups = [_read(policy, each) for each in asked]
                save_groups(path, groups, reply_logprobs(policy, groups, 1.0))
            progress(0.75 + 0.25 * (index + 1) / len(chunks))

    def load(self) -> GateSet:
        """What `build` wrote. Raises CorruptFile."""
        questions = [pair for path, _ in self._chunks() for pair in load_groups(path)]
        return GateSet(self.prompts.load(), self.provoking.load(), self.limits.load(), questions)

    def _chunks(self) -> list[tuple[Path, list[Question]]]:
        starts = range(0, len(self.asked), CHUNK)
        return [
            (self._questions / f"chunk-{number:03d}.safetensors", self.asked[start : start + CHUNK])
            for number, start in enumerate(starts)
        ]


def provoking_prompts() -> list[tuple[str, str]]:
    """(id, text) of requests that should be declined, so ordered that any beginning of the list covers all subjects."""
    with (SAFETY / "simple_safety_tests_100.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["id"], row["prompts_final"]) for row in csv.DictReader(file)]
    return [row for first in range(STRIDE) for row in rows[first::STRIDE]]


def answer_scores(logprobs: Sequence[Tensor]) -> Array:
    """Log-probability of every answer, (Q, 4), from those of its tokens; column 0 is the right one.

    The sum over its tokens: the embedded base is right 63% of the time by it, 54% by the mean.
    """
    return np.stack([rows.double().sum(1).cpu().numpy() for rows in logprobs])


def _read(policy: Policy, asked: Question) -> Group:
    """A question with its answers as replies, without an end token: how a reply goes on is no matter of knowledge."""
    prompt = policy.render([{"role": "user", "content": asked.question}])
    replies = [policy.renderer.reply_ids(text, ended=False) for text in (asked.answer, *asked.wrong)]
    return policy.read(prompt, replies, [False] * len(replies))
