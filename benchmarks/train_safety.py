"""Train the two parts of the safety term from data/safety, and measure each on the half it has not seen.

    python -m benchmarks.train_safety            train, write the weights, print the held-out figures as JSON
    python -m benchmarks.train_safety --check    train, compare with the shipped weights, write nothing

The data and its two halves are benchmarks/safety_data.py's. The term is trained on half 0, the judge on half 1. Each
learns, by L-BFGS in numpy:

    reply     logistic on labelled texts, plus Bradley-Terry on the pairs of HH (the rejected answer is worse)
    request   logistic on prompts that should be refused against ordinary ones
    scale     logistic on the logits of five held-out folds: what makes the output a probability
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from adapters.files import write_whole
from adapters.safety import (
    DATA,
    HARMFUL,
    WIDTH,
    Array,
    Bags,
    Features,
    Part,
    SafetyTerm,
    sigmoid,
    without_refusal,
)
from benchmarks.safety_data import (
    EVALUATION_ONLY,
    Half,
    Recipe,
    Row,
    data_hash,
    read_halves,
    read_lexicon,
    read_written,
)

PARTS: tuple[Part, Part] = ("term", "judge")
FOLDS = 5


# ---- learning -----------------------------------------------------------------------------------------------------


def train(part: Part, half: Half, recipe: Recipe) -> SafetyTerm:
    """One part from one half."""
    features = Features.of(recipe.salt + PARTS.index(part), read_lexicon())
    rows = [row for row in half.rows if row.weight > 0]
    labels, weights, row_folds = _columns(rows)
    pieces = [(index, piece) for index, row in enumerate(rows) for piece in _pieces(row)]
    owner = np.array([index for index, _ in pieces])
    bags = features.bags([piece for _, piece in pieces])
    asks = [row for row in half.requests if row.weight > 0]
    ask_labels, ask_weights, ask_folds = _columns(asks)
    ask_bags = features.bags([row.text for row in asks])
    better = features.bags([pair.better for pair in half.pairs])
    worse = features.bags([pair.worse for pair in half.pairs])
    pair_folds = np.array([fold_of(pair.key) for pair in half.pairs])

    def fit(without: int) -> SafetyTerm:
        duels = (better, worse, recipe.pairs * (pair_folds != without))
        reply = fit_linear(bags, labels[owner], (weights * (row_folds != without))[owner], recipe.l2, duels)
        request = fit_linear(ask_bags, ask_labels, ask_weights * (ask_folds != without), recipe.l2)
        return SafetyTerm(features, half_precision(reply), half_precision(request), np.array([0.0, 1.0, 0.0]))

    held_out = np.zeros((len(rows), 2))
    for fold in range(FOLDS):
        model = fit(fold)
        chosen = np.flatnonzero(row_folds == fold)
        texts, prompts = ([getattr(rows[i], name) for i in chosen] for name in ("text", "prompt"))
        held_out[chosen, 0] = model.reply_logits(texts)
        held_out[chosen, 1] = model.lift(texts, prompts)
    model = fit(-1)
    scale = fit_scale(held_out, labels, weights)
    return SafetyTerm(features, model.reply, model.request, scale)


def _columns(rows: Sequence[Row]) -> tuple[Array, Array, NDArray[np.int64]]:
    """Labels, weights and folds, (N,) each."""
    folds = np.array([fold_of(row.key) for row in rows])
    return np.array([row.label for row in rows], np.float64), np.array([row.weight for row in rows]), folds


def _pieces(row: Row) -> list[str]:
    """The text; of a harmless one also what is left without its refusal, which must look harmless too."""
    rest = without_refusal(row.text)
    return [row.text] if row.label or rest == row.text or not rest.strip() else [row.text, rest]


def fold_of(key: str) -> int:
    """0 to FOLDS - 1, independent of the half."""
    return zlib.crc32(b"fold " + key.encode("utf-8", "surrogatepass")) // 2 % FOLDS


def half_precision(weights: Array) -> Array:
    """As they will be stored."""
    return weights.astype(np.float16).astype(np.float64)


def fit_linear(
    bags: Bags, labels: Array, weights: Array, l2: float, duels: tuple[Bags, Bags, Array] | None = None
) -> Array:
    """Weights and bias, (WIDTH + 1,): penalised logistic loss of the rows, plus Bradley-Terry loss of the duels."""

    def loss(at: Array) -> tuple[float, Array]:
        value, slope = logistic(bags.times(at[:-1]) + at[-1], labels, weights)
        gradient = bags.back(slope)
        if duels:
            better, worse, counts = duels
            lost, push = logistic(worse.times(at[:-1]) - better.times(at[:-1]), np.ones(len(counts)), counts)
            value += lost
            gradient += worse.back(push) - better.back(push)
        value += 0.5 * l2 * float(at[:-1] @ at[:-1])
        return value, np.append(gradient + l2 * at[:-1], slope.sum())

    return minimise(loss, np.zeros(WIDTH + 1))


def fit_scale(logits: Array, labels: Array, weights: Array) -> Array:
    """Bias, slope and lift, (3,), from held-out (N, 2); the lift is at least 0, lest a dangerous prompt excuse."""

    def loss(at: Array) -> tuple[float, Array]:
        value, slope = logistic(at[0] + logits @ at[1:], labels, weights)
        return value + 0.05 * float(at[1:] @ at[1:]), np.append(slope.sum(), slope @ logits + 0.1 * at[1:])

    scale = minimise(loss, np.zeros(3), steps=200, tolerance=1e-12)
    assert scale[1] > 0 and scale[2] >= 0, f"the calibration came out inverted: {scale}"
    return np.round(scale, 6)


def logistic(z: Array, labels: Array, weights: Array) -> tuple[float, Array]:
    """Weighted log loss, and its slope in z, (N,)."""
    value = float(weights @ np.logaddexp(0.0, np.where(labels > 0, -z, z)))
    return value, weights * (sigmoid(z) - labels)


def minimise(
    loss: Callable[[Array], tuple[float, Array]], start: Array, steps: int = 120, tolerance: float = 1e-6
) -> Array:
    """Limited-memory BFGS with a backtracking line search (Nocedal and Wright 2006, algorithm 7.4)."""
    at, (value, gradient) = start, loss(start)
    moves: list[tuple[Array, Array]] = []
    for _ in range(steps):
        step, alphas = gradient.copy(), []
        for move, turn in reversed(moves):
            alphas.append(float(move @ step) / float(turn @ move))
            step -= alphas[-1] * turn
        step *= float(moves[-1][0] @ moves[-1][1]) / float(moves[-1][1] @ moves[-1][1]) if moves else 1.0
        for (move, turn), alpha in zip(moves, reversed(alphas), strict=True):
            step += move * (alpha - float(turn @ step) / float(turn @ move))
        size = 1.0 if moves else 1.0 / max(float(np.linalg.norm(gradient)), 1.0)
        fall = float(gradient @ step)
        while True:
            new_value, new_gradient = loss(at - size * step)
            if new_value <= value - 1e-4 * size * fall or size < 1e-8:
                break
            size *= 0.5
        move, turn = -size * step, new_gradient - gradient
        if float(move @ turn) > 1e-12:
            moves = [*moves[-7:], (move, turn)]
        settled = value - new_value < tolerance * abs(new_value)
        at, value, gradient = at + move, new_value, new_gradient
        if settled:
            break
    return at


# ---- measuring ----------------------------------------------------------------------------------------------------


def measure(model: SafetyTerm, half: Half) -> dict[str, float]:
    """Figures of one part on the half that it has not seen, and on the written test split."""
    rows = [row for row in half.rows if row.source == "moderation"]
    labels, harm = np.array([row.label for row in rows]), model.harm([row.text for row in rows])
    prompts = [pair.prompt for pair in half.pairs]
    worse, better = (model.harm([getattr(p, side) for p in half.pairs], prompts) for side in ("worse", "better"))
    provoked = [row for row in half.rows if row.source == "provoked"]
    provoked_labels, provoked_harm = np.array([row.label for row in provoked]), _harm(model, provoked)
    pairs, near = split_written()
    asked = [line["prompt"] for line in pairs]
    wrong, right = (model.harm([line[side] for line in pairs], asked) for side in ("harmful", "harmless"))
    alone = [model.harm([line[side] for line in pairs]) for side in ("harmful", "harmless")]
    innocent = model.harm([line["harmless"] for line in near], [line["prompt"] for line in near])
    long = [row.text for row in half.rows if row.source == EVALUATION_ONLY and len(row.text.split()) > 100]
    behind = model.harm([f"I'm sorry, I can't help with that. {line['harmful']}" for line in pairs], asked)
    hidden = model.harm([f"{long[i % len(long)]} {line['harmful']}" for i, line in enumerate(pairs)], asked)
    figures = {
        "moderation_auc": auc(labels, harm),
        "moderation_flagged_harmful": flagged(harm[labels == 1]),
        "moderation_flagged_harmless": flagged(harm[labels == 0]),
        "moderation_brier": float(np.mean((harm - labels) ** 2)),
        "hh_pair_accuracy": wins(worse, better),
        "provoked_auc": auc(provoked_labels, provoked_harm),
        "provoked_flagged_harmful": flagged(provoked_harm[provoked_labels == 1]),
        "provoked_flagged_harmless": flagged(provoked_harm[provoked_labels == 0]),
        "written_pair_accuracy": wins(wrong, right),
        "written_pair_accuracy_without_prompt": wins(*alone),
        "written_flagged_compliance": flagged(wrong),
        "written_flagged_compliance_after_a_refusal": flagged(behind),
        "written_flagged_compliance_after_100_words": flagged(hidden),
        "written_flagged_refusal": flagged(right),
        "written_flagged_near_miss": flagged(innocent),
    }
    benign = sorted({row.source for row in half.rows} - {"moderation", "written", "provoked"})
    ordinary = [row for row in half.rows if row.source in benign]
    figures["false_positives"] = flagged(_harm(model, ordinary))
    figures["false_positives_without_prompt"] = flagged(model.harm([row.text for row in ordinary]))
    for source in benign:
        figures[f"false_positives_{source}"] = flagged(_harm(model, [row for row in half.rows if row.source == source]))
    return {name: round(value, 4) for name, value in figures.items()}


def split_written() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The written test split: pairs of a harmful and a harmless reply, and innocent near misses."""
    lines = read_written("test")
    return [line for line in lines if line["harmful"]], [line for line in lines if not line["harmful"]]


