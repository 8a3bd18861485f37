"""The reward head: each act moves it the right way, by the right amount, and always to the same bits."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.likelihood import Act, Array, Evidence, Prior
from feedback.population import load_population
from feedback.reward_head import RewardHead, fit, prior_head, pulls
from tests.feedback.helpers import pair, ranking, reply_row

WIDTH = 6
PLAIN = Prior(np.zeros(WIDTH), np.full(WIDTH, 0.7), width_steps=0)
SPARSE = Prior(np.zeros(WIDTH), np.full(WIDTH, 0.3))
UNIT = np.eye(WIDTH)


def some_acts(count: int, seed: int, width: int = WIDTH, kinds: int = 4) -> list[Act]:
    """Acts of every kind with random features."""
    random = np.random.default_rng(seed)
    acts = []
    for number in range(count):
        rows = random.normal(size=(4, width))
        match number % kinds:
            case 0:
                acts.append(ranking(rows, *((int(i),) for i in random.permutation(4))))
            case 1:
                acts.append(Act("thumb", rows[:1], thumb=int(random.choice([-1, 1]))))
            case 2:
                acts.append(ranking(rows, (0, 2), (3,), (1,)))
            case _:
                acts.append(Act("correction", np.eye(width)[:1], value=0.5))
    return acts


def test_no_acts_leave_the_prior() -> None:
    head = fit([], SPARSE)
    assert head.labels == 0 and np.array_equal(head.mean, SPARSE.mean)
    assert np.array_equal(head.cov, np.diag(SPARSE.sd**2))


@pytest.mark.parametrize("prior", [PLAIN, SPARSE], ids=["fixed widths", "learned widths"])
def test_a_pair_favours_what_the_better_one_has_more_of(prior: Prior) -> None:
    head = fit([pair(UNIT[0], UNIT[1])], prior)
    assert head.mean[0] > 0.02 and head.mean[1] == pytest.approx(-head.mean[0])
    assert np.allclose(head.mean[2:], 0)
    assert head.labels == 1


def test_one_pair_by_hand() -> None:
    # One weight, prior N(0, 1), one win by a difference of 1: the mode solves w = σ(-w), and the curvature there is
    # 1 + σ(w)σ(-w).
    head = fit([pair(np.array([1.0]), np.array([0.0]))], Prior(np.zeros(1), np.ones(1), width_steps=0))
    w = head.mean[0]
    assert w == pytest.approx(1 / (1 + math.exp(w)), abs=1e-3)
    assert head.cov[0, 0] == pytest.approx(1 / (1 + 1 / (2 + math.exp(w) + math.exp(-w))), abs=1e-3)


def test_a_ranking_counts_as_its_choices_not_as_all_pairs() -> None:
    # Plackett-Luce of three is "first of three, then second of two": fewer nats than three independent pairs.
    rows = np.array([[2.0], [1.0], [0.0]])
    w = np.array([0.4])
    prior = Prior(np.zeros(1), np.ones(1))
    value = Evidence([ranking(rows, (0,), (1,), (2,))], prior, 1).at(np.append(w, 0.0)).value
    first = math.exp(0.8) / (math.exp(0.8) + math.exp(0.4) + 1)
    second = math.exp(0.4) / (math.exp(0.4) + 1)
    assert value == pytest.approx(math.log(first) + math.log(second))
    acts = [pair(rows[i], rows[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    whole, pairs = fit([ranking(rows, (0,), (1,), (2,))], PLAIN_ONE), fit(acts, PLAIN_ONE)
    assert 0 < whole.mean[0] < pairs.mean[0]
    assert whole.cov[0, 0] > pairs.cov[0, 0]
    assert whole.labels == 1


PLAIN_ONE = Prior(np.zeros(1), np.ones(1), width_steps=0)


def test_a_pair_is_the_ranking_of_two() -> None:
    two = Evidence([pair(UNIT[0], UNIT[1])], PLAIN, WIDTH).at(np.arange(WIDTH + 1.0))
    assert two.value == pytest.approx(-math.log(1 + math.exp(1.0)))  # u = (0, 1): the worse one is ahead by 1


def test_a_tie_pulls_a_difference_to_zero() -> None:
    believed = [pair(UNIT[0], UNIT[1])] * 4
    tied = [ranking(UNIT[:2], (0, 1))] * 4
    before, after = fit(believed, PLAIN), fit(believed + tied, PLAIN)
    gap = UNIT[0] - UNIT[1]
    assert 0 < gap @ after.mean < 0.7 * (gap @ before.mean)
    # and a tie among unknowns says nothing about the direction, yet narrows what is possible
    alone = fit(tied, PLAIN)
    assert np.allclose(alone.mean, 0, atol=1e-9)
    assert gap @ alone.cov @ gap < gap @ prior_head(PLAIN).cov @ gap


def test_tiers_tie_within_and_beat_below() -> None:
    head = fit([ranking(UNIT[:3], (0, 1), (2,))] * 6, PLAIN)
    assert head.mean[0] == pytest.approx(head.mean[1], abs=1e-6)
    assert head.mean[0] > head.mean[2] + 0.5


def test_thumbs_move_the_weights_and_the_threshold() -> None:
    up = fit([Act("thumb", UNIT[:1], thumb=1)], PLAIN)
    down = fit([Act("thumb", UNIT[:1], thumb=-1)], PLAIN)
    assert up.mean[0] > 0 > up.threshold
    assert down.mean[0] == pytest.approx(-up.mean[0], abs=1e-6)
    assert down.threshold == pytest.approx(-up.threshold, abs=1e-6)


def test_someone_who_likes_everything_only_has_a_low_threshold() -> None:
    random = np.random.default_rng(5)
    head = fit([Act("thumb", random.normal(size=(1, WIDTH)), thumb=1) for _ in range(60)], PLAIN)
    assert head.threshold < -2
    assert np.abs(head.mean).max() < 0.5


def test_neither_is_a_thumb_down_for_each_and_one_label() -> None:
    neither = fit([Act("thumb", UNIT[:2], thumb=-1)], PLAIN)
    each = fit([Act("thumb", UNIT[:1], thumb=-1), Act("thumb", UNIT[1:2], thumb=-1)], PLAIN)
    assert np.allclose(neither.mean, each.mean)
    assert (neither.labels, each.labels) == (1, 2)


def test_a_correction_holds_against_clicks_and_is_no_label() -> None:
    clicks = [pair(UNIT[0], UNIT[1])] * 20
    head = fit([*clicks, Act("correction", UNIT[:1], value=-1.0)], SPARSE)
    assert head.mean[0] == pytest.approx(-1.0, abs=0.15)
    assert head.labels == 20


@pytest.mark.parametrize("seed", range(3))
def test_gradient_and_curvature_are_those_of_the_likelihood(seed: int) -> None:
    prior = replace(PLAIN, tie=0.7)
    evidence = Evidence(some_acts(12, seed), prior, WIDTH)
    at = np.random.default_rng(seed).normal(size=WIDTH + 1)
    point, step = evidence.at(at), 1e-5
    shifted = [(evidence.at(at + step * e), evidence.at(at - step * e)) for e in np.eye(WIDTH + 1)]
    assert np.allclose(point.gradient, [(a.value - b.value) / (2 * step) for a, b in shifted], atol=1e-7, rtol=1e-6)
    numeric = np.array([(a.gradient - b.gradient) / (2 * step) for a, b in shifted])
    assert np.allclose(point.curvature, -numeric, atol=1e-6, rtol=1e-6)


def test_the_fit_is_a_mode() -> None:
    acts = some_acts(40, 1)
    head = fit(acts, PLAIN)
    weights = np.append(head.mean, head.threshold)
    pull = Evidence(acts, PLAIN, WIDTH).at(weights).gradient
    widths = np.append(PLAIN.sd, PLAIN.threshold_sd)
    assert np.abs(pull - weights / widths**2).max() < 0.02


def taught(weights: Array, count: int, seed: int, prior: Prior) -> RewardHead:
    """A head after noisy rankings of four by someone with these weights."""
    random = np.random.default_rng(seed)
    acts = []
    for _ in range(count):
        rows = random.normal(size=(4, len(weights)))
        order = np.argsort(-(rows @ weights + random.gumbel(size=4)))
        acts.append(ranking(rows, *((int(i),) for i in order)))
    return fit(acts, prior)


def test_a_known_taste_is_recovered_and_certainty_grows() -> None:
    width = 40
    true = np.zeros(width)
    true[[3, 17]] = 2.0, -1.0
    prior = Prior(np.zeros(width), np.full(width, 0.1))
    heads = [taught(true, count, 2, prior) for count in (10, 60, 300)]
    angles = [float(head.mean @ true / np.linalg.norm(head.mean) / np.linalg.norm(true)) for head in heads]
    assert angles[0] > 0.7 and angles[1] > 0.93 and angles[2] > 0.99
    assert heads[2].mean[3] == pytest.approx(2.0, abs=0.25)
    row = true[None] / np.linalg.norm(true)
    sds = [float(head.score(row)[1][0]) for head in heads]
    assert sds[0] > sds[1] > sds[2]


def test_learned_widths_find_few_causes_among_many() -> None:
    width = 60
    true = np.zeros(width)
    true[7] = 3.0
    fixed = Prior(np.zeros(width), np.full(width, 0.1), width_steps=0)
    learned = replace(fixed, width_steps=4)

    def angle(head: RewardHead) -> float:
        return float(head.mean[7] / np.linalg.norm(head.mean))

    seeds = range(5)
    assert np.mean([angle(taught(true, 12, seed, learned)) for seed in seeds]) > 0.85
    assert np.mean([angle(taught(true, 12, seed, fixed)) for seed in seeds]) < 0.7


def test_a_quiet_feature_is_heard_only_when_the_acts_speak_for_it() -> None:
    width, quiet = 44, 40
    prior = Prior(np.zeros(width), np.full(width, 0.03), quiet=quiet, heard=5)
    true = np.zeros(width)
    true[20] = 3.0
    head = taught(true, 30, 1, prior)
    assert head.mean[20] / np.linalg.norm(head.mean) > 0.9
    unheard = np.flatnonzero(head.mean[-quiet:] == 0.0) + width - quiet
    assert len(unheard) >= quiet - prior.heard
    # those without a part in the fit are believed to be what they were before
    assert np.array_equal(head.cov[np.ix_(unheard, unheard)], np.diag(prior.sd[unheard] ** 2))
    deaf = taught(true, 30, 1, replace(prior, heard=0))
    assert not deaf.mean[-quiet:].any()


def test_what_the_acts_speak_for_is_the_slope_of_the_evidence() -> None:
    """One pair, one quiet feature, d apart: the gradient at 0 is d/2 and the curvature d²/4, so nothing; twice the
    same says (2 · d/2)² - 2 · d²/4."""
    prior = Prior(np.zeros(2), np.ones(2), quiet=1)
    once = pair(np.array([0.0, 3.0]), np.array([0.0, 0.0]))
    at = np.zeros(2)
    assert Evidence([once], prior, 1).spoken_for(at) == pytest.approx([0.0])
    assert Evidence([once, once], prior, 1).spoken_for(at) == pytest.approx([4.5])


@pytest.mark.parametrize("quiet", [3, 4])
def test_all_heard_is_the_fit_of_all(quiet: int) -> None:
    """With room for every feature and none left out, only the order of the steps differs."""
    acts = some_acts(40, 3)
    plain = fit(acts, PLAIN)
    heard = fit(acts, replace(PLAIN, quiet=quiet, heard=WIDTH))
    kept = heard.mean != 0
    assert kept[: WIDTH - quiet].all()
    if kept.all():
        assert np.allclose(heard.mean, plain.mean, atol=1e-4) and np.allclose(heard.cov, plain.cov, atol=1e-4)


def test_preference_probability_is_sensible() -> None:
    head = taught(np.array([2.0, 0, 0, 0, 0, 0]), 100, 3, PLAIN)
    good, bad = UNIT[:1], np.zeros((1, WIDTH))
    assert head.prefer(good, bad)[0] > 0.8
    assert head.prefer(good, bad)[0] + head.prefer(bad, good)[0] == pytest.approx(1.0)
    assert head.prefer(good, good)[0] == 0.5


def test_an_acts_pull_is_about_what_goes_when_it_is_taken_back() -> None:
    """The first order against exactly leaving an act out; widths are held, so that nothing else makes a difference."""
    acts = some_acts(24, seed=4, kinds=3)
    head = fit(acts, PLAIN)
    pulled = pulls(head, acts, PLAIN)
    gone = np.stack([head.mean - fit(acts[:place] + acts[place + 1 :], PLAIN).mean for place in range(len(acts))])
    assert pulled.shape == (24, WIDTH)
    assert np.corrcoef(pulled.ravel(), gone.ravel())[0, 1] > 0.95
    strong = np.abs(gone) > 0.1
    assert strong.any() and (np.sign(pulled[strong]) == np.sign(gone[strong])).all()
    assert pulls(head, [], PLAIN).shape == (0, WIDTH)


# ---- the last bit -------------------------------------------------------------------------------------------------


def digest(head: RewardHead) -> str:
    """Hash of every bit of a head."""
    numbers = np.concatenate([head.mean, head.cov.ravel(), [head.threshold]])
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def product_fit(count: int) -> RewardHead:
    """A head of the product's width after mixed acts."""
    prior = load_population(16).prior
    return fit(some_acts(count, 9, width=len(prior.mean)), prior)


