"""What a head makes of clicks that are chosen, careless, contradictory or too many.

    python -m benchmarks.rough_clicks            the people of benchmarks/head.py, five seeds: some minutes
    python -m benchmarks.rough_clicks --quick    fewer people and prompts, one seed

Replies, pair accuracy and wins of the best of sixteen drafts are those of benchmarks/head.py; a pair is judged only
where it is no tie to the person. About one click in ten is wrong to begin with.

    mixed           a ranking of four, a pair, a thumb in turn, as everywhere
    nearly always   thumbs only, up for all but the worst tenth
    flipped         so many of the acts say the opposite
    contradicted    every second act takes the one before it back: the same replies the other way round
    a burst         after thirty acts a thousand thumbs up on whatever comes; and after thirty acts more
    chosen          ten pairs of drafts that would teach the head most (feedback/pairing.py), against sixteen at random
    quick           quick questions: pairs of ready replies, the most telling first (feedback/elicitation.py)

Left out on purpose: adapters. Table on the terminal, JSON in benchmarks/results/rough_clicks.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import fmean

import numpy as np

from adapters.files import write_json
from adapters.latents import LATENTS
from benchmarks.base_replies import Drafts, Draw, base_replies, texts_of
from benchmarks.clicks import TURNS, Kind
from benchmarks.head import LEARN, PLANS, Judge, Judged, Learned, act_on, read_judged, simulate
from benchmarks.judging import Interval, interval
from benchmarks.people import Person, Taste, make_person
from benchmarks.work import RESULTS, commit, machine
from feedback.elicitation import Elicitation
from feedback.fading import fit_fading
from feedback.pairing import most_telling
from feedback.population import Population, load_population
from feedback.reward_head import Act, Array, fit


@dataclass(frozen=True)
class Bench:
    """The replies to click on and to be judged by, measured once."""

    population: Population
    seeds: int
    judged_by: Draw

    @cached_property
    def learn(self) -> list[Drafts]:
        """What people click on."""
        return base_replies(LEARN)

    @cached_property
    def rows(self) -> list[Array]:
        """Its features, (N, D) a prompt."""
        return [self.population.features(each.texts, each.latent) for each in self.learn]

    @cached_property
    def elicitation(self) -> Elicitation:
        """The quick questions."""
        return Elicitation(self.population)

    @cached_property
    def drafts(self) -> list[Drafts]:
        """What they are judged by."""
        return base_replies(self.judged_by)

    @cached_property
    def judged(self) -> Judged:
        """The same, measured."""
        return read_judged(self.drafts, self.population)

    def people(self, tastes: dict[str, Taste]) -> dict[str, list[Someone]]:
        """Every seed of every person."""
        found: dict[str, list[Someone]] = {}
        for name, taste in tastes.items():
            each = [make_person(name, taste, texts_of(self.learn), seed) for seed in range(self.seeds)]
            judge = Judge(each[0], self.judged)
            found[name] = [Someone(self, person, judge, seed) for seed, person in enumerate(each)]
        return found


@dataclass(frozen=True)
class Someone:
    """One person with one seed of their clicks."""

    bench: Bench
    person: Person
    judge: Judge
    seed: int

    def acts(self, kinds: Sequence[Kind], count: int, then: int = 0) -> list[Act]:
        """The first acts of somebody who clicks as the benchmark of heads has it; then: another course of clicks."""
        person = replace(self.person, random=self.random(100 + then))
        return simulate(person, self.bench.learn, self.bench.rows, kinds, count, self.seed + 1000 * then)

    def look(self, acts: Sequence[Act]) -> Learned:
        """How well the head of these acts tells pairs that are no tie apart, and what its best drafts win."""
        return self.judge.look(fit_fading(acts, self.bench.population.prior), len(acts))

    def random(self, about: int) -> np.random.Generator:
        """Chance of this person and seed for one purpose."""
        return np.random.default_rng([self.seed, about, *self.person.name.encode()])


def opposite(act: Act) -> Act:
    """What says the contrary."""
    return replace(act, tiers=act.tiers[::-1], thumb=-act.thumb)


def flipped(acts: Sequence[Act], share: float, random: np.random.Generator) -> list[Act]:
    """So many of the acts, drawn by chance, say the contrary."""
    return [opposite(act) if random.random() < share else act for act in acts]


def contradicted(acts: Sequence[Act]) -> list[Act]:
    """Every second act takes back the one before it."""
    return [opposite(acts[place - 1]) if place % 2 else act for place, act in enumerate(acts)]


def burst(someone: Someone, count: int) -> list[Act]:
    """Thumbs up on whatever comes."""
    random, rows = someone.random(2), np.concatenate(someone.bench.rows)
    return [Act("thumb", rows[[place]], thumb=1) for place in random.integers(len(rows), size=count)]


def nearly_always_up(someone: Someone) -> Someone:
    """The same person with a threshold under all but the worst tenth of replies."""
    worth = [someone.person.utility(text) for each in someone.bench.learn for text in each.texts]
    lenient = replace(someone.person, threshold=float(np.quantile(worth, 0.1)), random=someone.random(3))
    return replace(someone, person=lenient)


def chosen_pairs(someone: Someone, count: int) -> list[Act]:
    """Pairs as the product asks for them: the head's best of a prompt's replies and the one that would teach most."""
    bench, acts, random = someone.bench, list[Act](), someone.random(6)
    for number in someone.random(5).permutation(len(bench.learn))[:count].tolist():
        rows, texts = bench.rows[number], bench.learn[number].texts
        head = fit(acts, bench.population.prior)
        first = int(np.argmax(head.score(rows)[0]))
        found = most_telling(head, rows, first, [place for place in range(len(rows)) if place != first])
        assert found is not None
        pair = [first, found[0]]
        acts.append(act_on(someone.person, "pair", [texts[i] for i in pair], rows[pair], random))
    return acts


def quick_questions(someone: Someone, count: int) -> list[Act]:
    """Answers to quick questions, chosen as the product does, but for what the base makes of the replies (nothing)."""
    bench, acts, random, asked = someone.bench, list[Act](), someone.random(8), list[str]()
    person = replace(someone.person, random=random)
    for _ in range(count):
        pair = bench.elicitation.most_telling(fit(acts, bench.population.prior), asked)
        assert pair is not None, "there are more questions than are asked here"
        asked.append(pair.question.id)
        rows = bench.population.features(pair.texts, np.zeros((2, bench.population.latents)))
        acts.append(act_on(person, "pair", pair.texts, rows, random))
    return acts


FORMS: dict[str, Callable[[Someone], Sequence[Act]]] = {
    "mixed, 30": lambda s: s.acts(TURNS, 30),
    "mixed, 100": lambda s: s.acts(TURNS, 100),
    "thumbs around the middle, 30": lambda s: s.acts(("thumb",), 30),
    "thumbs nearly always up, 30": lambda s: nearly_always_up(s).acts(("thumb",), 30),
    "mixed, 30, a tenth flipped": lambda s: flipped(s.acts(TURNS, 30), 0.1, s.random(1)),
    "mixed, 30, three tenths flipped": lambda s: flipped(s.acts(TURNS, 30), 0.3, s.random(1)),
    "mixed, 100, three tenths flipped": lambda s: flipped(s.acts(TURNS, 100), 0.3, s.random(1)),
    "mixed, 30, every second contradicted": lambda s: contradicted(s.acts(TURNS, 30)),
    "mixed, 30, a burst of 1,000": lambda s: [*s.acts(TURNS, 30), *burst(s, 1000)],
    "mixed, 30, a burst of 1,000, 30 more": lambda s: [
        *s.acts(TURNS, 30),
        *burst(s, 1000),
        *s.acts(TURNS, 30, then=7),
    ],
    "pairs at random, 10": lambda s: s.acts(("pair",), 10, then=4),
    "pairs at random, 16": lambda s: s.acts(("pair",), 16, then=4),
    "pairs chosen, 10": lambda s: chosen_pairs(s, 10),
    "quick questions, 5": lambda s: quick_questions(s, 5),
    "quick questions, 10": lambda s: quick_questions(s, 10),
    "quick questions, 20": lambda s: quick_questions(s, 20),
    "quick questions, 10, then mixed, 20": lambda s: [*quick_questions(s, 10), *s.acts(TURNS, 20, then=9)],
    "mixed, 10": lambda s: s.acts(TURNS, 10),
}


FIGURES = ("accuracy", "wins")
PAIRED = (  # whose difference is looked at person by person
    ("quick questions, 10", "mixed, 10"),
    ("quick questions, 10", "pairs at random, 16"),
    ("quick questions, 10, then mixed, 20", "mixed, 30"),
)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, fewer prompts")
    quick = parser.parse_args().quick
    plan, population = PLANS["quick" if quick else "full"], load_population(LATENTS)
    people = Bench(population, 1 if quick else 5, plan.judged).people(plan.tastes)
    found: dict[str, dict[str, dict[str, float]]] = {figure: {} for figure in FIGURES}  # figure → form → person
    for form, clicks in FORMS.items():
        looks = {name: [each.look(clicks(each)) for each in seeds] for name, seeds in people.items()}
        for figure, by_form in found.items():
            by_form[form] = {name: fmean(getattr(look, figure) for look in seeds) for name, seeds in looks.items()}
        over = [interval(list(by_form[form].values())) for by_form in found.values()]
        print(f"{form:48s}" + "".join(f"{each!s:>22s}" for each in over), flush=True)
    beyond = {figure: {f"{a} − {b}": _beyond(forms[a], forms[b]) for a, b in PAIRED} for figure, forms in found.items()}
    for pair in beyond["accuracy"]:
        print(f"{pair:70s}" + "".join(f"{100 * by[pair].mean:+7.1f} points" for by in beyond.values()))
    write_json(
        RESULTS / ("rough_clicks-quick.json" if quick else "rough_clicks.json"),
        {
            "commit": commit(),
            "machine": machine(),
            "population": population.version,
            "people": found,
            "seeds": 1 if quick else 5,
            "beyond": {figure: {pair: asdict(each) for pair, each in by.items()} for figure, by in beyond.items()},
            **{
                figure: {form: asdict(interval(list(by.values()))) for form, by in forms.items()}
                for figure, forms in found.items()
            },
        },
    )


def _beyond(one: dict[str, float], other: dict[str, float]) -> Interval:
    """By how much one form is better than the other, person by person."""
    return interval([one[name] - other[name] for name in one])


if __name__ == "__main__":
    main()
