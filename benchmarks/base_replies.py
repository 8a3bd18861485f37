"""Base replies to shipped prompts, written once and kept: what simulated people read and click on.

    benchmarks/results/work/replies-<hash>.jsonl     one prompt a line; a run that was stopped goes on after the last

Left out on purpose: anything but the base. Adapters' replies are drawn by the benchmark that trains them.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from adapters.base_model import DEFAULT_BASE, prepare_base
from adapters.decoding import Generation, Sampling
from adapters.files import sha256_json
from adapters.gate_set import GateSetConfig, provoking_prompts
from adapters.latents import SUBJECT_TOKENS, latents_for
from adapters.policy import Policy
from adapters.prompts import DATA, Split, limit_prompts, shipped_prompts
from assistant.config import default_models_dir
from benchmarks.safety_data import read_written
from feedback.reward_head import Array

Source = Split | Literal["passages", "provoking", "provoking_report", "limits", "limits_report"]
SUMMARIZE = "Summarize the following text in two or three sentences.\n\n"
WORK = Path(__file__).resolve().parent / "results" / "work"


@dataclass(frozen=True)
class Draw:
    """Which replies: `copies` to every `stride`-th of the prompts `start` … `stop` of a source."""

    split: Source
    start: int
    stop: int
    copies: int
    max_tokens: int = 64
    temperature: float = 0.8
    stride: int = 1
    seed: int = 11


@dataclass(frozen=True)
class Drafts:
    """Base replies to one prompt; N of them with K latent features."""

    prompt_id: str
    prompt: str
    texts: list[str]
    ended: list[bool]
    latent: Array  # (N, K)
    subject: Array  # (N,)


class Base:
    """The embedded base, loaded when something must be written."""

    def __init__(self) -> None:
        files = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
        self.policy = Policy.load(files)
        self.latents = latents_for(files, self.policy)

    def write(self, prompt_id: str, prompt: str, draw: Draw, seed: int) -> Drafts:
        """`draw.copies` replies to one prompt, in one batch."""
        sampling = Sampling(draw.temperature, 1.0, draw.max_tokens, seed)
        ids = self.policy.render([{"role": "user", "content": prompt}])
        batch = Generation([ids], draw.copies, sampling, self.policy.renderer.end_ids)
        self.policy.use(None)
        batch.run(self.policy)
        means = batch.trunk_means().double().cpu().numpy()
        about = batch.prompt_means(SUBJECT_TOKENS)[0].double().cpu().numpy()
        return Drafts(
            prompt_id,
            prompt,
            [self.policy.renderer.text(reply) for reply in batch.replies],
            list(batch.ended),
            self.latents.features(means),
            self.latents.subject(about, means),
        )


def base_replies(draw: Draw, base: Base | None = None) -> list[Drafts]:
    """The replies of a draw, from the kept file as far as it goes; the base is loaded only for what is missing.

    base: one that is loaded already. Of two runs that miss the same replies, one writes while the other waits.
    """
    prompts = prompts_of(draw.split)[draw.start : draw.stop : draw.stride]
    path = WORK / f"replies-{sha256_json([asdict(draw), prompts])[:12]}.jsonl"
    have = _read(path)
    if len(have) < len(prompts):
        base = base or Base()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            have = _read(path)
            for index in range(len(have), len(prompts)):
                drafts = base.write(*prompts[index], draw, draw.seed * 100_003 + draw.start + index)
                kept = asdict(drafts) | {"latent": drafts.latent.tolist(), "subject": drafts.subject.tolist()}
                print(json.dumps(kept), file=file, flush=True)
                have.append(drafts)
    return have


@cache
def prompts_of(split: Source) -> list[tuple[str, str]]:
    """(id, text) of the prompts of a split, of requests to summarize a passage, of requests for harm (those that the
    gate does not use, or those for figures, from which neither part of the safety term learned), or of questions that
    ask for a limit: those that one learns from, or those for figures."""
    if split == "provoking_report":
        asked = (row["prompt"] for row in read_written("test") if row["harmful"])
        return [(f"written-{number}", prompt) for number, prompt in enumerate(asked)]
    if split == "provoking":
        return provoking_prompts()[GateSetConfig().provoking :]
    if split in ("limits", "limits_report"):
        return limit_prompts("pool" if split == "limits" else "report")
    if split != "passages":
        return shipped_prompts(split)
    rows = [json.loads(line) for line in (DATA / "passages.jsonl").read_text("utf-8").splitlines()]
    return [(row["id"], SUMMARIZE + row["text"]) for row in rows]


def _read(path: Path) -> list[Drafts]:
    """Complete lines only: a killed run leaves at most one half line, which is cut off."""
    if not path.exists():
        return []
    whole, newline, _ = path.read_text("utf-8").rpartition("\n")
    path.write_text(whole + newline, "utf-8")
    rows = [json.loads(line) for line in whole.splitlines()]
    return [Drafts(**(row | {"latent": np.array(row["latent"]), "subject": np.array(row["subject"])})) for row in rows]


def texts_of(drafts: Sequence[Drafts]) -> list[list[str]]:
    """The texts alone, one list a prompt."""
    return [each.texts for each in drafts]