def auc(labels: NDArray[np.int64], scores: Array) -> float:
    """Area under the ROC curve: the chance that a harmful row scores above a harmless one, ties half."""
    high, low = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return float(np.mean((high > low) + 0.5 * (high == low)))


def wins(high: Array, low: Array) -> float:
    """Share of pairs with the first above the second."""
    return float(np.mean(high > low))


def flagged(harm: Array) -> float:
    """Share at or above the threshold."""
    return float(np.mean(harm >= HARMFUL))


def _harm(model: SafetyTerm, rows: Sequence[Row]) -> Array:
    return model.harm([row.text for row in rows], [row.prompt for row in rows])


# ---- files --------------------------------------------------------------------------------------------------------


def to_bytes(model: SafetyTerm) -> bytes:
    """The file of a part. One metadata entry only: the format does not fix the order of several."""
    tensors: dict[str, NDArray[Any]] = {
        "reply": model.reply.astype(np.float16),
        "request": model.request.astype(np.float16),
        "scale": model.scale,
        "lexicon": model.features.lexicon,
        "groups": model.features.groups.astype(np.uint8),
    }
    about = json.dumps({"data": data_hash(), "salt": model.features.salt}, sort_keys=True)
    return save(tensors, metadata={"about": about})


def differences(path: Path, model: SafetyTerm) -> float:
    """The largest difference between shipped and fresh weights; infinite where names or shapes differ."""
    shipped = load_file(path)
    fresh = {"reply": model.reply, "request": model.request, "scale": model.scale, "lexicon": model.features.lexicon}
    if any(name not in shipped or shipped[name].shape != tensor.shape for name, tensor in fresh.items()):
        return float("inf")
    if not np.array_equal(shipped["lexicon"], model.features.lexicon):
        return float("inf")
    return max(float(np.abs(shipped[name] - fresh[name]).max()) for name in ("reply", "request", "scale"))


def main() -> int:
    """Train both parts; 1 when --check finds other weights than the shipped ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="compare with the shipped weights, write nothing")
    arguments = parser.parse_args()
    recipe = Recipe()
    halves = read_halves(recipe)
    figures: dict[str, Any] = {}
    good = True
    for index, part in enumerate(PARTS):
        model, path = train(part, halves[index], recipe), DATA / f"{part}.safetensors"
        figures[part] = measure(model, halves[1 - index])
        if arguments.check:
            same, gap = path.read_bytes() == to_bytes(model), differences(path, model)
            figures[part]["check"] = "same bytes" if same else f"largest difference {gap:.2g}"
            good = good and gap < 0.01  # another processor may round otherwise; weights are about 1
        else:
            write_whole(path, to_bytes(model))
    print(json.dumps(figures, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
