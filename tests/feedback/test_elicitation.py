"""Quick questions: what ships is sound, the next pair is the one that tells most, and answers teach."""

from __future__ import annotations

import numpy as np

from adapters.wellformed import find_flaws
from benchmarks.people import TUNE, make_person
from feedback.elicitation import Elicitation, Pair, load_questions
from feedback.population import load_population
from feedback.reward_head import Act, RewardHead, fit, prior_head

POPULATION = load_population(16)
QUESTIONS = load_questions()
ELICITATION = Elicitation(POPULATION)


def answers(pair: Pair, tiers: tuple[tuple[int, ...], ...]) -> Act:
    return Act("ranking", POPULATION.features(pair.texts, np.zeros((2, 16))), tiers)


def test_what_ships_is_sound() -> None:
    assert len({question.id for question in QUESTIONS}) == len(QUESTIONS) >= 20
    for question in QUESTIONS:
        assert len(set(question.replies)) == len(question.replies) >= 4
        for text in question.replies:
            flaws = find_flaws(text, True, 1.0, 0.0)
            assert not (flaws.broken or flaws.repetitive), (question.id, text)
            assert 3 <= len(text.split()) <= 60, (question.id, text)


def test_the_questions_differ_in_what_people_like() -> None:
    """Of each named trait there is at least one pair that differs in it by as much as two base replies often do."""
    rows = [POPULATION.features(question.replies, np.zeros((len(question.replies), 16))) for question in QUESTIONS]
    widest = np.max([row.max(0) - row.min(0) for row in rows], axis=0)
    named = POPULATION.names[:49]
    assert {name for name, width in zip(named, widest, strict=False) if width < 1.0} <= {"repetition"}


def test_the_next_pair_is_the_one_that_lessens_doubt_most() -> None:
    """By hand: every pair's answer is tried in a Gaussian model, and the mean variance of all pairs looked at."""
    random = np.random.default_rng(3)
    root = random.standard_normal((len(POPULATION.names),) * 2) * 0.02
    head = RewardHead(random.standard_normal(len(root)) * 0.05, root @ root.T + 0.01 * np.eye(len(root)), 0.0, 3)
    rows = {q.id: POPULATION.features(q.replies, np.zeros((len(q.replies), 16))) for q in QUESTIONS}
    d = np.array([rows[pair.question.id][pair.left] - rows[pair.question.id][pair.right] for pair in ELICITATION.pairs])
    chance = head.prefer(d, np.zeros_like(d))
    left = []
    for row, p in zip(d, chance, strict=True):
        after = np.linalg.inv(np.linalg.inv(head.cov) + p * (1 - p) * np.outer(row, row))
        left.append(np.einsum("nd,de,ne->n", d, after, d).mean())
    assert ELICITATION.most_telling(head, []) == ELICITATION.pairs[int(np.argmin(left))]


def test_every_question_comes_once() -> None:
    asked: list[str] = []
    while (pair := ELICITATION.most_telling(prior_head(POPULATION.prior), asked)) is not None:
        asked.append(pair.question.id)
    assert sorted(asked) == sorted(question.id for question in QUESTIONS)


def test_ten_answers_teach_somebody_who_likes_it_short() -> None:
    person = make_person("short", TUNE["short"], [list(question.replies) for question in QUESTIONS], seed=1)
    acts: list[Act] = []
    asked: list[str] = []
    for _ in range(10):
        pair = ELICITATION.most_telling(fit(acts, POPULATION.prior), asked)
        assert pair is not None
        asked.append(pair.question.id)
        verdict = person.compare(*pair.texts)
        acts.append(answers(pair, {0: ((0, 1),), -1: ((0,), (1,)), 1: ((1,), (0,))}[verdict]))
    head = fit(acts, POPULATION.prior)
    long, short = "The sea is large, deep and blue, and it is full of salt and of fish. " * 3, "The sea is salty."
    rows = POPULATION.features([short, long], np.zeros((2, 16)))
    assert head.prefer(rows[:1], rows[1:])[0] > 0.7
    assert prior_head(POPULATION.prior).prefer(rows[:1], rows[1:])[0] < 0.6
