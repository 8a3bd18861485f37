"""Best of n: which draft it is, what it wins, and what pessimism does to the choice."""

from __future__ import annotations

import numpy as np

from benchmarks.overoptimization import DRAFTS, SIZES, best_of, scores, wins_of
from feedback.reward_head import RewardHead


def test_the_best_sound_draft_of_every_n_in_a_row() -> None:
    scored = np.array([[1.0, 4.0, 3.0, 2.0], [5.0, 1.0, 2.0, 8.0]])
    sound = np.zeros((2, 4), bool)
    assert best_of(scored, sound, 2).tolist() == [[1, 2], [0, 3]] and best_of(scored, sound, 4).tolist() == [[1], [3]]
    assert best_of(scored, sound, 1).tolist() == [[0, 1, 2, 3]] * 2
    broken = np.array([[False, True, False, False], [True, True, True, True]])
    assert best_of(scored, broken, 4).tolist() == [[2], [3]], "a broken one only where there is no other"
    assert all(DRAFTS % n == 0 for n in SIZES)


def test_duels_with_the_opponents() -> None:
    worth = np.zeros((1, DRAFTS + 4))
    worth[0, 0], worth[0, DRAFTS:] = 1.0, [0.0, 1.0, 2.0, 0.5]
    broken = np.zeros(worth.shape, bool)
    picks = np.array([[0]])
    assert wins_of(picks, worth, broken) == (1 + 0.5 + 0 + 1) / 4
    broken[0, DRAFTS + 2] = True
    assert wins_of(picks, worth, broken) == (1 + 0.5 + 1 + 1) / 4, "a broken opponent loses"
    broken[0, 0] = True
    assert wins_of(picks, worth, broken) == (0 + 0 + 0.5 + 0) / 4, "and so does a broken pick"


def test_pessimism_prefers_what_is_known() -> None:
    head = RewardHead(np.array([1.0, 1.0]), np.diag([0.01, 4.0]), 0.0, 3)
    features = np.array([[[1.0, 0.0], [0.0, 1.1], [-1.0, -1.1]]])
    assert scores(head, features, 0.0)[0].argmax() == 1, "by its mean the second is worth more"
    assert scores(head, features, 1.0)[0].argmax() == 0, "and it is known less"
