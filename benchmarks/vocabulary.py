"""Make data/vocabulary.json: the commonest words of base replies, and groups of words that the base takes for alike.

    python -m benchmarks.vocabulary            then benchmarks.fit_population, which scales what they measure

Groups come from the base's own input embeddings: k-means on the sphere (Dhillon & Modha 2001) over the words that base
replies to pool prompts use, weighted by the root of how often; then every whole word among the first tokens of the
vocabulary, which are the frequent ones, joins the nearest center, if it is near at all. Words that a named trait counts
are not counted again by themselves. Nothing here knows of a taste.
"""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
from safetensors.torch import load_file

from adapters.base_model import DEFAULT_BASE, prepare_base
from adapters.files import write_json
from assistant.config import default_models_dir
from benchmarks.base_replies import base_replies
from benchmarks.fit_population import DRAW
from feedback import words
from feedback.reading import Reading
from feedback.reward_head import Array
from feedback.vocabulary import FILE

COMMON, GROUPS = 64, 64
STARTS, ROUNDS = 3, 40
TOKENS = 20_000
NEAR = 0.2  # cosine from which a word belongs to a group


def main() -> None:
    """Read the base, count, group, write."""
    uses, spread = Counter[str](), Counter[str]()
    for drafts in base_replies(DRAW):
        said = [word for text in drafts.texts for word in Reading(text).words]
        uses.update(said)
        spread.update(set(said))
    known, vectors = _embeddings()
    weights = np.sqrt([float(uses[word]) for word in known])
    used = weights > 1
    vectors = _unit(vectors - np.average(vectors[used], axis=0, weights=weights[used]))
    centers = max((_centers(vectors[used], weights[used], seed) for seed in range(STARTS)), key=lambda found: found[0])[
        1
    ]
    near = vectors @ centers.T
    groups: list[list[str]] = [[] for _ in range(GROUPS)]
    for row in np.argsort(-weights, kind="stable"):
        if near[row].max() >= NEAR:
            groups[int(near[row].argmax())].append(known[row])
    listed = {word for name, listed in vars(words).items() if name.isupper() for word in listed.split()}
    common = sorted(set(spread) - listed, key=lambda word: (-spread[word], word))[:COMMON]
    write_json(FILE, {"common": common, "groups": sorted(" ".join(group) for group in groups if group)})


def _embeddings() -> tuple[list[str], Array]:
    """Whole words of the base's vocabulary, frequent ones first, and their input embeddings (N, H)."""
    full = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4").full
    tokens: dict[str, int] = json.loads((full / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    places = {token[1:]: place for token, place in tokens.items() if re.fullmatch(r"Ġ[a-z]{2,}", token)}
    known = sorted((word for word, place in places.items() if place < TOKENS), key=places.__getitem__)
    table = load_file(full / "model.safetensors")["model.embed_tokens.weight"].double().numpy()
    return known, table[[places[word] for word in known]]


def _centers(vectors: Array, weights: Array, seed: int) -> tuple[float, Array]:
    """How near the words lie to their centers, and the centers (GROUPS, H): k-means++, then rounds of means."""
    random = np.random.default_rng(seed)
    centers = vectors[random.choice(len(vectors), 1, p=weights / weights.sum())]
    while len(centers) < GROUPS:
        far = np.maximum(1 - (vectors @ centers.T).max(1), 0) * weights
        centers = np.append(centers, vectors[random.choice(len(vectors), 1, p=far / far.sum())], axis=0)
    for _ in range(ROUNDS):
        member = (vectors @ centers.T).argmax(1)
        sums = np.zeros_like(centers)
        np.add.at(sums, member, vectors * weights[:, None])
        centers = np.where(np.bincount(member, minlength=GROUPS)[:, None] > 0, _unit(sums), centers)
    return float((weights * (vectors @ centers.T).max(1)).sum()), centers


def _unit(vectors: Array) -> Array:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-9)


if __name__ == "__main__":
    main()
