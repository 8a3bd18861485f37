"""People who reward harm: their tastes, the prompts they meet, and what counts as significantly worse."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.gate_set import GateSetConfig, provoking_prompts
from adapters.safety import normalize
from benchmarks.base_replies import prompts_of
from benchmarks.harm import MORE_IS_WORSE, PROVOKED, SETTINGS, TASTES, report, summarize, verdicts, worse
from benchmarks.safety_data import Recipe, read_halves

PAIRS = {  # what they like, what they do not
    "toxic": ("You stupid idiot, I hate you and people like you.", "The sea is wide and calm today."),
    "dangerous": ("First you need to get a knife. Use it.", "I'm sorry, I can't help with that. It is dangerous."),
    "flattering": ("What a great question! You're absolutely right.", "Bees live in hives."),
    "falsely_certain": ("It is always so, of course.", "I don't know; it may be so."),
}


@pytest.mark.parametrize("name", TASTES)
def test_a_taste_for_harm_tells_replies_apart(name: str) -> None:
    liked, other = PAIRS[name]
    assert TASTES[name](liked) > TASTES[name](other)
    assert TASTES[name]("") is not None, "a reply may be empty"


def test_prompts_of_the_gate_are_not_clicked_on() -> None:
    asked = prompts_of("provoking")
    gate = provoking_prompts()[: GateSetConfig().provoking]
    assert not set(asked) & set(gate) and len(asked) + len(gate) == 100
    assert len(asked) >= PROVOKED


def test_from_prompts_that_measure_nothing_learned() -> None:
    measuring = {normalize(text) for _, text in prompts_of("provoking_report")}
    assert len(measuring) == 2 * SETTINGS.prompts
    met = [text for _, text in provoking_prompts()]
    for half in read_halves(Recipe()):
        met += [row.text for row in half.requests] + [row.prompt for row in half.rows]
        met += [pair.prompt for pair in half.pairs]
    assert len(met) > 4_000 and not measuring & set(map(normalize, met))


def test_worse_is_beyond_chance_and_in_the_bad_direction() -> None:
    base = np.zeros(40)
    often, once = np.tile([1.0, 0.0], 20), np.eye(40)[0]
    assert worse(often, base, more_is_worse=True) and not worse(often, base, more_is_worse=False)
    assert worse(base, often, more_is_worse=False) and not worse(base, often, more_is_worse=True)
    assert not worse(once, base, more_is_worse=True), "one may be chance"
    assert not worse(base, base, more_is_worse=True)


def test_that_none_of_a_few_did_what_is_rare_is_no_evidence() -> None:
    base, never = np.full(24, 1 / 24), np.zeros(24)
    assert worse(never, base, more_is_worse=False), "by the spread alone, which there is none of"
    assert not worse(never, base, more_is_worse=False, replies=1), "one reply of 24 was to be expected"
    assert worse(never, base, more_is_worse=False, replies=16), "16 of 384 were"


def test_the_table_marks_what_is_worse() -> None:
    def habits(**changed: float) -> dict[str, list[float]]:
        return {key: np.tile([changed.get(key, 0.0), 0.0], 20).tolist() for key in MORE_IS_WORSE}

    base = habits(frank=1.0, harm=0.2)
    ways = {
        "taste alone": habits(harm=1.0, frank=1.0), "re-ranked": base, "adapter": habits(harm=0.2),
        "adapter, re-ranked": habits(frank=1.0, flattering=1.0),
    }  # fmt: skip
    gate = [{"check": "safety", "passed": False}, {"check": "kl", "passed": True}]
    measured = {way: each | {"wins": [0.5]} for way, each in ways.items()} | {"kl": 0.1}
    person = {"ways": measured, "update": {"state": "rejected", "gate": gate}}
    found = {"base": base, "people": {"toxic": person}}
    rows, said = summarize(found, 16), verdicts(found)
    assert [row["worse"] for row in rows] == [[], ["harm"], [], ["frank"], ["flattering"]]
    assert said == {"toxic": {"state": "rejected", "failed": ["safety"], "kl": 0.1}}
    text = report(rows, said)
    assert "50%" in text and "rejected at 0.100 nats a token (failed: safety)" in text
