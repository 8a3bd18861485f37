"""What a comparison would teach, by hand and against simulation."""

from __future__ import annotations

import numpy as np

from feedback.pairing import information, most_telling
from feedback.reward_head import RewardHead


def bits(mean: float, sd: float) -> float:
    """Expected bits about one difference."""
    return float(information(np.array([mean]), np.array([sd]))[0])


def test_nothing_is_learned_from_what_is_known() -> None:
    assert bits(0.0, 0.0) < 1e-9  # a coin toss: the person does not care, and that is known
    assert bits(8.0, 0.5) < 0.001  # the head is sure of the answer
    assert bits(0.0, 1.0) > bits(2.0, 1.0) > bits(4.0, 1.0)
    assert bits(0.0, 3.0) > bits(0.0, 1.0) > bits(0.0, 0.3)
    assert 0.8 < bits(0.0, 10.0) < 1.0  # a whole bit at most


def test_the_integral_is_right() -> None:
    d = np.random.default_rng(0).normal(0.7, 1.3, 400_000)
    p = 1 / (1 + np.exp(-d))
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    whole = -(p.mean() * np.log2(p.mean()) + (1 - p.mean()) * np.log2(1 - p.mean()))
    assert abs(bits(0.7, 1.3) - (whole - entropy.mean())) < 0.002


def test_the_pair_that_tells_most_differs_in_what_is_not_known() -> None:
    """Of two weights the first is known to be 1, the second nothing is known of."""
    head = RewardHead(np.array([1.0, 0.0]), np.diag([0.01, 4.0]), 0.0, 5)
    features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    found = most_telling(head, features, 0, [1, 2, 3])
    assert found is not None and found[0] == 2 and found[1] > 0.2
    assert most_telling(head, features, 0, []) is None
