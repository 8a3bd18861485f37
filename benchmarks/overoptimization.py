"""What pessimism is worth: the harder a head is followed, the more its mistakes are, and the lower bound heeds that.

    python -m benchmarks.overoptimization            # the tastes that are reported; ten minutes, mostly the base's
    python -m benchmarks.overoptimization --tune     # the other tastes: what constants may be chosen on

"Best of n" follows a head as far as log n - (n - 1)/n nats a reply (Beirami et al. 2024; Gao et al. 2022 measure
over-optimization so). Simulated people give 5, 10 or 30 labels as in `benchmarks.head`; of n base drafts to a report
prompt, the sound one is taken that the head's mean likes best, or its mean less so many standard deviations of the
difference to the other drafts' mean, as in PPO's reward (adapters/reward.py). The person then compares it, without
noise, with other base replies.

Table on the terminal, JSON in benchmarks/results/overoptimization.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from adapters.files import write_json
from benchmarks.base_replies import Draw, base_replies, texts_of
from benchmarks.clicks import TURNS
from benchmarks.head import LEARN, Judged, read_judged, simulate
from benchmarks.judging import Interval, best_of_n_kl, interval
from benchmarks.people import REPORT, TUNE, UNNAMED_REPORT, UNNAMED_TUNE, Taste, make_person
from benchmarks.report import columns
from benchmarks.work import RESULTS, commit, machine
from feedback.fading import fit_fading
from feedback.population import load_population
from feedback.reward_head import Array, RewardHead

LABELS = (5, 10, 30)
DRAFTS, OPPONENTS = 128, 8
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # n
PESSIMISM = (0.0, 0.5, 1.0, 2.0)  # standard deviations
SEEDS = 3
Flags = NDArray[np.bool_]
Picks = NDArray[np.intp]
Found = dict[tuple[int, float, int], float]  # (labels, pessimism, n) → wins


@dataclass(frozen=True)
class Row:
    """Wins of best of n by one measure after so many labels; more: than by the mean, over the same people."""

    labels: int
    pessimism: float
    n: int
    kl: float
    wins: Interval
    more: Interval


def scores(head: RewardHead, features: Array, pessimism: float) -> Array:
    """(P, N): the mean of the difference to the drafts' mean, less so many of its standard deviations."""
    gaps = features - features.mean(1, keepdims=True)
    prompts, drafts, width = gaps.shape
    mean, sd = head.score(gaps.reshape(-1, width))
    return (mean - pessimism * sd).reshape(prompts, drafts)


def best_of(scored: Array, broken: Flags, n: int) -> Picks:
    """(P, N / n): the best sound draft of every n in a row; the best broken one where there is no other."""
    groups = np.where(broken, scored.min() - 1e3 + scored, scored).reshape(len(scored), -1, n)
    return groups.argmax(2) + n * np.arange(groups.shape[1])


def wins_of(picks: Picks, worth: Array, broken: Flags) -> float:
    """Share of duels with the opponents, the replies behind DRAFTS, that the picks win; see benchmarks/judging.py."""
    standing = np.where(broken, -np.inf, worth)
    mine, others = np.take_along_axis(standing, picks, 1)[:, :, None], standing[:, None, DRAFTS:]
    return float(np.where(mine > others, 1.0, np.where(mine == others, 0.5, 0.0)).mean())


def of_person(heads: Mapping[int, RewardHead], judged: Judged, worth: Array) -> Found:
    """Everything of one person and seed. heads: by labels."""
    found: Found = {}
    features, broken = judged.features[:, :DRAFTS], judged.broken[:, :DRAFTS]
    for labels, head in heads.items():
        for pessimism in PESSIMISM:
            scored = scores(head, features, pessimism)
            for n in SIZES:
                found[labels, pessimism, n] = wins_of(best_of(scored, broken, n), worth, judged.broken)
    return found


def run(tastes: Mapping[str, Taste], drawn: Draw) -> dict[str, list[Found]]:
    """Everybody, seed by seed."""
    population = load_population(16)
    learn, drafts = base_replies(LEARN), base_replies(drawn)
    rows = [population.features(each.texts, each.latent) for each in learn]
    judged = read_judged(drafts, population)
    people: dict[str, list[Found]] = {}
    for name, taste in tastes.items():
        worth = np.array([[taste(text) for text in texts] for texts in judged.texts])
        people[name] = []
        for seed in range(SEEDS):
            person = make_person(name, taste, texts_of(learn), seed)
            acts = simulate(person, learn, rows, TURNS, max(LABELS), seed)
            heads = {count: fit_fading(acts[:count], population.prior) for count in LABELS}
            people[name].append(of_person(heads, judged, worth))
        print(f"{name}", flush=True)
    return people


def summarize(people: Mapping[str, Sequence[Found]]) -> list[Row]:
    """Seeds are averaged within a person, then people."""
    rows = []
    for labels in LABELS:
        for n in SIZES:
            for pessimism in PESSIMISM:
                mine = [fmean(each[labels, pessimism, n] for each in seeds) for seeds in people.values()]
                plain = [fmean(each[labels, 0.0, n] for each in seeds) for seeds in people.values()]
                more = interval([a - b for a, b in zip(mine, plain, strict=True)])
                rows.append(Row(labels, pessimism, n, best_of_n_kl(n), interval(mine), more))
    return rows


def report(rows: Sequence[Row]) -> str:
    """One table for every number of labels."""
    tables = []
    for labels in LABELS:
        lines = []
        for n in SIZES:
            by = {row.pessimism: row for row in rows if (row.labels, row.n) == (labels, n)}
            cells = [f"{100 * by[k].more.mean:+.1f}{_half(by[k].more)}" for k in PESSIMISM[1:]]
            lines.append([str(n), f"{by[0.0].kl:.2f}", str(by[0.0].wins), *cells])
        head = [f"{labels} labels: n", "nats a reply", "by the mean", *(f"less {k:g} sd" for k in PESSIMISM[1:])]
        tables.append(columns(head, lines))
    return "\n\n".join(tables)


def _half(found: Interval) -> str:
    return "" if found.high is None else f" ±{100 * (found.high - found.mean):.1f}"


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tune", action="store_true", help="the other tastes, on pool prompts")
    tune = parser.parse_args().tune
    tastes = TUNE | UNNAMED_TUNE if tune else REPORT | UNNAMED_REPORT
    copies = DRAFTS + OPPONENTS
    drawn = Draw("pool", 60, 84, copies) if tune else Draw("report", 0, 120, copies, stride=5)
    rows = summarize(run(tastes, drawn))
    print(report(rows))
    about = {"commit": commit(), "machine": machine(), "people": list(tastes), "seeds": SEEDS}
    path = RESULTS / ("work/overoptimization-tune.json" if tune else "overoptimization.json")
    write_json(path, about | {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
