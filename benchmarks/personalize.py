"""How well Mynah learns a person: every arm against the base, for simulated people whose taste it never sees.

    python -m benchmarks.personalize            # about an hour on two idle cores; stopped, it goes on where it was
    python -m benchmarks.personalize --labels 100    # the update from as many labels
    python -m benchmarks.personalize --quick    # two people, few prompts, a small pool: some minutes, rough figures

Each person clicks through shipped prompts, is updated by the product's own worker, and is then measured on prompts
that nobody learned from. What is common to all people (base drafts, the shared pool) is made once. Figures go to
benchmarks/results/personalize.json and .html. What the words mean: `judging` says what a win is, `clicks` what a label
is, `people` what a taste is. Each update begins from nothing, with all labels: so what four of them leave that came on
the way to 100 labels is what the fourth makes.

Beside the base stand the two things that people do without any of this: a system prompt that states the taste, written
by hand, and the last replies that they liked, pasted into the prompt. Every arm meets the replies of both, too.

Left out on purpose: anything tuned here. The settings of head, update and gate are the product's defaults; only
`--quick` shrinks them, and says so in its report.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from adapters.base_model import DEFAULT_BASE, BaseFiles, prepare_base
from adapters.decoding import Sampling
from adapters.files import read_json, write_json
from adapters.job import UpdateConfig
from adapters.rendering import DEFAULT_SYSTEM
from adapters.safety import SafetyTerm
from adapters.wellformed import coined_share
from assistant.arms import Record, context_system, served_arm
from assistant.config import default_models_dir
from assistant.profile import profile_of
from assistant.turn import Judge
from benchmarks.base_replies import Base, Drafts, Draw, base_replies, texts_of
from benchmarks.clicks import best_row, click_through, head_of, heads_of, liked_texts, shown_and_clicked
from benchmarks.judging import Judged, best_of_n_kl, reranking_kl, wins_by_prompt
from benchmarks.measure import Prompt, Reranked, Written, judge, rerank, some, write
from benchmarks.people import ASKED, REPORT, UPDATE_PEOPLE, Person, make_person
from benchmarks.report import text_report, write_report
from benchmarks.summary import summarize
from benchmarks.updating import prepare_pool, run_update
from benchmarks.work import RESULTS, PeakMemory, Unit, Work
from feedback.labels import act_of
from feedback.population import Population, load_population
from feedback.reward_head import RewardHead
from feedback.types import Preference


@dataclass(frozen=True)
class Settings:
    """One run.

    people: everybody; trained: those who get an update. few, many: labels before re-ranking and before the update.
    seeds: of what needs no training (an update has the first). prompts, stride: every so-many-th prompt of the report
    split. drafts: to choose from; first_drafts: of an adapter after its first stage; opponents: base draws a prompt.
    label_prompts, label_drafts: what people are shown when they click, one draft more than there are to choose from:
    the base reply beside them. rival_drafts: replies of a rival a prompt; pasted: liked replies in its prompt, at most.
    """

    people: tuple[str, ...] = tuple(REPORT)
    trained: tuple[str, ...] = UPDATE_PEOPLE
    few: int = 10
    many: int = 30
    seeds: int = 3
    prompts: int = 24
    stride: int = 5
    drafts: int = 16
    first_drafts: int = 4
    opponents: int = 8
    label_prompts: int = 40
    label_drafts: int = 17
    max_tokens: int = 64
    temperature: float = 0.8
    rival_drafts: int = 2
    pasted: int = 10


def quick_settings() -> tuple[Settings, UpdateConfig]:
    """A rough form: two people, one seed, few prompts, and an update on a part of the pool with fewer batches."""
    people = ("caution", "brief_and_plain")
    full = UpdateConfig()
    small = replace(full, pool=replace(full.pool, prompts=48), ppo=replace(full.ppo, batches=1))
    sizes = {"seeds": 1, "prompts": 8, "stride": 15, "label_prompts": 30, "label_drafts": 7}
    return Settings(people=people, trained=people, **sizes), small


class Bench:
    """The run: what all people share, and the units of work of each."""

    name, tastes = "personalize", REPORT

    def __init__(self, settings: Settings, config: UpdateConfig) -> None:
        self.settings, self.config = settings, config
        self.files: BaseFiles = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
        self.base = Base()
        self.floor = self.base.latents.subject_floor
        self.safety = SafetyTerm.load("term")
        self.population: Population = load_population(len(self.base.latents.directions))
        key = [asdict(settings), config.as_dict(), self.files.base_id, self.population.version]
        self.work = Work(self.name, key)

    # ---- what is common -------------------------------------------------------------------------------------------

    @cached_property
    def label_drafts(self) -> list[Drafts]:
        """Base drafts to the prompts that people chat about."""
        return base_replies(Draw("pool", 0, self.settings.label_prompts, self.settings.label_drafts), self.base)

    @cached_property
    def report_drafts(self) -> list[Drafts]:
        """Base drafts to the prompts that measure: those to choose from, then the opponents."""
        s = self.settings
        copies = s.drafts + s.opponents
        return base_replies(
            Draw("report", 0, s.prompts * s.stride, copies, s.max_tokens, s.temperature, s.stride), self.base
        )

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts that measure."""
        return [(each.prompt_id, each.prompt) for each in self.report_drafts]

    def own(self) -> list[Drafts]:
        """The base's drafts without the opponents."""
        return [some(each, 0, self.settings.drafts) for each in self.report_drafts]

    def opponents(self, person: Person) -> list[list[Judged]]:
        """The base replies to beat, as the person sees them."""
        s = self.settings
        return self.judged([some(each, s.drafts, s.drafts + s.opponents) for each in self.report_drafts], person)

    def judged(self, drafts: Sequence[Drafts], person: Person) -> list[list[Judged]]:
        """Replies as the person sees them, prompt by prompt."""
        return judge(drafts, person, self.floor)

    def judge_of(self, head: RewardHead) -> Judge:
        """What drafts are chosen by, with this head."""
        return Judge(head, self.population, self.safety, self.floor, self.base.policy.renderer.pieces)

    def picks(self, drafts: list[Drafts], head: RewardHead) -> list[Drafts]:
        """The best of whole drafts, for each prompt."""
        judge = self.judge_of(head)
        rows = [best_row(each, judge) for each in drafts]
        return [some(each, row, row + 1) for each, row in zip(drafts, rows, strict=True)]

    # ---- one person -----------------------------------------------------------------------------------------------

    def person(self, name: str, seed: int) -> Person:
        """The simulated person, their clicks drawn from the seed."""
        return make_person(name, self.tastes[name], texts_of(self.label_drafts), seed)

    def clicks(self, name: str, seed: int, count: int) -> tuple[list[Drafts], list[Preference]]:
        """The prompts a person chatted about, and the labels they gave."""
        prompts = self.asked_about(seed, count)
        return prompts, click_through(self.person(name, seed), prompts, count, self.population, self.judge_of)

    def asked_about(self, seed: int, count: int) -> list[Drafts]:
        """The prompts that a person chats about."""
        order = np.random.default_rng([seed, 17]).permutation(len(self.label_drafts))[:count]
        return [self.label_drafts[i] for i in order]

    def rerank(self, name: str, seed: int, count: int) -> Unit:
        """Re-ranking after `count` labels, and as controls the best of as many whole drafts, and all of these."""
        person, (_, labels) = self.person(name, seed), self.clicks(name, seed, count)
        head, own = head_of(labels, self.population), self.own()
        picks = self.reranked(head, 11 + seed)
        opponents = self.opponents(person)
        return {
            "wins": wins_by_prompt(self.judged(picks.drafts, person), opponents),
            "over": self.over_rivals(self.judged(picks.drafts, person), person),
            "whole": {
                "wins": wins_by_prompt(self.judged(self.picks(own, head), person), opponents),
                "kl": best_of_n_kl(self.settings.drafts) / self.tokens(own),
            },
            "control": wins_by_prompt(self.judged(own, person), opponents),
            "texts": [each.texts[0] for each in picks.drafts],
            "coined": self.coined(picks.drafts),
            "kl": reranking_kl(self.settings.drafts) / picks.tokens,
        }

    def reranked(self, head: RewardHead, seed: int, adapter: Path | None = None) -> Reranked:
        """What re-ranking shows to the prompts that measure, of the base's drafts or of an adapter's."""
        policy, name, copies = self.base.policy, "measured" if adapter else None, self.settings.drafts
        if name and adapter:
            policy.load_adapter(name, adapter)
        try:
            judge, sampling = self.judge_of(head), self.sampling(seed)
            return rerank(policy, self.base.latents, self.prompts, judge, copies, sampling, adapter=name)
        finally:
            if name:
                policy.drop_adapter(name)

    def tokens(self, drafts: list[Drafts]) -> float:
        """Mean length of a reply in tokens."""
        count = self.base.policy.renderer.reply_ids
        return fmean(len(count(t, ended=e)) for each in drafts for t, e in zip(each.texts, each.ended, strict=True))

    def coined(self, drafts: Sequence[Drafts]) -> float:
        """Mean share of a reply's words that do not exist (adapters/wellformed.py)."""
        pieces = self.base.policy.renderer.pieces
        return fmean(coined_share(text, pieces) for each in drafts for text in each.texts)

    def context(self, name: str) -> Unit:
        """The base told in words what is known of the person."""
        person, (_, labels) = self.person(name, 0), self.clicks(name, 0, self.settings.many)
        acts = [act_of(each, self.population, same_base=True) for each in labels]
        profile = profile_of(head_of(labels, self.population), acts, {}, self.population.together)
        renderer = self.base.policy.renderer
        system = context_system(DEFAULT_SYSTEM, profile, lambda text: len(renderer.reply_ids(text, ended=False)))
        return self.told(system, person)

    def asked(self, name: str) -> Unit:
        """The base told the taste itself, in words that somebody wrote by hand."""
        return self.told(f"{DEFAULT_SYSTEM} {ASKED[name]}", self.person(name, 0))

    def pasted(self, name: str) -> Unit:
        """The base shown the last replies that the person liked."""
        many, person = self.settings.many, self.person(name, 0)
        acts = shown_and_clicked(person, self.asked_about(0, many), many, self.population, self.judge_of)
        liked = liked_texts(acts)[-self.settings.pasted :]
        shown = "\n\n".join(["Write like these replies, which the user liked:", *liked])
        return self.told(f"{DEFAULT_SYSTEM} {shown}", person)

    def told(self, system: str, person: Person) -> Unit:
        """The base with a system prompt."""
        told = system if system != DEFAULT_SYSTEM else None
        copies = self.settings.rival_drafts
        written = write(self.base.policy, self.base.latents, self.prompts, copies, self.sampling(5), system=told)
        judged = self.judged(written.drafts, person)
        return {
            "wins": wins_by_prompt(judged, self.opponents(person)),
            "kl": written.kl,
            "system": system,
            "texts": [each.texts[0] for each in written.drafts],
            "replies": plain(judged),
        }

    def rivals(self, name: str) -> dict[str, Unit]:
        """What people do without Mynah."""
        return {
            "asked": self._unit(f"asked-{name}", lambda: self.asked(name)),
            "pasted": self._unit(f"pasted-{name}", lambda: self.pasted(name)),
        }

    def over_rivals(self, judged: Sequence[Sequence[Judged]], person: Person) -> dict[str, list[float]]:
        """Win rates by prompt over the replies of every rival."""
        rivals = self.rivals(person.name).items()
        return {rival: wins_by_prompt(judged, self.seen(unit["replies"], person)) for rival, unit in rivals}

    def seen(self, replies: Sequence[Sequence[tuple[str, bool]]], person: Person) -> list[list[Judged]]:
        """What `plain` gave, as the person sees it."""
        return [
            [Judged(text, person.utility(self.text(text, prompt)), broken) for text, broken in mine]
            for mine, (_, prompt) in zip(replies, self.prompts, strict=True)
        ]

    def text(self, text: str, prompt: str) -> str:
        """What a taste is given of a reply."""
        return text

    def update(self, name: str) -> Unit:
        """One update from `many` labels, by the product's worker."""
        prompts, labels = self.clicks(name, 0, self.settings.many)
        asked: list[Any] = [[{"role": "user", "content": each.prompt}] for each in reversed(prompts)]
        heads = heads_of(labels, self.population)
        return run_update(self.job(name), self.files, self.population.version, asked, heads, self.config, seed=0)

    def job(self, name: str) -> Path:
        """The folder of a person's update."""
        return self.work.folder / "jobs" / name

    def adapted(self, name: str) -> Unit:
        """The trained adapter alone (every draft against every opponent), re-ranked, and as it was after stage one."""
        person, (_, labels) = self.person(name, 0), self.clicks(name, 0, self.settings.many)
        opponents = self.opponents(person)
        written = self.written_by(self.job(name) / "result", self.settings.drafts)
        first = self.written_by(self.job(name) / "checkpoint" / "warm_start", self.settings.first_drafts)
        picks = self.reranked(head_of(labels, self.population), 13, self.job(name) / "result")
        judged = self.judged(written.drafts, person)
        return {
            "wins": wins_by_prompt(judged, opponents),
            "over": self.over_rivals(judged, person),
            "kl": written.kl,
            "broken": fmean(reply.broken for replies in judged for reply in replies),
            "coined": self.coined(written.drafts),
            "texts": [each.texts[0] for each in written.drafts],
            "reranked": {
                "wins": wins_by_prompt(self.judged(picks.drafts, person), opponents),
                "over": self.over_rivals(self.judged(picks.drafts, person), person),
                "kl": written.kl + reranking_kl(self.settings.drafts) / picks.tokens,
                "texts": [each.texts[0] for each in picks.drafts],
                "coined": self.coined(picks.drafts),
            },
            "first": {"wins": wins_by_prompt(self.judged(first.drafts, person), opponents), "kl": first.kl},
        }

    def written_by(self, folder: Path, copies: int) -> Written:
        """What an adapter on disk answers to the prompts that measure."""
        policy, name = self.base.policy, "measured"
        policy.load_adapter(name, folder)
        try:
            return write(policy, self.base.latents, self.prompts, copies, self.sampling(7), adapter=name)
        finally:
            policy.drop_adapter(name)

    def sampling(self, seed: int) -> Sampling:
        """How replies are drawn when an arm is measured."""
        return Sampling(self.settings.temperature, 1.0, self.settings.max_tokens, seed)

    def answering(self) -> Unit:
        """Memory and seconds of one reply and of one re-ranked reply, in this process."""
        seconds, prompts = {}, self.prompts[:3]
        with PeakMemory(os.getpid()) as memory:
            for arm, copies in (("base", 1), ("rerank", self.settings.drafts)):
                draw = Draw("report", 0, 0, copies, self.settings.max_tokens, self.settings.temperature)
                started = time.monotonic()
                for prompt in prompts:
                    self.base.write(*prompt, draw, seed=9)
                seconds[arm] = (time.monotonic() - started) / len(prompts)
        return {"memory_gb": memory.peak / 2**30, "seconds": seconds}

    # ---- all of it ------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Every unit that is missing, cheap ones first; then the summary."""
        s, unit = self.settings, self._unit
        found: dict[str, Any] = {"answering": unit("answering", self.answering)}
        found |= {part: {} for part in ("rivals", "few", "many", "trained")}
        for name in s.people:
            found["rivals"][name] = self.rivals(name)
            found["few"][name] = [
                unit(f"rerank-{s.few}-{name}-{seed}", lambda n=name, k=seed: self.rerank(n, k, s.few))
                for seed in range(s.seeds)
            ]
        for name in s.trained:
            many = unit(f"rerank-{s.many}-{name}", lambda n=name: self.rerank(n, 0, s.many))
            context = unit(f"context-{name}", lambda n=name: self.context(n))
            found["many"][name] = {"rerank": many, "context": context}
        pool = unit(
            "pool", lambda: {"minutes": prepare_pool(self.work.folder / "jobs" / "pool", self.files, self.config)}
        )
        for name in s.trained:
            update = unit(f"update-{name}", lambda n=name: self.update(n))
            adapted = unit(f"adapter-{name}", lambda n=name: self.adapted(n))
            served = served_arm(s.many, update["state"] == "promoted", Record())
            found["trained"][name] = {"update": update, "adapted": adapted, "served": served}
        return {"found": found, "pool_minutes": pool["minutes"], "opponents": self._first_opponents()}

    def _unit(self, name: str, make: Any) -> Unit:
        if not self.work.has(name):
            print(f"{time.strftime('%H:%M:%S')}  {name}", flush=True)
        return self.work.unit(name, make)

    def _first_opponents(self) -> list[str]:
        return [each.texts[self.settings.drafts] for each in self.report_drafts]


