"""Real people: whether their own labels make a head better than the one that all others share.

    python -m benchmarks.real_people            some minutes, after the base has read the texts once (half an hour)
    python -m benchmarks.real_people --quick    one split, few people

Votes of agreement with short texts (Polis: taxes, biodiversity) and choices between two answers (Tulu), data/people.
A split keeps a third of the people and a third of the items apart: the shared head is made of the others' labels on
the other items, and everybody apart is judged on the items apart, after k of their own labels on the other ones.
Votes count as thumbs. Accuracy is within a person: of all pairs of a text they agreed with and one they did not, or
of the two answers, the share that is ordered right; ties are left out.

    longer      the longer text is the better one
    shared      the head that everybody shares
    scratch     the person's labels alone, from the prior that ships with Mynah
    common      the same, beginning with what the others have in common, as a server finds it (feedback/common.py)
    personal    the person's labels, from a prior around the shared head
    placebo     the same with another person's labels

How wide the prior around the shared head is, is chosen by how well heads of the people who made it foretell their own
other labels, and rather too narrow than too wide. A text that many have voted on tells one thing: all votes on it
together count as AN_ITEM labels.

Left out on purpose: language models but for the latent features. What ships with Mynah learned nothing from these
people: the answers of the Tulu set are partly ChatGPT's, and serve to evaluate.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from adapters.files import sha256_file, write_json
from adapters.latents import mean_of
from assistant.common import MOST
from benchmarks.base_replies import WORK, Base
from benchmarks.judging import Interval, interval
from benchmarks.work import RESULTS, commit, machine
from feedback import common
from feedback.population import Population, load_population
from feedback.reward_head import Act, Array, Prior, RewardHead, fit, log_likelihood

DATA = Path(__file__).resolve().parent.parent / "data" / "people"
CROWDS = ("polis-taxes", "polis-biodiversity", "tulu")
LABELS = (0, 5, 10, 20, 50)
SEEDS = 5
AN_ITEM = 3.0  # labels that all votes on one text count as
SCALES = (0.01, 0.1, 0.2, 0.4, 1.0, 3.0)  # of the prior's width around the shared head, in that of the shipped prior
SOME = 15  # labels that somebody must have to count
FORETOLD_FROM = 20
READ_TOKENS = 256


@dataclass(frozen=True)
class Said:
    """One label. lengths: characters of the texts it is about, (k,)."""

    item: str
    act: Act
    lengths: Array


People = dict[int, list[Said]]


# ---- who said what ------------------------------------------------------------------------------------------------


def read_crowd(name: str, population: Population) -> People:
    """Everybody of one source, with what they said in features."""
    rows = _rows(name)
    latents = _latents(name, rows)
    people: People = defaultdict(list)
    for place, row in enumerate(rows):
        texts = [row["a"], row["b"]] if "a" in row else [row["text"]]
        features = population.features(texts, latents[place])
        lengths = np.array([float(len(text)) for text in texts])
        if "a" in row:
            tiers = {0: ((0, 1),), 1: ((0,), (1,)), -1: ((1,), (0,))}[int(np.sign(row["preference"]))]
            people[row["person"]].append(Said(row["item"], Act("ranking", features, tiers), lengths))
        for person, vote in row.get("votes", ()):
            if vote:
                people[person].append(Said(str(row["id"]), Act("thumb", features, thumb=vote), lengths))
    return people


def _rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _latents(name: str, rows: Sequence[dict[str, Any]]) -> Array:
    """(rows, texts, K) latent features; the base reads each text once."""
    path = WORK / f"{name}-{sha256_file(DATA / f'{name}.jsonl.gz')[:12]}.safetensors"
    if not path.exists():
        base, read = Base(), dict[str, Array]()
        for place, row in enumerate(rows):
            prompt = row.get("prompt") or f"What do you think about {name.removeprefix('polis-')}?"
            texts = [row["a"], row["b"]] if "a" in row else [row["text"]]
            key = json.dumps([prompt, texts])
            if key not in read:
                ids = base.policy.render([{"role": "user", "content": prompt[:1500]}])
                replies = [base.policy.renderer.reply_ids(t, ended=True)[:READ_TOKENS] for t in texts]
                group = base.policy.read(ids, replies, [True] * len(replies))
                read[key] = base.latents.features(mean_of(group.trunks))
            row["latent"] = read[key]
            print(f"\r{name}: read {place + 1} of {len(rows)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latent": np.stack([row["latent"] for row in rows])}, path)
    kept: Array = load_file(path)["latent"]
    return kept


# ---- heads --------------------------------------------------------------------------------------------------------


def shared_head(people: People, prior: Prior) -> RewardHead:
    """One head of all labels; those on one item count as AN_ITEM together, at most as one each."""
    said = [each for labels in people.values() for each in labels]
    votes = Counter(each.item for each in said)
    weights = np.array([min(1.0, AN_ITEM / votes[each.item]) for each in said])
    return fit([each.act for each in said], replace(prior, quiet=0), weights)


def around(head: RewardHead, prior: Prior, scale: float) -> Prior:
    """The prior of somebody who is like all others, more or less: a little in everything, not much in a few things."""
    return replace(prior, mean=head.mean, sd=scale * prior.sd, quiet=0, width_steps=0)


def safe_scale(people: People, head: RewardHead, prior: Prior) -> float:
    """The width of `around` under which the first labels of those who made the shared head foretell their others.

    The narrowest that is no standard error worse than the best (Breiman et al. 1984). The shared head has learned from
    the others too, which favours the narrow ones as well: less good is done, and no harm.
    """
    found: list[list[float]] = []
    for said in people.values():
        acts = [each.act for each in said]
        first, others = acts[:FORETOLD_FROM], acts[FORETOLD_FROM:]
        if len(others) >= SOME:
            priors = [around(head, prior, scale) for scale in SCALES]
            found.append([log_likelihood(fit(first, each), others, each) / len(others) for each in priors])
    if len(found) < 2:
        return SCALES[0]
    told = np.array(found)
    worse = told[:, [told.mean(0).argmax()]] - told
    return SCALES[int(np.argmax(worse.mean(0) <= worse.std(0, ddof=1) / np.sqrt(len(told))))]


def beginning(people: People, prior: Prior) -> Prior:
    """What somebody new begins with on a server where these people share their taste."""
    acts = sorted(([each.act for each in said] for said in people.values() if said), key=len, reverse=True)
    found = common.in_common(acts[:MOST], prior)
    return prior if found is None else found.prior(prior)


def _third(items: set[str], random: np.random.Generator) -> set[str]:
    return set(random.permutation(sorted(items))[: len(items) // 3].tolist())


def _worth(head: RewardHead) -> Callable[[Said], Array]:
    return lambda each: head.score(each.act.features)[0]


def accuracy(said: Sequence[Said], worth: Callable[[Said], Array]) -> float | None:
    """Of pairs of unlike worth to the person, the share that is ordered right; None where there are too few."""
    found: list[float] = []
    up, down = ([float(worth(e)[0]) for e in said if e.act.kind == "thumb" and e.act.thumb == t] for t in (1, -1))
    found += [_order(better - worse) for better in up for worse in down]
    for each in said:
        if each.act.kind == "ranking" and len(each.act.tiers) == 2:
            values = worth(each)
            found.append(_order(float(values[each.act.tiers[0][0]] - values[each.act.tiers[1][0]])))
    return fmean(found) if len(found) >= SOME else None


def _order(gap: float) -> float:
    return 0.5 + 0.5 * float(np.sign(gap))


# ---- a split ------------------------------------------------------------------------------------------------------


def look(people: People, prior: Prior, seed: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, str, float]]:
    """Person, labels, whose head, accuracy: for everybody who is apart in this split."""
    random = np.random.default_rng(seed)
    apart = _third({each.item for said in people.values() for each in said}, random)
    names = random.permutation(sorted(name for name, said in people.items() if len(said) >= SOME)).tolist()
    known, unknown = names[len(names) // 3 :], names[: len(names) // 3]
    shuffled = {name: [people[name][i] for i in random.permutation(len(people[name]))] for name in names}
    learn = {name: [each for each in said if each.item not in apart] for name, said in shuffled.items()}
    crowd = {name: learn[name] for name in known}
    shared = shared_head(crowd, prior)
    close = around(shared, prior, safe_scale(crowd, shared, prior))
    begin = beginning(crowd, prior)
    for place, name in enumerate(unknown):
        held = [each for each in shuffled[name] if each.item in apart]
        other = learn[unknown[place - 1]]
        for size in sizes:
            if len(learn[name]) < size or (longer := accuracy(held, lambda each: each.lengths)) is None:
                continue
            mine, theirs = ([each.act for each in said[:size]] for said in (learn[name], other))
            heads = {
                "shared": shared,
                "scratch": fit(mine, prior),
                "common": fit(mine, begin),
                "personal": fit(mine, close),
                "placebo": fit(theirs, close),
            }
            yield name, size, "longer", longer
            for whose, head in heads.items():
                found = accuracy(held, _worth(head))
                assert found is not None
                yield name, size, whose, found


@dataclass(frozen=True)
class Row:
    """What k labels are worth: means over people, by how much the personal head is better than another, and by how much
    one from scratch is better for beginning with what is common."""

    labels: int
    accuracy: dict[str, Interval]
    over: dict[str, Interval]
    common: Interval


def summarize(found: Sequence[tuple[int, int, str, float]]) -> list[Row]:
    """Splits are averaged within a person, then people."""
    rows = []
    for size in sorted({labels for _, labels, _, _ in found}):
        by_person: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for name, labels, whose, value in found:
            if labels == size:
                by_person[name][whose].append(value)
        means = [{whose: fmean(values) for whose, values in each.items()} for each in by_person.values()]
        rows.append(
            Row(
                size,
                {whose: interval([each[whose] for each in means]) for whose in means[0]},
                {
                    whose: interval([each["personal"] - each[whose] for each in means])
                    for whose in means[0]
                    if whose != "personal"
                },
                interval([each["common"] - each["scratch"] for each in means]),
            )
        )
    return rows


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one split of the smallest source")
    parser.add_argument("--crowd", action="append", choices=CROWDS)
    given = parser.parse_args()
    crowds = given.crowd or (CROWDS[:1] if given.quick else CROWDS)
    population = load_population(16)
    tables: dict[str, list[Row]] = {}
    for name in crowds:
        people = read_crowd(name, population)
        found = [
            each for seed in range(1 if given.quick else SEEDS) for each in look(people, population.prior, seed, LABELS)
        ]
        tables[name] = summarize(found)
        print(f"\n{name}")
        for row in tables[name]:
            shares = "  ".join(f"{whose} {each}" for whose, each in row.accuracy.items())
            print(f"{row.labels:3d} labels, {row.accuracy['shared'].count} people: {shares}")
            print("    personal over " + "  ".join(f"{whose} {_points(each)}" for whose, each in row.over.items()))
            print(f"    common over scratch {_points(row.common)}")
    if not given.crowd:
        write_json(
            RESULTS / ("real_people-quick.json" if given.quick else "real_people.json"),
            {
                "commit": commit(),
                "machine": machine(),
                "population": population.version,
                "tables": {name: [asdict(row) for row in rows] for name, rows in tables.items()},
            },
        )


def _points(each: Interval) -> str:
    if each.low is None or each.high is None:
        return f"{100 * each.mean:+.1f}"
    return f"{100 * each.mean:+.1f} [{100 * each.low:+.1f}, {100 * each.high:+.1f}]"


if __name__ == "__main__":
    main()
