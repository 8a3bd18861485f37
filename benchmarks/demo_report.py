"""What the demo tells afterwards: who won, whether the export holds, and the page's form of it all.

Works on what was collected over HTTP, when the server is gone: texts are judged by the hidden taste and the shared
rules, an exported adapter is loaded with plain PEFT. A step that was not reached stays in the report as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from adapters.base_model import BaseFiles
from adapters.latents import latents_for
from adapters.policy import Policy
from adapters.prompts import shipped_prompts
from benchmarks.exported import Contrast, direction, unpack
from benchmarks.judging import Judged, interval, wins_by_prompt
from benchmarks.measure import drafts_of, judge
from benchmarks.people import Person
from benchmarks.server import Answer, Choice
from benchmarks.work import commit, machine

READ = 3  # before/after pairs a person


@dataclass(frozen=True)
class Plan:
    """How much is done. update: numbers of an update that differ from the defaults."""

    people: tuple[str, ...] = ("friendly_coach", "brief_and_plain")
    labels: int = 21
    prompts: int = 10
    update: dict[str, Any] = field(default_factory=dict)


@dataclass
class Story:
    """What happened to one person. checks: (what was tried, whether it came true, in words); before: the base's answers
    to the unseen prompts, after: those of each arm."""

    name: str
    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    before: list[Answer] = field(default_factory=list)
    after: dict[str, list[Answer]] = field(default_factory=dict)
    served: str = "base"
    update: dict[str, Any] | None = None
    archive: bytes = b""

    @property
    def promoted(self) -> bool:
        """Whether there is a version to chat with."""
        return self.update is not None and self.update["state"] == "promoted"

    @property
    def version(self) -> str | None:
        """Its name."""
        return self.update["version"] if self.update else None

    def tell(self, what: str, passed: bool, words: str) -> None:
        """Note a step and print it."""
        self.checks.append((what, passed, words))
        print(f"  {'✓' if passed else '✗'} {what}: {words}", flush=True)


def unseen(plan: Plan) -> list[str]:
    """Prompts that nobody learns from, spread over the report split."""
    prompts = shipped_prompts("report")
    return [text for _, text in prompts[:: len(prompts) // plan.prompts]][: plan.prompts]


class Judge:
    """Judges texts by the hidden taste and the shared rules; the subject is read off the base."""

    def __init__(self, files: BaseFiles) -> None:
        self.policy = Policy.load(files)
        self.latents = latents_for(files, self.policy)

    def judged(self, person: Person, prompt: str, choices: Sequence[Choice]) -> list[Judged]:
        """Replies to one prompt."""
        asked = self.policy.render([{"role": "user", "content": prompt}])
        # An empty reply is read as its end alone: there is nothing else to read.
        ids = [self.policy.renderer.reply_ids(each.text, ended=each.ended or not each.text) for each in choices]
        group = self.policy.read(asked, ids, [each.ended for each in choices])
        read = drafts_of(self.policy, self.latents, ("", prompt), group)
        return judge([read], person, self.latents.subject_floor)[0]


def wins_of(judge: Judge, person: Person, story: Story, plan: Plan) -> dict[str, list[float]]:
    """Win rate against the base by prompt, for every arm that answered."""
    prompts = unseen(plan)

    def judged(answers: Sequence[Answer]) -> list[list[Judged]]:
        return [judge.judged(person, text, each.choices) for text, each in zip(prompts, answers, strict=True)]

    base = judged(story.before) if story.after else []
    return {arm: wins_by_prompt(judged(answers), base) for arm, answers in story.after.items()}


def check_export(files: BaseFiles, person: Person, story: Story, folder: Path, plan: Plan) -> None:
    """Load the exported adapter with plain PEFT and compare directions on the base replies to unseen prompts."""
    what = "the export loads with plain PEFT and prefers the same"
    if not story.archive:
        story.tell(what, False, "not reached: there was nothing to export")
        return
    target = folder / f"export-{story.name}"
    faults = unpack(story.archive, target)
    contrasts = []
    for prompt, answer in zip(unseen(plan), story.before, strict=True):
        worse, better = sorted((choice.text for choice in answer.choices), key=person.utility)
        if person.utility(better) > person.utility(worse):
            contrasts.append(Contrast(prompt, better, worse))
    found = direction(files, target, contrasts)
    moved = f"margins of {found.contrasts} pairs moved by {found.moved:+.2f} nats, {found.right:.0%} the right way"
    story.tell(what, found.kept and not faults, "; ".join([moved, *faults]))


def report(
    plan: Plan, stories: Sequence[Story], wins: Mapping[str, Mapping[str, list[float]]], seconds: float, gb: float
) -> dict[str, Any]:
    """Everything in the form that the page takes."""
    seen = machine()
    return {
        "title": "Mynah from the first click to a new version and back",
        "about": f"A real server; simulated people: {len(stories)}, labels each: {plan.labels}, unseen prompts: "
        f"{plan.prompts}; {seconds / 60:.0f} minutes on {seen['cores']} cores; commit {commit()}.",
        "machine": seen,
        "arms": _arms(plan, stories, wins),
        "people": [
            {
                "name": story.name,
                "wins": {arm: fmean(rates) for arm, rates in wins[story.name].items()},
                "below": [],
                "served": story.served,
                "update": story.update,
            }
            for story in stories
        ],
        "steps": [
            {"person": story.name, "step": what, "passed": passed, "words": words}
            for story in stories
            for what, passed, words in story.checks
        ],
        "samples": [sample for story in stories for sample in _samples(story, wins[story.name], plan)],
        "notes": [
            f"Peak memory of the server and all it started: {gb:.2f} GB.",
            "So few prompts and people leave wide intervals; benchmarks.personalize makes the published figures.",
        ],
    }


def _arms(plan: Plan, stories: Sequence[Story], wins: Mapping[str, Mapping[str, list[float]]]) -> list[dict[str, Any]]:
    rows = []
    minutes = [story.update["minutes"] for story in stories if story.update]
    for arm in dict.fromkeys(arm for found in wins.values() for arm in found):
        over = interval([fmean(found[arm]) for found in wins.values() if arm in found])
        row = {"key": arm, "arm": arm, "labels": plan.labels, "people": over.count}
        row |= {"mean": over.mean, "low": over.low, "high": over.high}
        rows.append(row | {"minutes": fmean(minutes) if arm.startswith("adapter") else 0.0})
    return rows


def _samples(story: Story, wins: Mapping[str, list[float]], plan: Plan) -> list[dict[str, Any]]:
    """The first prompts: a base reply, and that of the most personal arm that answered."""
    if not story.after:
        return []
    arm = list(story.after)[-1]
    return [
        {
            "person": story.name,
            "arm": arm,
            "prompt": prompt,
            "before": story.before[at].choices[0].text,
            "after": story.after[arm][at].choices[0].text,
            "verdict": f"wins {wins[arm][at]:.0%} on this prompt",
        }
        for at, prompt in enumerate(unseen(plan)[:READ])
    ]
