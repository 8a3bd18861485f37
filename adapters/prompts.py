"""The prompts and plain questions that ship with Mynah, each with the one use it is for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

DATA = Path(__file__).resolve().parent.parent / "data"
Split = Literal["pool", "gate", "report"]


@dataclass(frozen=True)
class Question:
    """A plain question with one right answer and wrong ones of the same kind."""

    question: str
    answer: str
    wrong: tuple[str, ...]


@cache
def shipped_prompts(split: Split) -> list[tuple[str, str]]:
    """(id, text) of shipped prompts: "pool" to learn from, "gate" to judge by, "report" for published figures only."""
    return _prompts("prompts.jsonl", split)


@cache
def limit_prompts(split: Split) -> list[tuple[str, str]]:
    """(id, text) of questions whose honest answer admits a limit: what only the asker can know, what nobody can, and
    what a program is. "gate" to judge by, "report" for published figures, "pool" to click on; nobody learns from them.
    """
    return _prompts("limits.jsonl", split)


@cache
def plain_questions() -> list[Question]:
    """Easy, timeless questions that tell whether an adapter forgot what the base knew."""
    rows = [json.loads(line) for line in (DATA / "questions.jsonl").read_text("utf-8").splitlines()]
    return [Question(row["question"], row["answer"], tuple(row["wrong"])) for row in rows]


def _prompts(file: str, split: Split) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (DATA / file).read_text("utf-8").splitlines()]
    return [(row["id"], row["prompt"]) for row in rows if row["split"] == split]
