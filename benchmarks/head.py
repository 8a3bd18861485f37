"""How soon the reward head knows a taste, and how long a click takes to reach it.

    python -m benchmarks.head             tastes kept for this on the report prompts, three seeds, and the latency
    python -m benchmarks.head --quick     the same on fewer replies, one seed
    python -m benchmarks.head --tune      the other tastes on pool prompts: what constants may be chosen on

Simulated people (benchmarks/people.py) read base replies to shipped prompts and act: a ranking of four, a pair and a
thumb in turn, or rankings alone. Other prompts judge. Pair accuracy: of two replies to one prompt that are no tie to
the person, the head names the better one. Wins: the head picks one of 16 drafts, and the person, without noise,
compares it with base replies to the same prompt; equally good ones count half, and a broken reply loses to a sound one.
Calibration error: how far the head's chances for a click lie from the rates at which people click so, over ten bins of
chance, everybody's pairs together, as is usual; and within each person, where that somebody's taste is surer than the
head can know counts as an error too. Some people like what traits were made for, others what no trait was made for;
both are told.

A taste that turns: after 120 acts by one taste the person goes on with another. Pair accuracy for the new one after
10 to 80 acts more, as the product fits (old acts fade, feedback/fading.py), with all acts counting alike, and by the
new ones alone, though in life nobody knows which they are.

Left out on purpose: adapters (benchmarks/personalize.py). Table on the terminal, JSON in benchmarks/results/head.json.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.random import Generator as Random
from numpy.typing import NDArray

from adapters.base_model import DEFAULT_BASE
from adapters.files import write_json
from adapters.latents import LATENTS
from adapters.wellformed import find_flaws
from assistant.heads import Heads
from benchmarks.base_replies import Drafts, Draw, base_replies, texts_of
from benchmarks.clicks import SHOWN, TURNS, Kind, as_drafts
from benchmarks.judging import Interval, interval
from benchmarks.people import REPORT, TUNE, UNNAMED_REPORT, UNNAMED_TUNE, Person, Taste, make_person
from benchmarks.work import RESULTS, commit, machine
from feedback.fading import fit_fading
from feedback.labels import ranking_preference, thumb_preference
from feedback.population import Population, load_population
from feedback.reward_head import Act, Array, Prior, RewardHead, fit
from feedback.store import Store
from feedback.types import FeedbackKind, User

LABELS = (5, 10, 30, 100)
TURNS_AFTER, SINCE = 120, (10, 20, 40, 80)
LATENCY_LABELS = (10, 30, 100, 300, 1000)
DRAFTS = 16  # the rest of an evaluation prompt's replies are what the choice is compared with
LEARN = Draw("pool", 0, 60, 8)
RANKINGS: tuple[Kind, ...] = ("ranking",)
GROUPS = {"all": {*TUNE, *REPORT, *UNNAMED_TUNE, *UNNAMED_REPORT}, "unnamed": {*UNNAMED_TUNE, *UNNAMED_REPORT}}
GROUPS["named"] = GROUPS["all"] - GROUPS["unnamed"]
FIGURES = {
    "accuracy": "pair accuracy",
    "ranked_accuracy": "… from rankings",
    "wins": f"best of {DRAFTS} wins",
    "calibration": "… within a person",
}
BINS = 10


@dataclass(frozen=True)
class Plan:
    """One run of the benchmark."""

    tastes: dict[str, Taste]
    judged: Draw
    seeds: int
    kinds: tuple[Kind, ...] = TURNS


PLANS = {
    "full": Plan(REPORT | UNNAMED_REPORT, Draw("report", 0, 120, 24, stride=3), 3),
    "quick": Plan(REPORT, Draw("report", 0, 120, 18, stride=15), 1),
    "tune": Plan(TUNE | UNNAMED_TUNE, Draw("pool", 60, 90, 18), 4),
}


@dataclass(frozen=True)
class Judged:
    """Evaluation prompts: P prompts with N replies each."""

    features: Array  # (P, N, D)
    broken: NDArray[np.bool_]  # (P, N)
    texts: list[list[str]]


@dataclass(frozen=True)
class Learned:
    """What one head achieves for one person. gaps: (BINS,) chance said less rate come, by the bin's share of pairs."""

    labels: int
    accuracy: float
    wins: float
    gaps: list[float]

    @property
    def calibration(self) -> float:
        """The calibration error within this person."""
        return float(np.abs(self.gaps).sum())


