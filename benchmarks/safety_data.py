"""data/safety as the two parts of the safety term learn from it: texts, pairs and requests, in two halves.

A row's half follows from a hash of its prompt (of the text itself where there is none), so both answers of a pair and
all dialogues that open alike fall into one half; a text that turns up in both is kept in one. The test split of
written.jsonl and the replies from tulu1_human_eval (their licence asks for evaluation only) are never trained on.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adapters.files import sha256_file
from adapters.safety import DATA, normalize

CATEGORIES = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")
SOURCES = (
    "openai_moderation_1680.jsonl.gz",
    "hh_harmless_base_test.jsonl.gz",
    "simple_safety_tests_100.csv",
    "benign.jsonl.gz",
    "written.jsonl",
    "provoked.jsonl",
    "lexicon.json",
)
EVALUATION_ONLY = "tulu1_human_eval"


@dataclass(frozen=True)
class Recipe:
    """Weights of the sources, where a moderation row has 1, and of the penalty. pairs: of an HH pair; l2: half of it is
    the penalty on |w|²."""

    l2: float = 0.1
    pairs: float = 0.2
    written: float = 3.0
    provoked: float = 2.0
    request: float = 3.0
    salt: int = 1


@dataclass(frozen=True)
class Row:
    """A text with its label, 1 = harmful. Weight 0: for evaluation only."""

    source: str
    text: str
    label: int
    weight: float
    prompt: str = ""

    @property
    def key(self) -> str:
        return key_of(self.prompt or self.text)


@dataclass(frozen=True)
class Pair:
    """Two final answers to one dialogue; people found `worse` the more harmful."""

    prompt: str
    better: str
    worse: str
    key: str


@dataclass
class Half:
    """What one part may learn from, and the other is measured on. requests: prompts, 1 = should be refused."""

    rows: list[Row] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    requests: list[Row] = field(default_factory=list)


def key_of(text: str) -> str:
    """What decides the half: the first 80 letters and digits."""
    return "".join(filter(str.isalnum, text.lower()))[:80]


def half_of(key: str) -> int:
    """0 or 1, the same everywhere."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) & 1


def read_halves(recipe: Recipe, folder: Path = DATA) -> tuple[Half, Half]:
    """All data but the written test split, in two halves without a common text."""
    halves = (Half(), Half())
    home: dict[str, int] = {}

    def ours(key: str, *texts: str) -> bool:
        return all(home.setdefault(normalize(text), half_of(key)) == half_of(key) for text in texts)

    for row in _rows(recipe, folder):
        if ours(row.key, row.text):
            halves[half_of(row.key)].rows.append(row)
    for pair in _pairs(folder):
        if ours(pair.key, pair.better, pair.worse):
            halves[half_of(pair.key)].pairs.append(pair)
    for row in _requests(recipe, folder):
        halves[half_of(row.key)].requests.append(row)
    return halves


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _rows(recipe: Recipe, folder: Path) -> Iterator[Row]:
    for line in _lines(folder / "openai_moderation_1680.jsonl.gz"):
        labels = [line.get(category) for category in CATEGORIES]
        if 1 in labels or None not in labels:  # without a 1, a missing label leaves the text unknown
            yield Row("moderation", line["prompt"], int(1 in labels), 1.0)
    for line in _lines(folder / "benign.jsonl.gz"):
        weight = 0.0 if line["source"] == EVALUATION_ONLY else 1.0
        yield Row(line["source"], line["reply"], 0, weight, line["prompt"])
    for line in read_written("train", folder):
        yield Row("written", line["harmless"], 0, recipe.written, line["prompt"])
        if line["harmful"]:
            yield Row("written", line["harmful"], 1, recipe.written, line["prompt"])
    for line in _lines(folder / "provoked.jsonl"):
        yield Row("provoked", line["reply"], line["harmful"], recipe.provoked, line["prompt"])


def _pairs(folder: Path) -> Iterator[Pair]:
    for line in _lines(folder / "hh_harmless_base_test.jsonl.gz"):
        (dialogue, better), (_, worse) = (line[side].rsplit("\n\nAssistant:", 1) for side in ("chosen", "rejected"))
        turns = [turn.split("\n\nAssistant:")[0].strip() for turn in dialogue.split("\n\nHuman:")[1:]]
        yield Pair(turns[-1], better.strip(), worse.strip(), key_of(turns[0]))


def _requests(recipe: Recipe, folder: Path) -> Iterator[Row]:
    with (folder / "simple_safety_tests_100.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            yield Row("simple_safety_tests", line["prompts_final"], 1, recipe.request)
    for line in read_written("train", folder):
        yield Row("written", line["prompt"], int(bool(line["harmful"])), recipe.request)
    weights = {line["prompt"]: line["source"] for line in _lines(folder / "benign.jsonl.gz")}
    for prompt, source in weights.items():
        yield Row(source, prompt, 0, 0.0 if source == EVALUATION_ONLY else 1.0)


def read_written(split: Literal["train", "test"], folder: Path = DATA) -> list[dict[str, Any]]:
    """The hand-written cases: prompt, a harmless reply, and a harmful one or None where the request is innocent."""
    return [line for line in _lines(folder / "written.jsonl") if line["split"] == split]


def read_lexicon(folder: Path = DATA) -> dict[str, str]:
    """Each word of the lexicon with its group."""
    groups = json.loads((folder / "lexicon.json").read_text("utf-8"))
    return {word: group for group, words in groups.items() for word in words.split()}


def data_hash(folder: Path = DATA) -> str:
    """One hash of everything the weights are made from, kept inside them."""
    return hashlib.sha256("".join(sha256_file(folder / name) for name in SOURCES).encode()).hexdigest()
