"""The four stages of one update: pool, warm start, PPO, gate.

    pool         base replies to shipped prompts (made once a base) and to the person's own
    warm_start   the adapter is fitted to them: a few long steps, as far as the KL budget goes
    ppo          fresh replies; the result is kept if it wins more often than what it started from
    gate         its verdict, and the candidate as a version folder

Each stage leaves a mark in the job's checkpoint folder and is skipped when its mark is there; within PPO every batch is
kept. After each training stage the win rate on the gate's prompts is measured, by the head that was learned from and by
the judge. Left out on purpose: processes and signals (adapters/worker.py).
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters.decoding import Sampling
from adapters.files import alone, sweep, whole_folder, write_json
from adapters.gate import Comparison, Sample, draw_sample, has_finite_weights, run_gate
from adapters.gate_set import GateFiles
from adapters.job import JobSpec, PoolJob
from adapters.latents import latents_for
from adapters.policy import Policy
from adapters.pool import Pool, PoolEntry, load_groups, reply_logprobs, save_groups
from adapters.ppo import PPOStats, Scorer, ppo_update
from adapters.progress import JobRun, Stage
from adapters.rendering import Renderer
from adapters.reward import RewardModel, cut, scorer
from adapters.rollout import roll_out
from adapters.safety import Part, SafetyTerm
from adapters.value_head import ValueHead
from adapters.versions import fill, verify
from adapters.warm_start import Rated, scale_b, warm_start
from feedback.errors import CorruptFile, InvalidInput
from feedback.population import load_population
from feedback.reward_head import RewardHead

ADAPTER = "candidate"
KL_SHARE = 0.95  # of the gate's budget: a candidate beyond it is drawn back towards the base before it is judged
SCALINGS = 2  # at most, after a stage
SPARE = 0.2  # of the room up to the gate's bounds of form: what half of the replies must leave, so that all pass
LEAST_SHARE = 0.85  # of that: a candidate that falls shorter goes further the same way
WINS = ("win_rate/head", "win_rate/judge")  # against the base, by the head that was learned from and by the judge
STALE = 3600.0  # seconds after which a draft in the shared pool is a killed worker's, not another data folder's
KL_PROMPTS = 8  # gate prompts to estimate a KL on before anything is written


class Update:
    """One update under way on a loaded policy."""

    def __init__(self, run: JobRun, job: JobSpec, policy: Policy) -> None:
        self.run, self.job, self.policy, self.config = run, job, policy, job.config
        self.halves: dict[Stage, Sample] = {}  # half of the replies to the gate prompts, after a stage
        self.sample: Sample | None = None  # the candidate's replies to all gate prompts, once drawn
        self.latents = job.latents or latents_for(job.base, policy)
        population = load_population(len(self.latents.directions))
        if population.version != job.population:
            raise CorruptFile(
                f"The update was prepared under the shared prior {job.population}, this is {population.version}; "
                "start a new update."
            )

        def model(head: RewardHead, safety: Part) -> RewardModel:
            return RewardModel(
                head, population, self.latents, policy.renderer, SafetyTerm.load(safety), job.config.reward
            )

        self.reward, self.judge = model(job.heads.train, "term"), model(job.heads.judge, "judge")
        self.budget = KL_SHARE * self.config.gate.kl_budget(job.labels)

    def complete(self) -> None:
        """All stages, from the first that is not finished."""
        self.pool()
        self.warm_start()
        self.ppo()
        self.gate()

    # ---- stages ---------------------------------------------------------------------------------------------------

    def pool(self) -> None:
        """What is shared, and base replies to the person's own prompts."""
        pool, gate = prepare_shared(self.run, self.policy, self.job)
        self.entries, self.base = pool.load(), gate.load()
        own = own_prompts(self.job, self.policy.renderer)
        path = self.run.checkpoint / "own.safetensors"
        if not path.exists():
            at = self.config.pool
            sampling = Sampling(at.temperature, 1.0, at.max_tokens, self.job.seed)
            groups = roll_out(self.policy, [ids for _, ids in own], self.config.own_replies, sampling, adapter=None)
            save_groups(path, groups, reply_logprobs(self.policy, groups, at.temperature))
        kept = load_groups(path)
        self.own = [
            PoolEntry(f"own-{i}", text, *pair) for i, ((text, _), pair) in enumerate(zip(own, kept, strict=True))
        ]
        self.run.tell("pool", 1.0)

    def warm_start(self) -> None:
        """Learn from base replies: a few long steps towards what the person's head likes about them.

        The steps are taken from the base; a parent's weights take its place.
        """
        if self._resume("warm_start"):
            return
        self.run.tell("warm_start", 0.0)
        if self.config.start == "parent" and self.job.parent is not None:
            verify(self.job.parent)
            self.policy.load_adapter(ADAPTER, self.job.parent)
        else:
            self.policy.new_adapter(ADAPTER)
            self._learn_from_base()
        self._finish("warm_start")

    def ppo(self) -> None:
        """Go on-policy with fresh replies; what adds nothing is not kept."""
        if self._resume("ppo"):
            return
        self.run.tell("ppo", 0.0)
        config = self.config.ppo
        config = replace(config, target_kl=min(config.target_kl, self.budget))
        by_prompt = {tuple(entry.group.prompt): entry for entry in [*self.entries, *self.own]}
        prompts = mix_prompts(
            [entry.group.prompt for entry in self.own],
            [entry.group.prompt for entry in self.entries],
            config.batches * config.prompts,
            self.job.seed,
        )
        known = [(entry.text, entry.group) for entry in by_prompt.values()]
        score = scorer(self.reward, known, config.max_tokens)

        def on_batch(done: int, stats: PPOStats) -> None:
            share, told = 0.85 * done / config.batches, done in self.run.journal.steps("ppo")
            self.run.tell("ppo", share, *(() if told else (done, stats.as_metrics())))

        ppo_update(
            self.policy,
            ADAPTER,
            prompts,
            score,
            config,
            seed=self.job.seed,
            value_head=self._value_head(score) if config.advantage == "gae" else None,
            checkpoint=self.run.checkpoint / "batches",
            on_batch=on_batch,
        )
        self._finish("ppo")

    def gate(self) -> None:
        """Judge the candidate and leave the result; the checks come last."""
        self.run.tell("gate", 0.0)
        if self.sample is None and has_finite_weights(self.policy, ADAPTER):
            self.sample = self._with_rest(self._half(0))  # as they were drawn before the kill: the verdict is the same
        checks = run_gate(
            self.policy,
            ADAPTER,
            self.base,
            self.judge,
            self.job.heads,
            self.config.gate,
            seed=self.job.seed,
            sample=self.sample,
            strict=self.job.strict,
            progress=lambda share: self.run.tell("gate", share),
        )
        result = self.run.folder / "result"
        shutil.rmtree(result, ignore_errors=True)
        with whole_folder(result) as draft:
            fill(draft, self.policy.adapter_state(ADAPTER), self.policy.lora_config(), self._about())
        write_json(self.run.folder / "gate.json", [check.as_dict() for check in checks])

    # ---- steps the stages share -----------------------------------------------------------------------------------

    def _resume(self, stage: Stage) -> bool:
        """Whether a stage was finished before; its adapter is loaded then."""
        folder = self.run.checkpoint / stage
        if not folder.exists():
            return False
        verify(folder)
        if ADAPTER in self.policy.adapters:
            self.policy.drop_adapter(ADAPTER)
        self.policy.load_adapter(ADAPTER, folder)
        return True

    def _learn_from_base(self) -> None:
        """Rate the base replies by the person's head and take the steps, as far as the budget."""
        config, entries, rated = self.config.warm_start, [*self.entries, *self.own], list[Rated]()
        for number, entry in enumerate(entries):
            credit = torch.from_numpy(self.reward.credit(entry.group, entry.text, config.discount))
            rated.append(Rated(entry.group, entry.ref_logprobs, credit))
            self.run.tell("warm_start", 0.1 * (number + 1) / len(entries))
        warm_start(
            self.policy,
            ADAPTER,
            rated,
            self.config.pool.temperature,
            config,
            self.job.seed,
            lambda done, total, metrics: self.run.tell("warm_start", 0.1 + 0.7 * done / total, done, metrics),
        )
        self._reach_budget()

    def _finish(self, stage: Stage) -> None:
        """Scale the candidate to the KL budget, report its win rate so far, and mark the stage as finished.

        What PPO made is kept only if it wins more often than what it started from, both by the head that both learned
        from and by the judge: a few fresh batches can learn that head's mistakes (LOG.md).
        """
        if has_finite_weights(self.policy, ADAPTER):
            half = self._settled_half()
            metrics = self._win_rates(half)
            if stage == "ppo" and not wins_more(metrics, self._measured("warm_start")):
                self.policy.drop_adapter(ADAPTER)
                self.policy.load_adapter(ADAPTER, self.run.checkpoint / "warm_start")
                self.sample = self._completed(self.halves.get("warm_start") or self._half(0))
                metrics["win_rate/kept"] = 0.0
            elif stage == "ppo":
                self.sample = self._completed(half)
                metrics = self._win_rates(self.sample)
            self.halves[stage] = half
            steps = self.run.journal.steps(stage, without="win_rate/head")  # this very line, before a kill
            self.run.tell(stage, 1.0, max(steps, default=0) + 1, metrics)
        with whole_folder(self.run.checkpoint / stage) as draft:
            fill(draft, self.policy.adapter_state(ADAPTER), self.policy.lora_config(), {})

    def _win_rates(self, sample: Sample) -> dict[str, float]:
        """How often the candidate wins against the base, by both heads, and how far from it it is."""
        pair = self._comparison(sample)
        return {
            "win_rate/judge": pair.win_rate(self.job.heads.judge),
            "win_rate/head": pair.win_rate(self.job.heads.train),
            "win_rate/kl": sample.kl,
        }

    def _measured(self, stage: Stage) -> dict[str, float]:
        """The win rates that were measured after a stage, 0 if none were."""
        return {by: [0.0, *self.run.journal.of(stage, by)][-1] for by in WINS}

    def _reach_budget(self) -> None:
        """Scale what the first step added until base replies to the gate's prompts say that the KL is the budget's.

        The estimate is the mean of log p(base) - log p(candidate) over replies that the base wrote: the divergence the
        other way round, near enough to begin with and much cheaper than new replies.
        """
        entries = self.base.prompts[:KL_PROMPTS]
        groups = [entry.group for entry in entries]
        tokens = sum(len(reply) for group in groups for reply in group.replies)
        for _ in range(2):
            logprobs = reply_logprobs(self.policy, groups, self.config.pool.temperature, ADAPTER)
            moved = sum(float((e.ref_logprobs - p).sum()) for e, p in zip(entries, logprobs, strict=True)) / tokens
            if not math.isfinite(moved) or abs(moved / self.budget - 1) < 0.05:
                break
            scale_b(self.policy, ADAPTER, min(self._towards_budget(moved), 4.0))

    def _settled_half(self) -> Sample:
        """Half of the candidate's replies to the gate prompts, B being scaled until their KL is within the budget and
        not much below it, and endings and subject are as sound as the gate will ask. What goes on from a parent's
        weights, or was drawn back for its form, is not lengthened, nor is the last but one: the last is taken as is."""
        least = LEAST_SHARE if self.config.start == "fresh" else 0.0
        for tries in range(SCALINGS + 1):
            half = self._half(0)
            if tries == SCALINGS or not half.finite:
                break
            sound = self._comparison(half).scale_for_form(self.config.gate, SPARE)
            if half.kl > self.budget or sound < 1.0:
                scale_b(self.policy, ADAPTER, min(sound, self._towards_budget(half.kl)))
                least = least if sound == 1.0 else 0.0
            elif half.kl < least * self.budget and tries < SCALINGS - 1:
                scale_b(self.policy, ADAPTER, min(self._towards_budget(half.kl), 1.5))
            else:
                break
        return half

    def _completed(self, half: Sample) -> Sample:
        """What the gate will judge by: this half and the other. Where both together would fail its check of distance or
        of form, the candidate is drawn back and both are drawn anew."""
        sample = self._with_rest(half)
        if sample.finite:
            factor = self._comparison(sample).scale_for_form(self.config.gate, 0.0)
            if sample.kl > self.budget / KL_SHARE:
                factor = min(factor, self._towards_budget(sample.kl))
            if factor < 1.0:
                scale_b(self.policy, ADAPTER, factor)
                sample = self._with_rest(self._half(0))
        return sample

    def _with_rest(self, half: Sample) -> Sample:
        return half.joined(self._half(1)) if self.config.gate.measured.replies > 1 else half

    def _half(self, which: int) -> Sample:
        """The candidate's replies to the gate prompts: the first half of them (0) or the second (1)."""
        measured = self.config.gate.measured
        first = (measured.replies + 1) // 2
        replies = measured.replies - first if which else first
        return draw_sample(self.policy, ADAPTER, self.base.prompts, replies, measured, self.job.seed + 2 * which)

    def _comparison(self, sample: Sample) -> Comparison:
        return Comparison(self.judge, self.base.prompts, sample.groups)

    def _towards_budget(self, kl: float) -> float:
        """By what to multiply B so that a KL of `kl` should come to lie a little within the budget.

        What an adapter adds is linear in B, and the KL grows with its square.
        """
        return max(0.98 * math.sqrt(self.budget / max(kl, 1e-5)), 0.1)

    def _value_head(self, score: Scorer) -> ValueHead:
        """A value head fitted on the pool, before the first rollout."""
        head = ValueHead(torch.from_numpy(self.latents.reply_mean), torch.from_numpy(self.latents.reply_sd))
        groups = [cut(entry.group, self.config.ppo.max_tokens) for entry in self.entries]
        head.fit(groups, [torch.from_numpy(values) for values in score(groups)])
        return head

    def _about(self) -> dict[str, Any]:
        """Where the candidate comes from; holds no path and no name of a person."""
        job, rows = self.job, self.run.journal.rows
        last = {f"{row['stage']}/{name}": value for row in rows for name, value in row.items() if "/" in name}
        return {
            "update_id": job.update_id,
            "base_id": job.base.base_id,
            "base_name": job.base.name,
            "parent": job.parent.name if job.parent else None,
            "labels": job.labels,
            "held_out": job.heads.judge.labels,
            "strict": job.strict,
            "population": job.population,
            "seed": job.seed,
            "config": job.config.as_dict(),
            "metrics": last,
        }