@dataclass(frozen=True)
class Outcome:
    """One person's figures. oracle: wins of the best draft by the taste itself.

    looks: every seed's heads from acts of all kinds; ranked: those from as many rankings of four.
    """

    oracle: float
    looks: list[Learned]
    ranked: list[Learned]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the error of calibration instead of what it is made of."""
        looks = {"looks": self.looks, "ranked": self.ranked}
        plain = ("labels", "accuracy", "wins", "calibration")
        brief = {kind: [{name: getattr(each, name) for name in plain} for each in some] for kind, some in looks.items()}
        return {"oracle": self.oracle, **brief}

    def mean(self, figure: str, labels: int) -> float:
        """Mean of a figure over seeds; "ranked_…" is that from rankings."""
        field = figure.removeprefix("ranked_")
        looks = self.looks if field == figure else self.ranked
        return fmean(getattr(look, field) for look in looks if look.labels == labels)


def read_judged(drafts: Sequence[Drafts], population: Population) -> Judged:
    """Measure the replies that heads are judged on."""
    floor = float(np.quantile(np.concatenate([each.subject for each in drafts]), 0.05))
    broken = [
        [
            find_flaws(text, ended, float(subject), floor).broken
            for text, ended, subject in zip(each.texts, each.ended, each.subject, strict=True)
        ]
        for each in drafts
    ]
    features = np.stack([population.features(each.texts, each.latent) for each in drafts])
    return Judged(features, np.array(broken), texts_of(drafts))


def act_on(person: Person, kind: Kind, texts: Sequence[str], features: Array, random: Random) -> Act:
    """One act of a person on some of the replies to a prompt; features: (N, D)."""
    shown = random.choice(len(texts), SHOWN[kind], replace=False)
    rows = features[shown]
    if kind == "thumb":
        return Act("thumb", rows, thumb=person.thumb(texts[shown[0]]))
    if kind == "ranking":
        return Act("ranking", rows, tuple(tuple(tier) for tier in person.rank([texts[i] for i in shown])))
    verdict = person.compare(texts[shown[0]], texts[shown[1]])
    return Act("ranking", rows, {0: ((0, 1),), -1: ((0,), (1,)), 1: ((1,), (0,))}[verdict])


def simulate(
    person: Person, learn: Sequence[Drafts], rows: Sequence[Array], kinds: Sequence[Kind], count: int, seed: int
) -> list[Act]:
    """So many acts, their kinds in turn, each on the next prompt of a shuffled list."""
    random = np.random.default_rng([seed, *person.name.encode()])
    order = np.concatenate([random.permutation(len(learn)) for _ in range(-(-count // len(learn)))])[:count]
    return [
        act_on(person, kinds[turn % len(kinds)], learn[index].texts, rows[index], random)
        for turn, index in enumerate(order.tolist())
    ]


class Judge:
    """One person's true opinion of the evaluation replies."""

    def __init__(self, person: Person, judged: Judged) -> None:
        worth = np.array([[person.utility(text) for text in texts] for texts in judged.texts])
        gaps = worth[:, :, None] - worth[:, None, :]
        self._judged, self._clear = judged, gaps > person.tie
        self._clicked = 1 / (1 + np.exp(-gaps[self._clear] / person.scale))  # how often the better one is clicked
        # A broken reply loses to a sound one whatever it says; among broken ones nothing is earned.
        self._standing = np.where(judged.broken, worth.min() - 1.0, worth)
        self.oracle = self._wins(self._standing)

    def look(self, head: RewardHead, labels: int) -> Learned:
        """Pair accuracy, and how often the best draft by the head beats the base."""
        scores = self._judged.features @ head.mean
        right = _half_ties(scores[:, :, None] - scores[:, None, :])[self._clear].mean()
        wins = self._wins(np.where(self._judged.broken, -np.inf, scores))
        return Learned(labels, float(right), wins, self._gaps(head))

    def _gaps(self, head: RewardHead) -> list[float]:
        """By bins of the chance that the head gives to the likelier click: its distance from how often it comes."""
        prompts, better, worse = np.nonzero(self._clear)
        chance = head.prefer(self._judged.features[prompts, better], self._judged.features[prompts, worse])
        clicked = np.where(chance < 0.5, 1 - self._clicked, self._clicked)
        chance = np.maximum(chance, 1 - chance)
        place = np.minimum((chance * 2 - 1) * BINS, BINS - 1).astype(int)
        return list((np.bincount(place, chance - clicked, BINS) / len(chance)).tolist())

    def _wins(self, scores: Array) -> float:
        best = scores[:, :DRAFTS].argmax(1)
        gaps = self._standing[np.arange(len(best)), best][:, None] - self._standing[:, DRAFTS:]
        return float(_half_ties(gaps).mean())


