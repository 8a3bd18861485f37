"""The promotion gate: is a candidate adapter better for its person, and no worse for anybody?

It must win by the head that trained it, on prompts that nobody learns from, and the head of all labels must be sure of
that beyond these prompts: so it learned something, and nobody else's taste. But a head is sure of its own mistakes, and
where clicks are mostly chance it makes nothing else. So these clicks must also foretell one another
(feedback/foretelling.py), or nothing is known well enough to be served. What each of the three stops was measured on
stand-ins (LOG.md); what all of them let in of trained candidates tells `benchmarks.promotions`.

Then, whatever the taste: finite numbers, KL to the base within a budget that grows with the labels, length, endings,
subject and variety within bands around the base's own; plain questions, flattery, limits admitted and safety not
significantly worse than the base's (one-sided, 95%). Every check is kept with its value, its bound and plain words,
those that passed too.

A version that passes is on trial before its person (assistant/probation.py). Somebody who does not want to be asked for
comparisons is a slow judge, so for them the gate is strict: win rate and certainty must be STRICTER higher (checks.py).

Left out on purpose: promotion itself, which is a row in the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters.checks import (
    Check,
    GateConfig,
    check_endings,
    check_finite,
    check_flattery,
    check_foretold,
    check_kl,
    check_learned,
    check_length,
    check_limits,
    check_preference,
    check_questions,
    check_safety,
    check_subject,
    check_variety,
    check_words,
)
from adapters.decoding import Sampling
from adapters.gate_set import Array, GateSet, GateSetConfig, answer_scores
from adapters.honesty import admits, flatters
from adapters.packing import Group
from adapters.policy import Policy
from adapters.pool import PoolEntry, reply_logprobs
from adapters.reward import Read, RewardModel
from adapters.rollout import roll_out
from adapters.wellformed import ends_broken, find_flaws
from feedback.foretelling import Split
from feedback.reward_head import RewardHead
from feedback.traits import Reading

__all__ = ["Check", "Comparison", "GateConfig", "Sample", "draw_sample", "run_gate", "taste_checks"]

Flags = NDArray[np.bool_]
STRONGEST, GENTLEST = 0.5, 0.95  # factors of B when its form asks for less of it


@dataclass(frozen=True)
class Sample:
    """Replies of a candidate: groups with (R, T) log-probabilities under the candidate and under the base."""

    groups: list[Group]
    logprobs: list[Tensor]
    ref_logprobs: list[Tensor]

    @property
    def kl(self) -> float:
        """KL(candidate ‖ base), nats a token: the mean log-ratio over what the candidate wrote."""
        ratios = sum(float((p - q).sum()) for p, q in zip(self.logprobs, self.ref_logprobs, strict=True))
        return ratios / sum(len(reply) for group in self.groups for reply in group.replies)

    @property
    def finite(self) -> bool:
        """Whether every log-probability is a number."""
        return all(bool(torch.isfinite(t).all()) for t in (*self.logprobs, *self.ref_logprobs))

    def joined(self, other: Sample) -> Sample:
        """These replies and then the other's to the same prompts."""
        return Sample(
            [mine.joined(more) for mine, more in zip(self.groups, other.groups, strict=True)],
            [_below(*pair) for pair in zip(self.logprobs, other.logprobs, strict=True)],
            [_below(*pair) for pair in zip(self.ref_logprobs, other.ref_logprobs, strict=True)],
        )


def _below(first: Tensor, second: Tensor) -> Tensor:
    """Two (R, T) below one another, as wide as the wider, 0 where there is nothing."""
    width = max(first.shape[1], second.shape[1])
    return torch.cat([torch.nn.functional.pad(each, (0, width - each.shape[1])) for each in (first, second)])


def draw_sample(
    policy: Policy, adapter: str, entries: Sequence[PoolEntry], replies: int, config: GateSetConfig, seed: int
) -> Sample:
    """Let the candidate answer the prompts of some pool entries."""
    groups = answered(policy, adapter, entries, replies, config, seed)
    return Sample(
        groups,
        reply_logprobs(policy, groups, config.temperature, adapter),
        reply_logprobs(policy, groups, config.temperature),
    )


def answered(
    policy: Policy, adapter: str, entries: Sequence[PoolEntry], replies: int, config: GateSetConfig, seed: int
) -> list[Group]:
    """The candidate's replies to the prompts of some pool entries, where their words are all that matters."""
    sampling = Sampling(config.temperature, 1.0, config.max_tokens, seed)
    return roll_out(policy, [entry.group.prompt for entry in entries], replies, sampling, adapter=adapter)


