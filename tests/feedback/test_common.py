"""What people have in common: found where it helps somebody new, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from feedback.common import LATER, LEAST, Common, in_common
from feedback.likelihood import Act
from feedback.reward_head import Array, Prior, fit
from feedback.traits import TRAIT_NAMES
from tests.feedback.helpers import POPULATION

PRIOR = POPULATION.prior
NAMED = len(TRAIT_NAMES)
LIKED = (0, 5, 11)  # traits


def shared_taste(strength: float) -> Array:
    weights = np.zeros(len(PRIOR.mean))
    weights[list(LIKED)] = strength
    return weights


def person(number: int, common: Array, acts: int = 24, own: float = 1.0) -> tuple[Array, list[Act]]:
    """Somebody with tastes of their own in three traits beside the common ones, and their rankings."""
    random = np.random.default_rng([7, number])
    weights = common.copy()
    weights[random.choice(NAMED, 3, replace=False)] += own * random.normal(size=3)
    made = []
    for place in range(acts):
        rows = random.normal(size=(2 if place % 2 else 4, len(weights)))
        worth = rows @ weights + random.gumbel(size=len(rows))
        made.append(Act("ranking", rows, tuple((int(row),) for row in np.argsort(-worth))))
    return weights, made


def crowd(count: int, strength: float, own: float = 1.0) -> list[list[Act]]:
    return [person(number, shared_taste(strength), own=own)[1] for number in range(count)]


@pytest.fixture(scope="module")
def found() -> Common:
    common = in_common(crowd(12, 0.8), PRIOR)
    assert common is not None
    return common


def test_somebody_new_is_known_better_from_few_clicks(found: Common) -> None:
    def right(prior: Prior) -> float:
        share = []
        for number in range(100, 108):
            weights, acts = person(number, shared_taste(0.8))
            pairs = np.random.default_rng(number).normal(size=(400, 2, len(weights)))
            gaps = pairs[:, 0] - pairs[:, 1]
            share.append(float(np.mean(np.sign(gaps @ fit(acts[:3], prior).mean) == np.sign(gaps @ weights))))
        return float(np.mean(share))

    assert right(found.prior(PRIOR)) > right(PRIOR) + 0.05
    assert found.parts.shape == (12, len(PRIOR.mean)) and found.gain > 0


def test_what_is_common_is_named_traits_alone_and_most_of_all_the_shared_ones(found: Common) -> None:
    mean = found.mean()
    assert set(np.argsort(-mean)[: len(LIKED)].tolist()) == set(LIKED)
    assert not mean[len(PRIOR.mean) - PRIOR.quiet :].any(), "single words and latents tell subjects"
    head = fit([], found.prior(PRIOR))
    assert np.array_equal(head.mean, PRIOR.mean + mean) and head.labels == 0


def test_nobody_begins_with_their_own_acts() -> None:
    common = Common(np.array([[6.0, 0.0], [0.0, 12.0]]), 0.5, 0.1)
    assert common.mean().tolist() == [0.5 * 6 / (2 + LEAST), 0.5 * 12 / (2 + LEAST)]
    assert common.mean(without=0).tolist() == [0.0, 0.5 * 12 / (1 + LEAST)]


def test_people_without_anything_in_common_share_nothing() -> None:
    assert in_common(crowd(12, 0.0), PRIOR) is None


def test_where_people_hardly_differ_their_clicks_move_them_less(found: Common) -> None:
    alike = in_common(crowd(12, 0.8, own=0.0), PRIOR)
    assert alike is not None and alike.width < found.width
    prior = alike.prior(PRIOR)
    np.testing.assert_allclose(prior.sd, PRIOR.sd * alike.width)


def test_too_few_people_or_too_few_acts_tell_nothing() -> None:
    people = crowd(LEAST, 0.8)
    assert in_common(people[:-1], PRIOR) is None
    assert in_common([acts[: 10 + LATER - 1] for acts in people], PRIOR) is None, "nothing is left to be foretold"


def test_the_same_acts_give_the_same_bits(found: Common) -> None:
    again = in_common(crowd(12, 0.8), PRIOR)
    assert again is not None and again.parts.tobytes() == found.parts.tobytes() and again.share == found.share


def test_it_can_be_ended_between_two_heads() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_common(crowd(LEAST, 0.8), PRIOR, stop)
