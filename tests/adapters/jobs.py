"""Tiny update jobs: a few prompts and tokens, on the real model, in a folder of their own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from adapters.base_model import BaseFiles
from adapters.job import JobSpec, UpdateConfig
from feedback.foretelling import Split
from feedback.population import Population
from feedback.reward_head import RewardHead, prior_head
from feedback.traits import TRAIT_NAMES

TINY: dict[str, Any] = {
    "pool": {"prompts": 4, "replies": 4, "max_tokens": 10, "chunk": 2},
    "ppo": {"batches": 2, "prompts": 2, "replies": 2, "max_tokens": 8, "epochs": 1, "minibatches": 1},
    "gate": {
        "measured": {
            "prompts": 2,
            "replies": 2,
            "provoking": 2,
            "provoking_replies": 1,
            "limits": 2,
            "limits_replies": 1,
            "questions": 4,
            "max_tokens": 8,
        }
    },
    "own_replies": 2,
}

# As little as can be told apart, for tests that run the real worker many times.
SMALL: dict[str, Any] = {
    "pool": {"prompts": 2, "replies": 2, "max_tokens": 4, "chunk": 1},
    "ppo": {"batches": 2, "prompts": 2, "replies": 2, "max_tokens": 4, "epochs": 1, "minibatches": 1},
    "gate": {
        "measured": {
            "prompts": 1,
            "replies": 2,
            "provoking": 1,
            "provoking_replies": 1,
            "limits": 1,
            "limits_replies": 1,
            "questions": 2,
            "max_tokens": 4,
        }
    },
    "own_replies": 2,
}


def own_base(base: BaseFiles, folder: Path) -> BaseFiles:
    """The same weights with a folder of their own for the pool, so that tests leave nothing beside the real base."""
    folder.mkdir(parents=True)
    shutil.copy(base.folder / "base.json", folder)
    for latents in base.folder.glob("latents-*"):
        shutil.copytree(latents, folder / latents.name)
    return replace(base, folder=folder)


def head_for(population: Population, weights: dict[str, float], labels: int = 20) -> RewardHead:
    """A head that is sure of some traits."""
    start = prior_head(population.prior)
    mean = start.mean.copy()
    for name, weight in weights.items():
        mean[TRAIT_NAMES.index(name)] = weight
    return RewardHead(mean, np.eye(len(mean)) * 0.01, 0.0, labels)


def tiny_job(base: BaseFiles, population: Population, **changes: Any) -> JobSpec:
    """A job of some seconds for somebody who likes being spoken to."""
    head = head_for(population, {"second_person": 1.5})
    spec = JobSpec(
        update_id="up_1",
        base=base,
        population=population.version,
        seed=5,
        prompts=[[{"role": "user", "content": "How do I plant a tree?"}]],
        heads=Split(replace(head, labels=30), head, replace(head, labels=6), 5.0),
        config=UpdateConfig.from_dict(TINY),
    )
    return replace(spec, **changes)
