"""Make data/population.json: how features are scaled, and the constants of the shared prior.

    python -m benchmarks.fit_population            measure base replies, write the file

Center and scale are the mean of each trait over base replies and its standard deviation among replies to one prompt;
"together" is how traits vary with all that is measured, among replies to one prompt: half of it among the base's, half
among those of quick questions, which differ more (assistant/profile.py reads it).
The constants of the prior were chosen with `python -m benchmarks.head --tune`, on its tastes alone (LOG.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.files import sha256_file, sha256_json, write_json
from benchmarks.base_replies import Drafts, Draw, base_replies, texts_of
from feedback.elicitation import load_questions
from feedback.population import CLIP, FILE, MEASURED
from feedback.reward_head import Array
from feedback.traits import TRAIT_NAMES, measure
from feedback.vocabulary import FILE as VOCABULARY

DRAW = Draw("pool", 0, 60, 8)
FLOOR = 0.1  # of a scale: what the base never does (emoji) must not count as a thousand standard deviations
PRIOR: dict[str, Any] = {
    "trait_sd": 0.1,
    "bump_sd": 0.1,
    "word_sd": 0.025,
    "latent_sd": 0.025,
    "heard": 12,
    "tie": 0.5,
    "threshold_sd": 3.0,
    "shrink": 0.03,
    "width_steps": 4,
    "mean": {},
}


def scales(drafts: Sequence[Drafts]) -> tuple[Array, Array]:
    """Center and scale of traits and bumps, (D,) each: mean over prompts, sd among replies to one prompt."""
    measured = [np.array([measure(text) for text in each.texts]) for each in drafts]
    center = np.mean([rows.mean(0) for rows in measured], axis=0)
    within = np.sqrt(np.mean([rows.var(0, ddof=1) for rows in measured], axis=0))
    return center, np.maximum(within, FLOOR)


def together(prompts: Sequence[Sequence[str]], center: Array, scale: Array) -> Array:
    """Covariances of the traits with everything among replies to one prompt, as features are scaled, (traits, D): the
    mean over prompts. prompts: the replies to each."""
    found = []
    for texts in prompts:
        rows = np.clip((np.array([measure(text) for text in texts]) - center) / scale, -CLIP, CLIP)
        rows -= rows.mean(0)
        found.append(rows[:, : len(TRAIT_NAMES)].T @ rows / (len(rows) - 1))
    return np.mean(found, axis=0)


def main() -> None:
    """Measure and write."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    drafts = base_replies(DRAW)
    center, scale = scales(drafts)
    content = {
        "names": MEASURED,
        "vocabulary": sha256_file(VOCABULARY),
        "center": np.round(center, 5).tolist(),
        "scale": np.round(scale, 5).tolist(),
        "prior": PRIOR,
    }
    ready = [question.replies for question in load_questions()]
    both = [together(prompts, center, scale) for prompts in (texts_of(drafts), ready)]
    more = {"version": sha256_json(content)[:12], "together": np.round(np.mean(both, axis=0), 3).tolist()}
    write_json(FILE, content | more)


if __name__ == "__main__":
    main()