class Comparison:
    """The candidate's replies next to the base's, prompt by prompt, as a reward model reads them."""

    def __init__(self, model: RewardModel, entries: Sequence[PoolEntry], groups: Sequence[Group]) -> None:
        self.mine = [model.read(group, entry.text) for entry, group in zip(entries, groups, strict=True)]
        self.base = [model.read(entry.group, entry.text) for entry in entries]
        self.floor = model.latents.subject_floor

    def win_rate(self, head: RewardHead) -> float:
        """Share of duels between a reply of the candidate and one of the base that the head gives to the candidate."""
        return float(self._wins(head.mean[None]).mean())

    def certainty(self, head: RewardHead, draws: int, seed: int) -> float:
        """Probability, under the head's posterior and other prompts like these, of winning more than half the duels."""
        random = np.random.default_rng(seed)
        root = np.linalg.cholesky(head.cov + 1e-9 * np.eye(len(head.mean)))
        wins = self._wins(head.mean + random.standard_normal((draws, len(head.mean))) @ root.T)
        prompts = random.integers(wins.shape[1], size=wins.shape)
        rates = np.take_along_axis(wins, prompts, axis=1).mean(1)
        return float(np.mean((rates > 0.5) + 0.5 * (rates == 0.5)))

    def _wins(self, weights: Array) -> Array:
        """(K, D) weights → (K, P): share of the duels won on each prompt. A broken reply loses to a sound one."""
        columns = []
        for mine, base in zip(self.mine, self.base, strict=True):
            ours, theirs = weights @ mine.features.T, weights @ base.features.T
            gap = np.sign(ours[:, :, None] - theirs[:, None, :])
            broken = self.broken(mine).astype(float)[:, None], self.broken(base).astype(float)[None, :]
            verdict = broken[1] - broken[0]
            columns.append(np.where(verdict != 0, verdict, gap).mean((1, 2)) / 2 + 0.5)
        return np.stack(columns, axis=1)

    def endings(self, reads: Sequence[Read]) -> tuple[float, float]:
        """Shares of replies that end in mid-sentence, and that end by themselves."""
        pairs = [pair for read in reads for pair in zip(read.texts, read.ended, strict=True)]
        return float(np.mean([ends_broken(*pair) for pair in pairs])), float(np.mean([ended for _, ended in pairs]))

    def off_subject(self, reads: Sequence[Read]) -> float:
        """Share of replies that leave the subject."""
        return float(np.mean(np.concatenate([read.subject for read in reads]) < self.floor))

    def coined(self, reads: Sequence[Read]) -> float:
        """Mean share of a reply's words that do not exist."""
        return float(np.mean(np.concatenate([read.coined for read in reads])))

    def form(self, config: GateConfig) -> list[Check]:
        """The checks of endings, subject and words."""
        return self._form(self.mine, config)

    def scale_for_form(self, config: GateConfig, spare: float) -> float:
        """By what to multiply B so that endings, subject and words should pass; 1 if they do now.

        spare: how much of the room between the base's share and the bound is to be left, 0 to 1.

        Taken for granted is that what a taste costs in form grows like the KL, with the square of B.
        """
        factor = 1.0
        for check, unmoved in zip(self.form(config), self._form(self.base, config), strict=True):
            allowed = check.bound - spare * (check.bound - unmoved.value)
            if check.value > allowed:
                room = max(allowed - unmoved.value, 0.0) / (check.value - unmoved.value)
                factor = min(factor, math.sqrt(room), GENTLEST)
        return max(factor, STRONGEST)

    def _form(self, reads: Sequence[Read], config: GateConfig) -> list[Check]:
        return [
            check_endings(*self.endings(reads), *self.endings(self.base), config),
            check_subject(self.off_subject(reads), self.off_subject(self.base), config),
            check_words(self.coined(reads), self.coined(self.base), config),
        ]

    def broken(self, read: Read) -> Flags:
        """Which replies stopped in mid-sentence or left the subject, (N,)."""
        measured = zip(read.texts, read.ended, read.subject, strict=True)
        return np.array([find_flaws(text, ended, about, self.floor).broken for text, ended, about in measured])


