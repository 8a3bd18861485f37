"""Common words and groups of words: counted right, and they teach the head what no trait names."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feedback.population import load_population
from feedback.reading import Reading
from feedback.reward_head import Act, Array, Prior, RewardHead, fit
from feedback.vocabulary import FILE, WORD_NAMES, measure_words
from tests.feedback.helpers import ranking

POPULATION = load_population(0)
RAW = json.loads(FILE.read_text("utf-8"))
# Words that replies are made of here: half of them belong to no trait's list.
ASKING = ["what", "how", "when", "where", "which", "who", "why"]
PLAIN_WORDS = ["the", "a", "of", "to", "and", "in", "it", "that", "with", "stone", "table", "road", "paper", "lamp"]
YOU = ["you", "your", "yourself"]


def test_words_by_hand() -> None:
    """Twelve words, two of them "the" and one "of": root rates are 10·√(2/12) and 10·√(1/12)."""
    text = "The stone and the lamp of a house stood on some stones."
    assert len(Reading(text).words) == 12
    measured = dict(zip(WORD_NAMES, measure_words(Reading(text)), strict=True))
    assert measured["word:the"] == pytest.approx(10 * math.sqrt(2 / 12))
    assert measured["word:of"] == pytest.approx(10 * math.sqrt(1 / 12))
    assert measured["word:to"] == 0.0 and "word:you" not in measured  # second_person counts it


def test_a_group_counts_all_its_words() -> None:
    group = next(group.split() for group in RAW["groups"] if len(group.split()) > 12)
    measured = dict(zip(WORD_NAMES, measure_words(Reading(" ".join(group[:12]))), strict=True))
    assert measured[f"group:{group[0]}"] == pytest.approx(10.0)
    grouped = [value for name, value in measured.items() if name.startswith("group:")]
    assert sum(value > 0 for value in grouped) == 1


def test_names_are_unique_and_no_word_is_in_two_groups() -> None:
    words = [word for group in RAW["groups"] for word in group.split()]
    assert len(set(WORD_NAMES)) == len(WORD_NAMES) and len(set(words)) == len(words)


def test_another_language_measures_nothing() -> None:
    assert not any(measure_words(Reading("我喜欢喝茶。")))


# ---- what they are for --------------------------------------------------------------------------------------------


def replies(random: np.random.Generator, count: int) -> list[str]:
    """Replies of thirty words, some of which ask and some of which address somebody."""
    made = []
    for _ in range(count):
        asking, you = random.integers(0, 5, 2)
        words = [
            *random.choice(ASKING, asking),
            *random.choice(YOU, you),
            *random.choice(PLAIN_WORDS, 30 - asking - you),
        ]
        made.append(" ".join(random.permutation(words)) + ".")
    return made


def share(words: list[str]) -> Callable[[str], float]:
    """A taste for some words."""
    return lambda text: sum(word in words for word in text.rstrip(".").split()) / 3.0


def rows(texts: list[str]) -> Array:
    """Features without latent ones."""
    return POPULATION.features(texts, np.zeros((len(texts), 0)))


def taught(taste: Callable[[str], float], count: int, seed: int, prior: Prior) -> RewardHead:
    """After so many noisy rankings of four."""
    random, acts = np.random.default_rng(seed), list[Act]()
    for _ in range(count):
        texts = replies(random, 4)
        worth = 3.0 * np.array([taste(text) for text in texts]) + random.gumbel(size=4)
        acts.append(ranking(rows(texts), *((int(place),) for place in np.argsort(-worth))))
    return fit(acts, prior)


def accuracy(head: RewardHead, taste: Callable[[str], float], seed: int) -> float:
    """Share of pairs of other replies that the head orders as the taste does."""
    texts = replies(np.random.default_rng(1000 + seed), 40)
    worth, scores = np.array([taste(text) for text in texts]), head.score(rows(texts))[0]
    gaps = worth[:, None] - worth[None]
    return float(((scores[:, None] - scores[None]) > 0)[gaps > 0.01].mean())


def gain(words: list[str], count: int) -> tuple[float, float]:
    """Mean accuracy over five people who like some words: with the words' measures, and deaf to them."""
    taste, deaf = share(words), replace(POPULATION.prior, heard=0)

    def mean(prior: Prior) -> float:
        return float(np.mean([accuracy(taught(taste, count, seed, prior), taste, seed) for seed in range(5)]))

    return mean(POPULATION.prior), mean(deaf)


def test_a_taste_that_no_trait_names_is_learned_through_words() -> None:
    heard, deaf = gain(ASKING, 20)
    assert heard > 0.75 and heard > deaf + 0.1


def test_a_taste_that_a_trait_names_loses_nothing() -> None:
    """Five points of a hundred are the tolerance here, where a trait counts just these words and is right in 98 alone.

    On replies of the base the difference is half a point (LOG.md).
    """
    for count in (5, 20):
        heard, deaf = gain(YOU, count)
        assert heard > deaf - 0.05


def digest() -> str:
    """Hash of every bit of the features of some replies and of the head that learned from them."""
    head = taught(share(ASKING), 40, 3, POPULATION.prior)
    features = rows(replies(np.random.default_rng(5), 50))
    return hashlib.sha256(features.tobytes() + head.mean.tobytes() + head.cov.tobytes()).hexdigest()


def test_the_same_replies_give_the_same_bits_with_any_number_of_threads() -> None:
    here = digest()
    script = "from tests.feedback.test_vocabulary import digest; print(digest())"
    for threads in ("1", "2", "4"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here, f"{threads} threads"
