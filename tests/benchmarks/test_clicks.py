"""Simulated people are shown what the product shows, and their clicks become what the product learns from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapters.safety import SafetyTerm
from assistant.turn import Judge
from benchmarks.base_replies import Drafts
from benchmarks.clicks import as_drafts, best_row, click_through, heads_of, liked_texts, shown_and_clicked, to_show
from benchmarks.people import Person, make_person
from feedback.population import Population, load_population
from feedback.reward_head import RewardHead

SHORT = "Drink water. Rest well."
LONG = (
    "You should drink a lot of water every day, rest as much as you possibly can, and then, after a long while, you "
    "will certainly notice that everything has become considerably better than it was at the very beginning."
)


@pytest.fixture(scope="module")
def population() -> Population:
    return load_population(16)


def kept(number: int) -> Drafts:
    """Five drafts to a prompt, the third short, the others long and all different."""
    texts = [f"{LONG} Case {number}.{row}." for row in range(5)]
    texts[2] = f"{SHORT} Case {number}."
    return Drafts(f"p{number}", f"What helps in case {number}?", texts, [True] * 5, np.zeros((5, 16)), np.ones(5))


def judge(head: RewardHead, population: Population) -> Judge:
    return Judge(head, population, SafetyTerm.load("term"), subject_floor=0.0, pieces=lambda word: 1)


def short_lover(seed: int = 0) -> Person:
    samples = [kept(number).texts for number in range(8)]
    return make_person("short", lambda text: -float(len(text.split())), samples, seed)


def test_before_the_first_label_the_base_is_shown() -> None:
    assert [draft.text for draft in to_show(kept(0), 4, None)] == kept(0).texts[:4]
    assert [draft.text for draft in to_show(kept(0), 1, None)] == kept(0).texts[:1]


def test_labels_are_numbered_and_split_as_the_store_does(population: Population) -> None:
    labels = click_through(short_lover(), [kept(n) for n in range(10)], 10, population, lambda h: judge(h, population))
    assert [label.kind for label in labels] == ["ranking", "ranking", "thumb"] * 3 + ["ranking"]
    assert [label.rows for label in labels] == [4, 2, 1, 4, 2, 1, 4, 2, 1, 4]
    assert [label.seq for label in labels if label.held_out] == [5, 10]
    heads = heads_of(labels, population)
    assert (heads.full.labels, heads.train.labels, heads.judge.labels) == (10, 8, 2)


def test_clicks_teach_the_head_what_the_person_likes(population: Population) -> None:
    labels = click_through(short_lover(), [kept(n) for n in range(9)], 9, population, lambda h: judge(h, population))
    learned = judge(heads_of(labels, population).full, population)
    assert best_row(kept(99), learned) == 2
    shown = to_show(kept(99), 2, learned)
    assert [draft.text for draft in shown] == [kept(99).texts[2], kept(99).texts[4]]  # the best, and a base reply


def test_the_same_seed_clicks_the_same(population: Population) -> None:
    def acts(seed: int) -> list[tuple[tuple[tuple[int, ...], ...], int]]:
        prompts = [kept(number) for number in range(12)]
        labels = click_through(short_lover(seed), prompts, 12, population, lambda h: judge(h, population))
        return [(label.tiers, label.thumb) for label in labels]

    assert acts(1) == acts(1)
    assert acts(1) != acts(2)


def test_too_few_prompts_are_refused(population: Population) -> None:
    with pytest.raises(AssertionError, match="3 labels need as many prompts; there are 1"):
        click_through(short_lover(), [kept(0)], 3, population, lambda h: judge(h, population))


def test_drafts_carry_what_the_judge_needs() -> None:
    first = as_drafts(kept(3))[0]
    assert (first.text, first.ended, first.finish, first.subject) == (kept(3).texts[0], True, "stop", 1.0)


def test_liked_is_what_was_put_first_or_thumbed_up(population: Population) -> None:
    acts = shown_and_clicked(short_lover(), [kept(n) for n in range(4)], 4, population, lambda h: judge(h, population))
    (four, ranked), (two, pair), (one, thumb), _ = acts
    said = [
        (four, replace(ranked, tiers=((1, 2), (0,), (3,)))),
        (two, replace(pair, tiers=((1,), (0,)))),
        (one, replace(thumb, thumb=-1)),
        (one, replace(thumb, thumb=1)),
    ]
    assert liked_texts(said) == [each.text for each in (four[1], four[2], two[1], one[0])]
