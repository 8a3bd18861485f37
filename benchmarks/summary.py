"""From finished units of work to the figures of a report: means over people, targets, samples to read.

Pure: it reads what `personalize` measured and decides nothing but whether a target was reached. People are averaged
with equal weight; a person with several seeds counts once, with the mean of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.judging import below_even, interval
from benchmarks.work import Work, commit, machine

if TYPE_CHECKING:
    from benchmarks.personalize import Settings

RERANK_FEW = 0.78  # wins to reach
ADAPTER, BOTH = {30: 0.75, 100: 0.85}, {30: 0.88, 100: 0.93}  # by labels
KL_MOST, MINUTES_MOST, CLICK_MOST, MEMORY_MOST = 0.1, 6.0, 100.0, 3.0  # nats a token, minutes, milliseconds, GB
RIVALS = {"asked": "prompt by hand", "pasted": "liked replies pasted"}
WARM = "stage one"  # before PPO; no arm of its own, but each stage has to show what it adds
WHOLE = "whole drafts re-ranked"  # as a control: no beginnings that take the place of others
SAMPLES = 2  # before/after pairs a person


@dataclass(frozen=True)
class Measured:
    """One arm of one person: win rates by prompt (mean over seeds) and KL."""

    wins: list[float]
    kl: float


def over_seeds(units: Sequence[Mapping[str, Any]], key: str = "wins") -> Measured:
    """The seeds of one person as one: prompt by prompt means."""
    wins = [fmean(values) for values in zip(*(unit[key] for unit in units), strict=True)]
    return Measured(wins, fmean(unit["kl"] for unit in units) if key == "wins" else 0.0)


def arm_row(arm: str, labels: int, people: Mapping[str, Measured], **extra: Any) -> dict[str, Any]:
    """One arm over its people."""
    found = interval([fmean(each.wins) for each in people.values()])
    return {
        "key": f"{arm}@{labels}",
        "arm": arm,
        "labels": labels,
        "people": found.count,
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "kl": fmean(each.kl for each in people.values()),
        "below": [name for name, each in people.items() if below_even(each.wins)],
        **extra,
    }


def target(words: str, value: float | None, bound: float, form: str, *, least: bool) -> dict[str, Any]:
    """A figure against its bound. form: how it is written; a value of None was not measured."""
    passed = None if value is None else value >= bound if least else value <= bound
    return {"words": words, "value": "–" if value is None else form.format(value), "bound": bound, "passed": passed}


def summarize(
    settings: Settings,
    run: Mapping[str, Any],
    prompts: Sequence[tuple[str, str]],
    work: Work,
    footprint: Mapping[str, Any] | None = None,
    *,
    quick: bool,
) -> dict[str, Any]:
    """All figures of a run, ready to be written and shown."""
    found, s = run["found"], settings
    few = {name: over_seeds(units) for name, units in found["few"].items()}
    control = {name: over_seeds(units, "control") for name, units in found["few"].items()}
    contexts = {name: over_seeds([each["context"]]) for name, each in found["many"].items()}
    rivals = {rival: {name: over_seeds([each[rival]]) for name, each in found["rivals"].items()} for rival in RIVALS}
    wholes, whole = (
        {name: over_seeds([unit["whole"] for unit in units]) for name, units in some.items()}
        for some in (found["few"], {name: [each["rerank"]] for name, each in found["many"].items()})
    )
    reranks = {name: over_seeds([each["rerank"]]) for name, each in found["many"].items()}
    adapters = {name: over_seeds([each["adapted"]]) for name, each in found["trained"].items()}
    firsts = {name: over_seeds([each["adapted"]["first"]]) for name, each in found["trained"].items()}
    both = {name: over_seeds([each["adapted"]["reranked"]]) for name, each in found["trained"].items()}
    updates = {name: each["update"] for name, each in found["trained"].items()}
    answering = {"minutes": 0.0, "memory_gb": found["answering"]["memory_gb"]}
    trained = {
        "minutes": fmean(update["minutes"] for update in updates.values()),
        "memory_gb": max(update["memory_gb"] for update in updates.values()),
    }
    arms = [
        arm_row("base", 0, control, **answering),
        arm_row("rerank", s.few, few, target=RERANK_FEW, **answering),
        arm_row(WHOLE, s.few, wholes),
        arm_row(RIVALS["asked"], 0, rivals["asked"], **answering),
        arm_row(RIVALS["pasted"], s.many, rivals["pasted"], **answering),
        arm_row("context", s.many, contexts, **answering),
        arm_row("rerank", s.many, reranks, **answering),
        arm_row(WHOLE, s.many, whole),
        arm_row(WARM, s.many, firsts, memory_gb=trained["memory_gb"]),
        arm_row("adapter", s.many, adapters, target=_aim(ADAPTER, s.many), **trained),
        arm_row("adapter+rerank", s.many, both, target=_aim(BOTH, s.many), **trained),
    ]
    groups = (control, few, wholes, *rivals.values(), contexts, reranks, whole, firsts, adapters, both)
    measured = dict(zip([row["key"] for row in arms], groups, strict=True))
    people = [_person(name, s, measured, found["trained"].get(name)) for name in found["few"]]
    return {
        "title": "How well Mynah learns a person" + (" (quick form)" if quick else ""),
        "about": _about(s, work, quick),
        "quick": quick,
        "commit": commit(),
        "code": work.code,
        "machine": machine(),
        "settings": asdict(settings),
        "arms": arms,
        "people": people,
        "rivals": _over_rivals(found, s),
        "targets": targets(arms, people, updates, footprint, s.many),
        "samples": _samples(run, prompts),
        "notes": _notes(run, updates, work, quick),
    }


def targets(
    arms: Sequence[Mapping[str, Any]],
    people: Sequence[Mapping[str, Any]],
    updates: Mapping[str, Mapping[str, Any]],
    footprint: Mapping[str, Any] | None,
    labels: int,
) -> list[dict[str, Any]]:
    """What was to be shown, reached or not. labels: before the update."""
    adapter, both = _aim(ADAPTER, labels), _aim(BOTH, labels)
    mean = {row["arm"]: row["mean"] for row in arms}  # the last row of an arm: `rerank` is asked for by its first
    first = next(row["mean"] for row in arms if row["arm"] == "rerank")
    worst_kl = max(person["kl"] for person in people if person["kl"] is not None)
    slowest = max(update["minutes"] for update in updates.values())
    below = sum(person["served"] in person["below"] for person in people)
    seen: Mapping[str, Any] = footprint or {}
    click, memory = seen.get("click_ms"), seen.get("memory_gb")
    rows: list[tuple[str, float | None, float, str, bool]] = [
        (f"rerank wins after 10 labels, at least {RERANK_FEW:.0%}", first, RERANK_FEW, "{:.1%}", True),
        (f"adapter wins after {labels} labels, at least {adapter:.0%}", mean["adapter"], adapter, "{:.1%}", True),
        (f"adapter+rerank wins, at least {both:.0%}", mean["adapter+rerank"], both, "{:.1%}", True),
        ("largest KL of an adapter, nats a token, at most 0.1", worst_kl, KL_MOST, "{:.3f}", False),
        ("longest update, minutes, at most 6", slowest, MINUTES_MOST, "{:.1f}", False),
        ("people whose served arm is significantly below base", float(below), 0.0, "{:.0f}", False),
        ("a click is in the head, median ms up to 1,000 labels, at most 100", click, CLICK_MOST, "{:.0f}", False),
        ("peak memory of server and training, GB, at most 3", memory, MEMORY_MOST, "{:.2f}", False),
    ]  # fmt: skip
    return [target(words, value, bound, form, least=least) for words, value, bound, form, least in rows]


def _aim(aims: Mapping[int, float], labels: int) -> float:
    """What is asked for after so many labels: as after the nearest number that an aim is for."""
    return aims[min(aims, key=lambda each: abs(each - labels))]


def _person(
    name: str, s: Settings, measured: Mapping[str, Mapping[str, Measured]], trained: Mapping[str, Any] | None
) -> dict[str, Any]:
    mine = {key: arm[name] for key, arm in measured.items() if name in arm}
    served = f"{trained['served']}@{s.many}" if trained else f"rerank@{s.few}"
    update = trained["update"] if trained else None
    return {
        "name": name,
        "wins": {key: fmean(each.wins) for key, each in mine.items()},
        "below": [key for key, each in mine.items() if below_even(each.wins)],
        "served": served,
        "kl": mine[f"adapter@{s.many}"].kl if trained else None,
        "update": update,
    }


def _over_rivals(found: Mapping[str, Any], s: Settings) -> list[dict[str, Any]]:
    """Wins of every arm of Mynah's over what people do without it: an interval a rival."""
    arms: dict[str, list[list[Mapping[str, Any]]]] = {
        f"rerank@{s.few}": list(found["few"].values()),
        f"rerank@{s.many}": [[each["rerank"]] for each in found["many"].values()],
        f"adapter@{s.many}": [[each["adapted"]] for each in found["trained"].values()],
        f"adapter+rerank@{s.many}": [[each["adapted"]["reranked"]] for each in found["trained"].values()],
    }
    return [
        {"arm": arm}
        | {
            rival: asdict(interval([fmean(fmean(unit["over"][rival]) for unit in units) for units in people]))
            for rival in RIVALS
        }
        for arm, people in arms.items()
    ]