def wins_more(after: Mapping[str, float], before: Mapping[str, float]) -> bool:
    """Whether a candidate wins more often than another, both by the head that it learned from and by the judge."""
    return all(after[by] > before[by] for by in WINS)


def prepare_shared(run: JobRun, policy: Policy, job: JobSpec | PoolJob) -> tuple[Pool, GateFiles]:
    """Make sure that what all updates on a base share is there."""
    pool, gate = shared_files(job, policy.split)
    with _in_turn(run, job.base.folder / "pool.lock"):
        sweep(job.base.folder / "pool", older=STALE)
        most = 0.75 if pool.ready < 1.0 else 0.0  # of the stage: what is there already is no sign of its pace
        pool.build(policy, lambda share: run.tell("pool", most * share))
        gate.build(policy, lambda share: run.tell("pool", most + (0.95 - most) * share))
    return pool, gate


@contextlib.contextmanager
def _in_turn(run: JobRun, lock: Path) -> Iterator[None]:
    """Wait for another job that is building the same: it will be found ready then."""
    while True:
        run.tell("pool", 0.0)
        with alone(lock) as mine:
            if mine:
                yield
                return
        time.sleep(1.0)


def shared_files(job: JobSpec | PoolJob, split: int) -> tuple[Pool, GateFiles]:
    """Where that lies; split: the first layer above the trunk."""
    pool = Pool(job.base.folder / "pool", job.base.base_id, split, job.config.pool)
    return pool, GateFiles(job.base, split, job.config.gate.measured)


def own_prompts(job: JobSpec, renderer: Renderer) -> list[tuple[str, list[int]]]:
    """(last message, prompt ids) of the person's own conversations, each once; what does not fit is left out."""
    short = Renderer(renderer.tokenizer, job.config.own_tokens)
    chosen: dict[tuple[int, ...], str] = {}
    for messages in job.prompts:
        with contextlib.suppress(InvalidInput):
            chosen.setdefault(tuple(short.prompt(messages).ids), messages[-1]["content"])
    return [(text, list(ids)) for ids, text in chosen.items()][: job.config.own_prompts]


def mix_prompts(own: Sequence[list[int]], pool: Sequence[list[int]], count: int, seed: int) -> list[list[int]]:
    """At most half of `count` prompts are the person's own, the newest first; the rest is drawn from the pool."""
    mine = list(own[: count // 2])
    drawn = np.random.default_rng(seed).permutation(len(pool))[: max(1, count - len(mine))]
    return mine + [pool[i] for i in drawn]