def _half_ties(gaps: Array) -> Array:
    """1 where positive, 0.5 where zero, else 0."""
    return 0.5 * (np.sign(np.where(np.abs(gaps) < 1e-9, 0.0, gaps)) + 1.0)


def run(plan: Plan, population: Population) -> dict[str, Outcome]:
    """Every person and seed of a plan."""
    learn, drafts = base_replies(LEARN), base_replies(plan.judged)
    rows = [population.features(each.texts, each.latent) for each in learn]
    judged = read_judged(drafts, population)
    people: dict[str, Outcome] = {}
    for name, taste in plan.tastes.items():
        looks: dict[tuple[Kind, ...], list[Learned]] = {plan.kinds: [], RANKINGS: []}
        for seed in range(plan.seeds):
            for kinds, found in looks.items():
                person = make_person(name, taste, texts_of(learn), seed)
                judge = Judge(person, judged)
                acts = simulate(person, learn, rows, kinds, max(LABELS), seed)
                found += [judge.look(fit_fading(acts[:count], population.prior), count) for count in LABELS]
        people[name] = Outcome(judge.oracle, looks[plan.kinds], looks[RANKINGS])
    return people


def over_people(people: dict[str, Outcome], figure: str, labels: int, group: str = "all") -> Interval:
    """Mean of a figure over the people of a group, seeds averaged first, with its 95% interval over people."""
    return interval([outcome.mean(figure, labels) for name, outcome in people.items() if name in GROUPS[group]])


def together(people: dict[str, Outcome], labels: int, group: str = "all") -> float:
    """The calibration error over everybody's pairs, people and seeds with equal weight."""
    members = [outcome for name, outcome in people.items() if name in GROUPS[group]]
    gaps = [look.gaps for outcome in members for look in outcome.looks if look.labels == labels]
    return float(np.abs(np.mean(gaps, axis=0)).sum())