def _samples(run: Mapping[str, Any], prompts: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The first prompts of everybody who was updated: a base reply, and what the person is served now."""
    out = []
    for name, each in run["found"]["trained"].items():
        unit = {
            "rerank": run["found"]["many"][name]["rerank"],
            "adapter": each["adapted"],
            "adapter+rerank": each["adapted"]["reranked"],
        }[each["served"]]
        for at, (_, prompt) in enumerate(prompts[:SAMPLES]):
            out.append({
                "person": name,
                "arm": each["served"],
                "prompt": prompt,
                "before": run["opponents"][at],
                "after": unit["texts"][at],
                "verdict": f"wins {unit['wins'][at]:.0%} on this prompt",
            })  # fmt: skip
    return out


def _about(s: Settings, work: Work, quick: bool) -> str:
    seen = machine()
    return (
        f"{len(s.people)} simulated people, {len(s.trained)} of them updated; {s.prompts} unseen prompts with "
        f"{s.opponents} base replies each, {s.max_tokens} new tokens at temperature {s.temperature:g}; "
        f"{s.seeds} seed(s) without training, one with. Commit {commit()}, code {work.code}; "
        f"{seen['cores']} cores ({seen['processor']}), {seen['memory_gb']:g} GB."
        + (" The quick form: a smaller pool and fewer batches; not the published figures." if quick else "")
    )


def _notes(run: Mapping[str, Any], updates: Mapping[str, Mapping[str, Any]], work: Work, quick: bool) -> list[str]:
    rejected = [name for name, update in updates.items() if update["state"] != "promoted"]
    seconds = run["found"]["answering"]["seconds"]
    notes = [
        "A label is one act: a ranking of four, a pair or a thumb, in turn; about one click in ten is wrong.",
        f"The gate rejected {', '.join(rejected)}; their adapters are measured here but not served."
        if rejected
        else "The gate passed every update.",
        f"The shared pool, made once a base, was ready after {run['pool_minutes']:.1f} minutes of this run.",
        f"A base reply took {seconds['base']:.1f} s, a re-ranked one {seconds['rerank']:.1f} s.",
        "KL of re-ranking is a bound, log 4 + log n a reply, of whole drafts log n - (n - 1)/n, by the mean length.",
    ]
    adapted = [each["adapted"] for each in run["found"]["trained"].values()]
    notes.append(
        f"Of the adapters' replies {fmean(each['broken'] for each in adapted):.1%} are broken; "
        f"{fmean(each['coined'] for each in adapted):.1%} of their words seem made up."
    )
    resumed = [name for name, update in updates.items() if update["runs"] > 1]
    if resumed:
        notes.append(f"Interrupted and resumed, so that their minutes hold several starts: {', '.join(resumed)}.")
    if work.mixed:
        notes.append(f"Not all from the same code: {', '.join(work.mixed)} were finished before it changed.")
    return notes
