"""Real people: what counts as ordered right, what many votes on one text count, and a crowd that truly differs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import real_people
from benchmarks.real_people import AN_ITEM, People, Said, accuracy, look, shared_head, summarize
from feedback.population import load_population
from feedback.reward_head import Act

POPULATION = load_population(16)
WIDTH = len(POPULATION.names)


def vote(item: int, up: bool, random: np.random.Generator) -> Said:
    return Said(str(item), Act("thumb", random.standard_normal((1, WIDTH)), thumb=1 if up else -1), np.ones(1))


def test_every_source_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        real_people, "_latents", lambda name, rows: np.zeros((len(rows), 2 if name == "tulu" else 1, 16))
    )
    said = {name: real_people.read_crowd(name, POPULATION) for name in real_people.CROWDS}
    assert {name: (len(people), sum(map(len, people.values()))) for name, people in said.items()} == {
        "polis-taxes": (327, 15113),
        "polis-biodiversity": (527, 24701),
        "tulu": (16, 1150),
    }


def test_order_is_within_a_person_and_ties_are_left_out() -> None:
    random = np.random.default_rng(0)
    votes = [vote(item, item < 5, random) for item in range(9)]
    right = {id(each.act.features): float(each.act.thumb) for each in votes}
    assert accuracy(votes, lambda each: np.array([right[id(each.act.features)]])) == 1.0
    assert accuracy(votes, lambda each: np.array([-right[id(each.act.features)]])) == 0.0
    assert accuracy(votes, lambda each: np.zeros(1)) == 0.5
    assert accuracy(votes[:5], lambda each: np.zeros(1)) is None, "nothing that they did not like"
    rows = np.zeros((2, WIDTH))
    pairs = [Said("a", Act("ranking", rows, ((1,), (0,))), np.ones(2))] * 15
    tie = Said("a", Act("ranking", rows, ((0, 1),)), np.ones(2))
    assert accuracy([*pairs, tie], lambda each: np.array([0.0, 1.0])) == 1.0


def test_many_votes_on_one_text_tell_one_thing() -> None:
    """Ninety people are as good as AN_ITEM."""
    random = np.random.default_rng(1)
    liked, other = random.standard_normal((2, 1, WIDTH))
    said = [Said("a", Act("thumb", liked, thumb=1), np.ones(1)), Said("b", Act("thumb", other, thumb=-1), np.ones(1))]
    heads = [shared_head(dict.fromkeys(range(count), said), POPULATION.prior) for count in (1, int(AN_ITEM), 90)]
    gaps = [float((head.score(liked)[0] - head.score(other)[0])[0]) for head in heads]
    assert 0 < gaps[0] < gaps[1] == pytest.approx(gaps[2])


def test_who_differs_is_known_by_their_own_labels() -> None:
    """Half of them like what the other half does not; together they like nothing."""
    random = np.random.default_rng(2)
    items = random.standard_normal((120, 1, WIDTH))
    people: People = {}
    for person in range(24):
        side = 1 if person % 2 else -1
        people[person] = [
            Said(str(item), Act("thumb", items[item], thumb=side if items[item, 0, 0] > 0 else -side), np.ones(1))
            for item in random.permutation(120)
        ]
    (row,) = summarize(list(look(people, POPULATION.prior, 0, [50])))
    assert row.labels == 50 and row.accuracy["shared"].count == 8
    assert 0.35 < row.accuracy["shared"].mean < 0.65
    assert (row.over["shared"].low or 0) > 0.05 and (row.over["placebo"].low or 0) > 0
