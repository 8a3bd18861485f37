"""The shared prior: how features are scaled, and what is believed of a person before their first click.

Scales, and what goes together with what, come from base replies to the shipped prompts, the latter from the replies of
quick questions too (standard deviations and covariances among replies to one prompt, since only differences are ever
compared). Prior widths were chosen on simulated tastes that no published figure uses (`python -m benchmarks.head
--tune`; `benchmarks.fit_population` writes the file). What the people of a server who share theirs have in common is
added to its mean (feedback/common.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from feedback.reward_head import Array, Prior
from feedback.traits import BUMP_NAMES, TRAIT_NAMES, measure
from feedback.vocabulary import WORD_NAMES

FILE = Path(__file__).resolve().parent.parent / "data" / "population.json"
CLIP = 4.0  # standard deviations; beyond them a trait is just "very much"
MEASURED = (*TRAIT_NAMES, *BUMP_NAMES, *WORD_NAMES)  # of a text alone


@dataclass(frozen=True)
class Population:
    """Feature scaling and prior for one width of latent features.

    version: changes whenever features or prior do; a head kept under another version is refitted. D = traits + bumps +
    words + latents. together: covariances of the traits with all that is measured, among replies to one prompt.
    """

    version: str
    center: Array  # (traits + bumps + words,)
    scale: Array
    prior: Prior
    latents: int
    together: Array  # (traits, traits + bumps + words)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the D features."""
        return (*MEASURED, *(f"latent_{i}" for i in range(self.latents)))

    def features(self, texts: Sequence[str], latents: Array) -> Array:
        """Feature rows of replies: texts and their (N, latents) latent features → (N, D)."""
        measured = np.array([measure(text) for text in texts]).reshape(len(texts), len(self.center))
        standard = np.clip((measured - self.center) / self.scale, -CLIP, CLIP)
        return np.concatenate([standard, np.clip(latents, -CLIP, CLIP)], axis=1)

    def trait_row(self, name: str) -> Array:
        """A (1, D) row that picks one trait's weight, for corrections. Raises KeyError for an unknown trait."""
        if name not in TRAIT_NAMES:
            raise KeyError(name)
        row = np.zeros((1, len(self.names)))
        row[0, TRAIT_NAMES.index(name)] = 1.0
        return row


@cache
def load_population(latents: int) -> Population:
    """The shipped population for a number of latent features."""
    raw = json.loads(FILE.read_text("utf-8"))
    assert tuple(raw["names"]) == MEASURED, "data/population.json is older than what is measured; refit it"
    widths = raw["prior"]
    sd = np.array(
        [widths["trait_sd"]] * len(TRAIT_NAMES)
        + [widths["bump_sd"]] * len(BUMP_NAMES)
        + [widths["word_sd"]] * len(WORD_NAMES)
        + [widths["latent_sd"]] * latents
    )
    mean = np.zeros(len(sd))
    for name, value in widths["mean"].items():
        mean[MEASURED.index(name)] = value
    prior = Prior(
        mean,
        sd,
        tie=widths["tie"],
        threshold_sd=widths["threshold_sd"],
        shrink=widths["shrink"],
        width_steps=widths["width_steps"],
        quiet=len(WORD_NAMES) + latents,
        heard=widths["heard"],
    )
    center, scale, together = (np.array(raw[key]) for key in ("center", "scale", "together"))
    return Population(f"{raw['version']}/{latents}", center, scale, prior, latents, together)
