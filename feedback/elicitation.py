"""Quick questions: which of two ready replies to a prompt somebody likes better, asked before there is anything else.

What a click tells is bounded by what the two replies differ in. A chat can only set side by side what one model writes
to one prompt; here data/elicitation.jsonl has many prompts with replies that were written to differ, in what they say
as well as in how. Of all pairs to prompts that were not asked about, the next is the one whose answer is expected to
lessen most what is unknown of all pairs:

    w · dᵀ C S C d / (1 + w · dᵀ C d)      d: difference in features; C: covariance of the head's weights
                                           S: mean of d dᵀ over all pairs; w: p (1 - p), p the chance of either answer

the fall of their mean variance, by Laplace's approximation (V-optimal design: Fedorov 1972; Chaloner & Verdinelli
1995). Left out on purpose: what the base makes of the replies (latent features). They are read once they are answered.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np

from feedback.likelihood import product
from feedback.population import Population
from feedback.reward_head import RewardHead

FILE = Path(__file__).resolve().parent.parent / "data" / "elicitation.jsonl"


@dataclass(frozen=True)
class Question:
    """A prompt and the replies to it."""

    id: str
    prompt: str
    replies: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two replies to one prompt, by their places among its replies."""

    question: Question
    left: int
    right: int

    @property
    def texts(self) -> list[str]:
        """The two replies."""
        return [self.question.replies[self.left], self.question.replies[self.right]]


@cache
def load_questions() -> tuple[Question, ...]:
    """All that ship."""
    rows = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    return tuple(Question(row["id"], row["prompt"], tuple(row["replies"])) for row in rows)


class Elicitation:
    """The questions as the features of one population see them."""

    def __init__(self, population: Population) -> None:
        self.pairs: list[Pair] = []
        differences = []
        for question in load_questions():
            rows = population.features(question.replies, np.zeros((len(question.replies), population.latents)))
            for left, right in combinations(range(len(rows)), 2):
                self.pairs.append(Pair(question, left, right))
                differences.append(rows[left] - rows[right])
        self._differences = np.array(differences)  # (pairs, D)
        self._scatter = self._differences.T @ self._differences / len(self.pairs)

    def most_telling(self, head: RewardHead, asked: Collection[str]) -> Pair | None:
        """The pair to ask about next, None when no question is left. asked: ids of questions that must not come."""
        open_ = np.array([pair.question.id not in asked for pair in self.pairs])
        if not open_.any():
            return None
        moved = product(self._differences, head.cov)  # (pairs, D): C d
        variance = (moved * self._differences).sum(1)
        chance = head.prefer(self._differences, np.zeros_like(self._differences))
        weight = chance * (1.0 - chance)
        told = weight * (product(moved, self._scatter) * moved).sum(1) / (1.0 + weight * variance)
        return self.pairs[int(np.argmax(np.where(open_, told, -1.0)))]