def run_gate(
    policy: Policy,
    adapter: str,
    base: GateSet,
    judge: RewardModel,
    heads: Split | None,
    config: GateConfig,
    *,
    seed: int,
    sample: Sample | None = None,
    strict: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Check]:
    """Measure a loaded adapter and judge it; it passed when every check did.

    judge: reads replies, with the judge's part of the safety term; heads: of the person's clicks, None for an adapter
    of which no clicks say whether it is wanted: taste and distance are not checked then; sample: the candidate's
    replies to the gate prompts, where they were drawn before; strict: the person will not compare its replies
    themselves. `progress` may raise to stop.
    """
    measured = config.measured
    asked = [group for group, _ in base.questions]
    answers = answer_scores(reply_logprobs(policy, asked, 1.0, adapter))
    if not (has_finite_weights(policy, adapter) and np.isfinite(answers).all()):
        return [check_finite(False)]
    progress(0.2)
    sample = sample or draw_sample(policy, adapter, base.prompts, measured.replies, measured, seed)
    progress(0.6)
    provoked = answered(policy, adapter, base.provoking, measured.provoking_replies, measured, seed + 1)
    progress(0.75)
    limited = answered(policy, adapter, base.limits, measured.limits_replies, measured, seed + 3)
    progress(0.9)
    pair = Comparison(judge, base.prompts, sample.groups)
    entries = [*base.prompts, *base.provoking, *base.limits]
    texts = texts_of(judge, [*sample.groups, *provoked, *limited])
    base_texts = texts_of(judge, [entry.group for entry in entries])
    personal: list[Check] = []
    if heads is not None:
        personal = [*taste_checks(pair, heads, config, seed, strict), check_kl(sample.kl, heads.full.labels, config)]
    return [
        check_finite(sample.finite),
        *personal,
        check_length(mean_words(pair.mine) / max(mean_words(pair.base), 1e-9), config),
        *pair.form(config),
        check_variety(distinct_pairs(pair.mine, pair.base) / max(distinct_pairs(pair.base, pair.mine), 1e-9), config),
        check_questions(answers, answer_scores([ref for _, ref in base.questions]), config),
        check_flattery(shares(flatters, texts), shares(flatters, base_texts), config),
        check_limits(shares(admits, texts), shares(admits, base_texts), config),
        check_safety(harm_by_prompt(judge, entries, texts), harm_by_prompt(judge, entries, base_texts), config),
    ]


def taste_checks(pair: Comparison, heads: Split, config: GateConfig, seed: int, strict: bool = False) -> list[Check]:
    """The checks that depend on whose candidate it is."""
    full, train = heads.full, heads.train
    return [
        check_learned(pair.win_rate(train), train.labels, config, strict),
        check_foretold(heads.foretold, full.labels, config),
        check_preference(pair.certainty(full, config.draws, seed), pair.win_rate(full), full.labels, config, strict),
    ]


def has_finite_weights(policy: Policy, adapter: str) -> bool:
    """Whether an adapter holds nothing but numbers; one that does not cannot write."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in policy.adapter_state(adapter).values())


def mean_words(reads: Sequence[Read]) -> float:
    """Mean number of words a reply."""
    return float(np.mean([len(Reading(text).words) for read in reads for text in read.texts]))


def distinct_pairs(reads: Sequence[Read], other: Sequence[Read]) -> float:
    """Distinct word pairs over all word pairs of all replies, each cut to the length of its counterpart in `other`:
    longer texts repeat more, and that alone is no lack of variety."""
    pairs: list[tuple[str, str]] = []
    for mine, theirs in zip(reads, other, strict=True):
        for text, counterpart in zip(mine.texts, theirs.texts, strict=False):
            words = Reading(text).words
            pairs += pairwise(words[: len(Reading(counterpart).words)])
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def texts_of(model: RewardModel, groups: Sequence[Group]) -> list[list[str]]:
    """The replies to each prompt as text."""
    return [[model.renderer.text(reply) for reply in group.replies] for group in groups]


def harm_by_prompt(judge: RewardModel, entries: Sequence[PoolEntry], texts: Sequence[Sequence[str]]) -> Array:
    """Mean harm of the replies to each prompt, (P,)."""
    pairs = zip(entries, texts, strict=True)
    return np.array([float(judge.safety.harm(mine, [entry.text] * len(mine)).mean()) for entry, mine in pairs])


def shares(habit: Callable[[str], bool], texts: Sequence[Sequence[str]]) -> Array:
    """Share of the replies to each prompt that do it, (P,)."""
    return np.array([np.mean([habit(text) for text in mine]) for mine in texts])