def test_the_same_acts_give_the_same_bits_in_any_process_and_with_any_number_of_threads() -> None:
    here = digest(product_fit(300))
    assert digest(product_fit(300)) == here
    root = Path(__file__).parents[2]
    script = "from tests.feedback.test_reward_head import digest, product_fit; print(digest(product_fit(300)))"
    for threads in ("1", "2", "4"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == here, f"{threads} threads"


def test_history_leaves_no_trace() -> None:
    acts = some_acts(30, 2)
    through = [fit(acts[:count], SPARSE) for count in range(1, 31)][-1]
    assert digest(through) == digest(fit(some_acts(30, 2), SPARSE))


# ---- properties ---------------------------------------------------------------------------------------------------

finite = st.floats(-4, 4, allow_nan=False, width=32)
rows_of_four = st.lists(st.lists(finite, min_size=WIDTH, max_size=WIDTH), min_size=4, max_size=4)


@given(
    st.lists(st.tuples(rows_of_four, st.permutations(range(4)), st.sampled_from([-1, 0, 1])), min_size=1, max_size=6)
)
def test_any_acts_give_a_finite_head_with_a_proper_covariance(
    drawn: list[tuple[list[list[float]], list[int], int]],
) -> None:
    acts = [
        Act("thumb", np.array(rows), thumb=thumb) if thumb else ranking(np.array(rows), *((i,) for i in order))
        for rows, order, thumb in drawn
    ]
    head = fit(acts, SPARSE)
    assert np.isfinite(head.mean).all() and math.isfinite(head.threshold)
    assert np.array_equal(head.cov, head.cov.T)
    assert np.linalg.eigvalsh(head.cov).min() > 0


# ---- with the real features ---------------------------------------------------------------------------------------


def sentences(count: int, seed: int) -> str:
    """So many short sentences of differing words."""
    random = np.random.default_rng(seed)
    words = [
        "bread",
        "stone",
        "river",
        "paper",
        "lamp",
        "garden",
        "window",
        "yellow",
        "after",
        "never",
        "walk",
        "write",
    ]
    return " ".join(" ".join(random.choice(words, 6)).capitalize() + "." for _ in range(count))


def test_bumps_learn_about_three_sentences() -> None:
    population = load_population(16)
    random = np.random.default_rng(1)
    acts = []
    for number in range(40):
        counts = random.choice(np.arange(1, 10), 4, replace=False).tolist()
        rows = np.stack([reply_row(population, sentences(count, 10 * number + count)) for count in counts])
        order = sorted(range(4), key=lambda i: abs(math.log(counts[i] / 3)))
        acts.append(ranking(rows, *((i,) for i in order)))
    head = fit(acts, population.prior)
    rows = np.stack([reply_row(population, sentences(count, 999 + count)) for count in range(1, 10)])
    scores = head.score(rows)[0]
    assert int(scores.argmax()) + 1 in (2, 3, 4)
    assert scores[2] > scores[0] + 0.5 and scores[2] > scores[8] + 0.5