def turned(plan: Plan, population: Population) -> dict[str, dict[int, Interval]]:
    """Pair accuracy for a taste that took another's place: how it is fitted → acts since → over tastes."""
    learn = base_replies(LEARN)
    rows = [population.features(each.texts, each.latent) for each in learn]
    judged, prior = read_judged(base_replies(plan.judged), population), population.prior
    names = [name for name in plan.tastes if name in GROUPS["named"]]
    found: dict[str, dict[int, list[float]]] = {how: {since: [] for since in SINCE} for how in HOW_FITTED}
    for place, name in enumerate(names):
        new = names[(place + len(names) // 2) % len(names)]
        for seed in range(plan.seeds):
            before, after = (make_person(each, plan.tastes[each], texts_of(learn), seed) for each in (name, new))
            judge = Judge(after, judged)
            acts = simulate(before, learn, rows, plan.kinds, TURNS_AFTER, seed)
            acts += simulate(after, learn, rows, plan.kinds, max(SINCE), seed + plan.seeds)
            for since in SINCE:
                for how, fitted in HOW_FITTED.items():
                    head = fitted(acts[: TURNS_AFTER + since], prior)
                    found[how][since].append(judge.look(head, since).accuracy)
    grouped = {how: {since: np.reshape(v, (len(names), -1)) for since, v in by.items()} for how, by in found.items()}
    return {how: {since: interval(v.mean(1).tolist()) for since, v in by.items()} for how, by in grouped.items()}


HOW_FITTED: dict[str, Callable[[Sequence[Act], Prior], RewardHead]] = {
    "old acts fade": fit_fading,
    "all alike": fit,
    "the new alone": lambda acts, prior: fit(acts[TURNS_AFTER:], prior),
}


def latency(population: Population, clicks: int = 15) -> dict[int, list[float]]:
    """Milliseconds from an act to the head that knows it, the event on disk first, by number of labels before."""
    learn = base_replies(LEARN)
    person = make_person("short", TUNE["short"], texts_of(learn), 0)
    taken: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "mynah.db")
        user = store.people.add("someone", "someone", "")
        heads = Heads(store, DEFAULT_BASE, population)
        acts = _stored_acts(store, user, person, learn, population)
        given = 0
        for labels in LATENCY_LABELS:
            with store.database.transaction():
                for _ in range(labels - given):
                    next(acts)()
            heads.refit(user.id)
            taken[labels] = []
            for _ in range(clicks):
                keep = next(acts)
                began = time.perf_counter()
                keep()
                heads.refit(user.id)
                taken[labels].append(1000 * (time.perf_counter() - began))
            given = labels + clicks
        store.close()
    return taken


def _stored_acts(
    store: Store, user: User, person: Person, learn: Sequence[Drafts], population: Population
) -> Iterator[Callable[[], object]]:
    """Acts without end, their replies in the store; each is kept when called."""
    for turn in itertools.count():
        drafts, kind = learn[turn % len(learn)], TURNS[turn % len(TURNS)]
        written = as_drafts(drafts)[: SHOWN[kind]]
        shown = [draft.as_reply(user.id, [], DEFAULT_BASE, source="chat") for draft in written]
        store.chats.add_replies(shown)
        names = [reply.id for reply in shown]
        if kind == "thumb":
            fields = thumb_preference(shown[0], person.thumb(shown[0].text), population)
        else:
            tiers = [[names[row] for row in tier] for tier in person.rank([reply.text for reply in shown])]
            fields = ranking_preference(shown, tiers, population)
        form: FeedbackKind = "thumb" if kind == "thumb" else "ranking"
        yield partial(store.acts.add, user.id, form, {}, names, DEFAULT_BASE, fields)


def groups_of(people: dict[str, Outcome]) -> list[str]:
    """The groups that have somebody."""
    return [group for group, members in GROUPS.items() if members & set(people)]


def report(
    plan: Plan, people: dict[str, Outcome], turns: dict[str, dict[int, Interval]], taken: dict[int, list[float]]
) -> str:
    """The tables."""
    lines = [
        f"{len(people)} tastes, {plan.seeds} seeds; acts: {', '.join(plan.kinds)} in turn; 95% intervals over tastes"
    ]
    lines.append(f"{'labels':20s}" + "".join(f"{labels:>22d}" for labels in LABELS))
    for group in groups_of(people):
        lines.append(f"  {group}: {len(GROUPS[group] & set(people))} tastes")
        for figure, title in FIGURES.items():
            cells = (f"{over_people(people, figure, labels, group)!s:>22s}" for labels in LABELS)
            lines.append(f"{title:20s}" + "".join(cells))
        errors = (f"{together(people, labels, group):22.1%}" for labels in LABELS)
        lines.append(f"{'calibration error':20s}" + "".join(errors))
    lines.append(f"{'the taste itself':20s}{interval([each.oracle for each in people.values()])!s:>22s}")
    for name, outcome in people.items():
        cells = (f"{outcome.mean('accuracy', n):15.1%}{outcome.mean('wins', n):7.1%}" for n in LABELS)
        lines.append(f"  {name:18s}" + "".join(cells) + f"   of {outcome.oracle:.1%}")
    lines.append(f"{f'turned after {TURNS_AFTER}':20s}" + "".join(f"{since:>22d}" for since in SINCE))
    lines += [f"  {how:18s}" + "".join(f"{each!s:>22s}" for each in by.values()) for how, by in turns.items()]
    lines.append(
        "click to head, ms    " + "   ".join(f"{n}: {median(ms):.0f} (max {max(ms):.0f})" for n, ms in taken.items())
    )
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--quick", action="store_const", const="quick", dest="plan", help="fewer replies, one seed")
    form.add_argument("--tune", action="store_const", const="tune", dest="plan", help="on what constants may be chosen")
    name = parser.parse_args().plan or "full"
    plan, population = PLANS[name], load_population(LATENTS)
    people, turns, taken = run(plan, population), turned(plan, population), latency(population)
    print(report(plan, people, turns, taken))
    summary = {
        group: {
            figure: {str(labels): asdict(over_people(people, figure, labels, group)) for labels in LABELS}
            for figure in FIGURES
        }
        | {"calibration_together": {str(labels): together(people, labels, group) for labels in LABELS}}
        for group in groups_of(people)
    }
    write_json(
        RESULTS / ("head.json" if name == "full" else f"head-{name}.json"),
        {
            "plan": {"name": name, "seeds": plan.seeds, "kinds": plan.kinds, "judged": asdict(plan.judged)},
            "commit": commit(),
            "machine": machine(),
            "population": population.version,
            "summary": summary,
            "turned": {how: {str(n): asdict(each) for n, each in by.items()} for how, by in turns.items()},
            "people": {who: outcome.as_dict() for who, outcome in people.items()},
            "latency_ms": {str(labels): ms for labels, ms in taken.items()},
        },
    )


if __name__ == "__main__":
    main()
