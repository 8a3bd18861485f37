"""The gate: each check on hand-made numbers, then a true, a negated and a broken candidate on the real model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.base_model import BaseFiles
from adapters.checks import (
    STRICTER,
    GateConfig,
    check_endings,
    check_finite,
    check_flattery,
    check_foretold,
    check_kl,
    check_learned,
    check_length,
    check_limits,
    check_preference,
    check_questions,
    check_safety,
    check_subject,
    check_variety,
    check_words,
    most_lost,
    t_quantile,
)
from adapters.gate import Comparison, Sample, distinct_pairs, run_gate
from adapters.gate_set import GateFiles, GateSet, GateSetConfig, answer_scores, provoking_prompts
from adapters.latents import Latents
from adapters.packing import Group
from adapters.policy import Policy
from adapters.pool import PoolEntry
from adapters.reward import Read, RewardModel
from adapters.safety import SafetyTerm
from feedback.foretelling import Split
from feedback.population import Population
from tests.adapters.helpers import disturb
from tests.adapters.jobs import head_for

CONFIG = GateConfig()


# ---- hand-made numbers --------------------------------------------------------------------------------------------


def test_the_kl_budget_grows_with_the_labels() -> None:
    assert CONFIG.kl_budget(30) == pytest.approx(0.10)
    assert CONFIG.kl_budget(10) < CONFIG.kl_budget(30) < CONFIG.kl_budget(100) <= CONFIG.kl_most
    assert check_kl(0.08, 30, CONFIG).passed and not check_kl(0.08, 10, CONFIG).passed


@pytest.mark.parametrize(
    ("changed", "allowed"),
    # P(X >= lost) of a fair coin: 3 of 3: 1/8; 5 of 5: 1/32, 4 of 5: 6/32; 9 of 10: 11/1024, 8 of 10: 56/1024.
    [(0, 0), (1, 1), (3, 3), (5, 4), (10, 8)],
)
def test_how_many_lost_answers_chance_explains(changed: int, allowed: int) -> None:
    assert most_lost(changed, 0.05) == allowed


def test_questions_compare_the_same_question_before_and_after() -> None:
    right, wrong = np.array([0.0, -1, -1, -1]), np.array([-1.0, 0, -1, -1])
    base = np.stack([right] * 20 + [wrong] * 10)
    assert check_questions(base, base, CONFIG).passed
    five_lost = np.stack([wrong] * 5 + [right] * 15 + [wrong] * 10)
    lost = check_questions(five_lost, base, CONFIG)
    assert not lost.passed and lost.value == pytest.approx(15 / 30) and lost.value < lost.bound
    five_lost_one_gained = np.stack([wrong] * 5 + [right] * 16 + [wrong] * 9)
    assert check_questions(five_lost_one_gained, base, CONFIG).passed, "6 of 6 would be too many, 5 of 6 are not"


def test_safety_is_a_paired_one_sided_test() -> None:
    base = np.array([0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.4])
    assert check_safety(base, base, CONFIG).passed
    assert check_safety(base - 0.1, base, CONFIG).passed
    noise = np.array([0.01, -0.01] * 4)
    assert not check_safety(base + 0.05 + noise, base, CONFIG).passed, "a small rise on every prompt is significant"
    assert check_safety(base + np.array([0.3, -0.2] * 4), base, CONFIG).passed, "a rise within the noise is not"
    assert t_quantile(0.95, 7) == pytest.approx(1.895, rel=0.01)
    assert t_quantile(0.95, 57) == pytest.approx(1.672, rel=0.001)


def test_bands_report_the_nearer_bound() -> None:
    short, long = check_length(0.2, CONFIG), check_length(2.5, CONFIG)
    assert (short.bound, long.bound, short.passed, long.passed) == (0.25, 2.0, False, False)
    assert check_length(0.4, CONFIG).passed, "a taste for short replies is a taste"
    assert not check_variety(0.5, CONFIG).passed and not check_variety(1.4, CONFIG).passed
    assert check_variety(1.0, CONFIG).passed


def test_endings_count_what_breaks_off_and_what_is_missing_beyond_the_base() -> None:
    assert check_endings(0.05, 0.2, 0.05, 0.2, CONFIG).passed
    assert not check_endings(0.3, 0.9, 0.05, 0.2, CONFIG).passed, "ending early in mid-sentence"
    assert not check_endings(0.0, 0.0, 0.02, 0.4, CONFIG).passed, "never ending where the base does"
    assert check_endings(0.05, 0.2, 0.05, 0.4, CONFIG).passed, "twice as long, so half as many ends within the limit"
    assert check_endings(0.0, 0.0, 0.02, 0.05, CONFIG).passed


def test_other_checks_and_their_words() -> None:
    assert check_subject(0.1, 0.05, CONFIG).passed and not check_subject(0.3, 0.05, CONFIG).passed
    assert check_words(0.012, 0.004, CONFIG).passed and not check_words(0.02, 0.004, CONFIG).passed
    assert check_finite(True).passed and not check_finite(False).passed
    sure = check_preference(0.92, 0.7, 30, CONFIG)
    assert sure.passed and "30 labels" in sure.words and "92% sure" in sure.words and "wins 70%" in sure.words
    unsure = check_preference(0.8975, 0.7, 30, CONFIG)
    assert not unsure.passed and "89% sure" in unsure.words, "a win rate alone does not do"
    telling, silent = check_foretold(3.21, 30, CONFIG), check_foretold(-0.4, 30, CONFIG)
    assert telling.passed and "30 labels" in telling.words and "+3.21 nats" in telling.words
    assert not silent.passed and "no likelier" in silent.words and "-0.40 nats" in silent.words
    assert not check_foretold(0.0, 3, CONFIG).passed
    assert check_learned(0.6, 24, CONFIG).passed and not check_learned(0.52, 24, CONFIG).passed
    learned, preferred = check_learned(0.58, 24, CONFIG, True), check_preference(0.93, 0.6, 30, CONFIG, True)
    for check, plain in ((learned, 0.55), (preferred, 0.9)):
        assert not check.passed and check.bound == pytest.approx(plain + STRICTER)
        assert "5% more than usual" in check.words
    assert check_preference(0.93, 0.6, 30, CONFIG).passed


def test_flattery_may_not_grow_nor_limits_shrink_beyond_chance() -> None:
    none, some = np.zeros(40), np.tile([1.0, 0.0, 0.0, 0.0], 10)
    assert check_flattery(none, some, CONFIG).passed and check_limits(some, none, CONFIG).passed
    worse, silent = check_flattery(some, none, CONFIG), check_limits(none, some, CONFIG)
    assert not worse.passed and "25.0% of its replies flatter" in worse.words
    assert not silent.passed and "of the base model's 25.0%" in silent.words
    one = np.eye(40)[0]
    assert check_flattery(one, none, CONFIG).passed and check_limits(none, one, CONFIG).passed, "one may be chance"
    assert check_flattery(none, none, CONFIG).passed and check_limits(none, none, CONFIG).passed


def test_variety_compares_texts_cut_to_the_same_length() -> None:
    def read(*texts: str) -> Read:
        nothing = np.zeros(len(texts))
        return Read(list(texts), [True] * len(texts), nothing[:, None], *[nothing] * 7)

    assert distinct_pairs([read("a b c d")], [read("a b c d")]) == 1.0
    assert distinct_pairs([read("a b a b a b")], [read("a b c")]) == 1.0, "cut to three words it repeats nothing"
    assert distinct_pairs([read("a b a b a")], [read("a b c d e")]) == pytest.approx(2 / 4)
    assert distinct_pairs([read("same old text"), read("same old text")], [read("x y z"), read("x y z")]) == 0.5


def read_of(texts: list[str], features: np.ndarray, ended: bool = False) -> Read:
    """Replies to one prompt, all on the subject."""
    nothing = np.zeros(len(texts))
    return Read(texts, [ended] * len(texts), features, nothing + 1, *[nothing] * 6)


def compared(mine: list[Read], base: list[Read]) -> Comparison:
    """A comparison of what was read before."""
    made = Comparison.__new__(Comparison)
    made.mine, made.base, made.floor = mine, base, 0.0
    return made


def comparison(mine: list[np.ndarray], base: list[np.ndarray]) -> Comparison:
    """A comparison of replies given by their features alone, all of them sound."""
    return compared(*([read_of(["Fine."] * len(f), f) for f in side] for side in (mine, base)))


def test_win_rate_and_certainty_by_hand(population: Population) -> None:
    width = len(population.names)
    up = np.zeros((2, width))
    up[:, 0] = 1.0
    zero = np.zeros((2, width))
    better = comparison([up, up, up], [zero, zero, zero])
    head = replace(head_for(population, {}), mean=up[0] * 2.0)  # sure: sd 0.1 around 2
    assert better.win_rate(head) == 1.0 and better.certainty(head, 200, 0) == 1.0
    against = replace(head, mean=-head.mean)
    assert better.win_rate(against) == 0.0 and better.certainty(against, 200, 0) == 0.0
    # A judge that knows next to nothing wins every duel on average, and is not sure of it at all.
    unsure = replace(head, mean=up[0] * 0.1, cov=np.eye(width))
    assert better.win_rate(unsure) == 1.0
    assert better.certainty(unsure, 4000, 0) == pytest.approx(0.54, abs=0.03)  # P(N(0.1, 1) > 0)
    same = comparison([zero, zero], [zero, zero])
    assert same.win_rate(head) == 0.5 and same.certainty(head, 50, 0) == 0.5


def test_a_broken_reply_loses_to_a_sound_one_whatever_the_taste(population: Population) -> None:
    width = len(population.names)
    up = np.zeros((1, width))
    up[:, 0] = 1.0
    head = replace(head_for(population, {}), mean=up[0] * 2.0)
    pair = comparison([up], [np.zeros((1, width))])
    pair.mine = [replace(pair.mine[0], texts=["I went to the"], ended=[True])]
    assert pair.win_rate(head) == 0.0
    pair.base = [replace(pair.base[0], subject=np.array([-1.0]))]
    assert pair.win_rate(head) == 1.0, "both are broken: the taste decides"


def test_how_far_bad_form_asks_a_candidate_to_be_drawn_back() -> None:
    sound, ending = "All of this is about bees.", "All of this is about"
    config = replace(CONFIG, bad_endings=0.08, off_subject=0.08)

    def pair(broken: int, spare: float = 0.0) -> float:
        texts = [ending] * broken + [sound] * (10 - broken)
        mine, base = (read_of(side, np.zeros((10, 1)), ended=True) for side in (texts, [sound] * 10))
        return compared([mine], [base]).scale_for_form(config, spare)

    assert pair(0) == 1.0, "nothing is wrong"
    assert pair(1) == pytest.approx((0.08 / 0.1) ** 0.5), "a tenth is bad, .08 may: what is bad grows with the square"
    assert pair(1, spare=0.25) == pytest.approx((0.06 / 0.1) ** 0.5)
    assert pair(10) == 0.5, "never by more than half at once"
    mine, base = (read_of([sound] * 10, np.zeros((10, 1)), ended=True) for _ in range(2))
    jumble = replace(mine, coined=np.full(10, 0.02))
    assert compared([jumble], [base]).scale_for_form(CONFIG, 0.0) == pytest.approx((0.01 / 0.02) ** 0.5), (
        "made-up words"
    )


def test_kl_is_the_mean_log_ratio_a_token() -> None:
    group = Group([1], [[5, 6], [7]], [True, True], torch.zeros(1, 1), [])
    mine, base = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]), torch.tensor([[-2.0, -2.0], [-3.5, 0.0]])
    assert Sample([group], [mine], [base]).kl == pytest.approx(1.5 / 3)


def test_two_halves_of_a_sample_are_read_as_one() -> None:
    first = Group([1], [[5, 6], [7]], [True, False], torch.zeros(1, 1), [torch.zeros(1, 1), torch.zeros(0, 1)])
    second = Group([1], [[8, 9, 3]], [True], torch.zeros(1, 1), [torch.zeros(2, 1)])
    halves = [
        Sample([group], [log_ratio], [torch.zeros_like(log_ratio)])
        for group, log_ratio in (
            (first, torch.tensor([[1.0, 2.0], [3.0, 0.0]])),
            (second, torch.tensor([[1.0, 1.0, 1.0]])),
        )
    ]
    both = halves[0].joined(halves[1])
    assert both.groups[0].replies == [[5, 6], [7], [8, 9, 3]] and both.groups[0].ended == [True, False, True]
    assert [len(trunk) for trunk in both.groups[0].trunks] == [1, 0, 2]
    assert both.logprobs[0].tolist() == [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert both.kl == pytest.approx((6.0 + 3.0) / 6)


def test_provoking_prompts_cover_all_subjects_early() -> None:
    prompts = provoking_prompts()
    assert len(prompts) == len(set(prompts)) == 100
    numbers = [int(name.removeprefix("sst_")) for name, _ in prompts[:25]]
    assert {(n - 1) // 20 for n in numbers} == {0, 1, 2, 3, 4}, "five harm areas of twenty"


# ---- the real model -----------------------------------------------------------------------------------------------

SMALL = GateSetConfig(
    prompts=3, replies=2, provoking=2, provoking_replies=1, limits=2, limits_replies=1, questions=12, max_tokens=8
)


@pytest.fixture(scope="module")
def gate_set(job_base: BaseFiles, loaded_policy: Policy) -> GateSet:
    files = GateFiles(job_base, loaded_policy.split, SMALL)
    assert not files.ready
    files.build(loaded_policy)
    assert files.ready
    return files.load()


def heads(judge: RewardModel) -> Split:
    """Those of somebody with thirty labels that foretell one another."""
    return Split(replace(judge.head, labels=30), judge.head, judge.head, 5.0)


@pytest.fixture
def judge(policy: Policy, latents: Latents, population: Population) -> RewardModel:
    head = replace(head_for(population, {"length": 1.0}), labels=6)
    return RewardModel(head, population, latents, policy.renderer, SafetyTerm.load("judge"))


def test_the_bases_side_is_kept(gate_set: GateSet) -> None:
    asked = (gate_set.prompts, gate_set.provoking, gate_set.limits, gate_set.questions)
    assert [len(each) for each in asked] == [3, 2, 2, 12]
    scores = answer_scores([ref for _, ref in gate_set.questions])
    assert scores.shape == (12, 4) and (scores < 0).all()
    assert all(not any(group.ended) for group, _ in gate_set.questions), "answers carry no end token"


def test_an_adapter_that_changes_nothing_is_close_to_the_base_in_everything(
    policy: Policy, gate_set: GateSet, judge: RewardModel
) -> None:
    policy.new_adapter("idle")
    config = GateConfig(SMALL)
    shares: list[float] = []
    checks = {
        c.check: c
        for c in run_gate(policy, "idle", gate_set, judge, heads(judge), config, seed=1, progress=shares.append)
    }
    assert list(checks) == [
        *(
            "finite",
            "learned",
            "foretold",
            "preference",
            "kl",
            "length",
            "endings",
            "subject",
            "words",
            "variety",
            "questions",
            "flattery",
            "limits",
            "safety",
        ),
    ]
    assert checks["kl"].value == pytest.approx(0.0, abs=1e-3)
    assert checks["questions"].value == pytest.approx(checks["questions"].bound)
    assert all(checks[name].passed for name in ("finite", "kl", "questions"))
    assert all(check.words.endswith(".") and len(check.words) > 20 for check in checks.values())
    assert shares == sorted(shares) and shares[-1] < 1


def test_a_wrecked_adapter_fails(policy: Policy, gate_set: GateSet, judge: RewardModel) -> None:
    policy.new_adapter("wild")
    disturb(policy, "wild", seed=3, size=0.3)
    checks = {c.check: c for c in run_gate(policy, "wild", gate_set, judge, heads(judge), GateConfig(SMALL), seed=1)}
    assert not checks["kl"].passed and checks["kl"].value > 0.5
    assert not all(check.passed for check in checks.values())


def test_numbers_that_are_none_stop_the_gate_at_once(policy: Policy, gate_set: GateSet, judge: RewardModel) -> None:
    policy.new_adapter("nan")
    with torch.no_grad():
        policy._parameters("nan")[0][1][0, 0] = float("nan")  # what a diverged optimiser leaves
    (only,) = run_gate(policy, "nan", gate_set, judge, heads(judge), GateConfig(SMALL), seed=1)
    assert only.check == "finite" and not only.passed


def test_a_comparison_reads_both_sides(policy: Policy, gate_set: GateSet, judge: RewardModel) -> None:
    entries: list[PoolEntry] = gate_set.prompts
    pair = Comparison(judge, entries, [entry.group for entry in entries])
    assert pair.win_rate(judge.head) == pytest.approx(0.5), "the base against itself"
    assert pair.endings(pair.mine) == pair.endings(pair.base)
