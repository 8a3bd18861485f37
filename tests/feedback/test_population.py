"""The shared prior that ships, and how it scales features."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from feedback.population import CLIP, FILE, load_population
from feedback.traits import BUMP_NAMES, TRAIT_NAMES, measure
from feedback.vocabulary import FILE as VOCABULARY
from feedback.vocabulary import WORD_NAMES


def test_the_shipped_file_fits_the_traits() -> None:
    raw = json.loads(FILE.read_text("utf-8"))
    assert raw["names"] == [*TRAIT_NAMES, *BUMP_NAMES, *WORD_NAMES]
    assert raw["vocabulary"] == hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()
    assert len(raw["center"]) == len(raw["scale"]) == len(raw["names"])
    assert np.isfinite(raw["center"]).all() and min(raw["scale"]) > 0


@pytest.mark.parametrize("latents", [0, 16])
def test_width_follows_the_latent_features(latents: int) -> None:
    population = load_population(latents)
    assert len(population.names) == len(population.prior.mean) == len(population.prior.sd)
    assert population.version.endswith(f"/{latents}")
    assert population.features(["Hello."], np.zeros((1, latents))).shape == (1, len(population.names))
    assert (population.prior.sd > 0).all()


def test_features_are_standardized_and_clipped() -> None:
    population = load_population(2)
    text = "A plain sentence. And another one, a little longer than that."
    row = population.features([text], np.array([[0.5, 99.0]]))[0]
    expected = (np.array(measure(text)) - population.center) / population.scale
    assert np.allclose(row[:-2], np.clip(expected, -CLIP, CLIP))
    assert row[-2:].tolist() == [0.5, CLIP]
    assert np.abs(population.features(["\U0001f600!" * 500], np.zeros((1, 2)))).max() == CLIP


def test_a_trait_row_picks_one_weight() -> None:
    population = load_population(3)
    row = population.trait_row("emoji")
    assert row.sum() == 1 and population.names[int(row.argmax())] == "emoji"
    with pytest.raises(KeyError):
        population.trait_row("latent_0")