def plain(judged: Sequence[Sequence[Judged]]) -> list[list[tuple[str, bool]]]:
    """Texts, and whether they are broken, whoever reads them."""
    return [[(str(each.text), each.broken) for each in replies] for replies in judged]


def read_footprint() -> dict[str, Any] | None:
    """What `benchmarks.footprint` found, if it was run."""
    path = RESULTS / "footprint.json"
    return read_json(path) if path.exists() else None


def main() -> None:
    """Measure, write the figures, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a rough form of some minutes")
    parser.add_argument(
        "--fresh", action="store_true", help="throw away what an earlier run with these settings finished"
    )
    parser.add_argument("--labels", type=int, default=Settings.many, metavar="N", help="labels before an update")
    arguments = parser.parse_args()
    settings, config = quick_settings() if arguments.quick else (Settings(), UpdateConfig())
    many = arguments.labels
    settings = replace(settings, many=many, label_prompts=max(settings.label_prompts, many))
    bench = Bench(settings, config)
    if arguments.fresh:
        shutil.rmtree(bench.work.folder, ignore_errors=True)
    run = bench.run()
    results = summarize(settings, run, bench.prompts, bench.work, read_footprint(), quick=arguments.quick)
    name = "personalize" if many == Settings.many else f"personalize-{many}"
    path = RESULTS / (f"work/{name}-quick.json" if arguments.quick else f"{name}.json")
    write_json(path, results)
    print(text_report(results))
    print(f"\nThe page is {write_report(results, path)}")


if __name__ == "__main__":
    main()
