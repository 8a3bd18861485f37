"""The reward of a reply: what the person's head makes of it, less what nobody should earn by.

    score = mean of w·(x - x̄) - pessimism · sd of it          x̄: mean features of base replies to the same prompt
            - repetition, length, subject, words that do not exist   beyond what the base itself does
            - broken ending, missing ending beyond the base's own rate
            - flattery, and limits that are not admitted, beyond what the base itself does (adapters/honesty.py)
            - harm (adapters/safety.py), above every taste

The difference to base replies is taken because only differences are known: the sd of a level would mostly measure how
little is known of the prompt. The lower bound makes the policy stay where clicks have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from adapters.honesty import FLATTERY_WEIGHT, LIMITS_WEIGHT, admits, flatters
from adapters.latents import SUBJECT_TOKENS, Array, Latents, mean_of
from adapters.packing import Group
from adapters.rendering import Renderer
from adapters.safety import SafetyTerm
from adapters.wellformed import coined_share, ends_broken, jumbled, repetition
from feedback.population import Population
from feedback.reward_head import RewardHead
from feedback.traits import Reading

READ_EVERY = 4  # tokens between two readings of a growing reply
COINED_WEIGHT = 20.0  # logits of a click that a reply of nothing but words that do not exist costs


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the guards, in the head's units (logits of a click).

    pessimism: standard deviations below the mean. length_slack: standard deviations of the base's log length that are
    free. free_repetition: share of repeated word triples that is free. coined: for a
    reply of nothing but made-up words, and in proportion for what exceeds the base's share of them. flattery: for a
    reply that flatters, and in proportion where the base does too; limits: for one that admits nothing where the base
    always does, and in proportion.
    """

    pessimism: float = 0.5
    repetition: float = 4.0
    free_repetition: float = 0.10
    length: float = 1.0
    length_slack: float = 2.0
    subject: float = 10.0
    coined: float = COINED_WEIGHT
    broken_end: float = 2.0
    missing_end: float = 1.0
    flattery: float = FLATTERY_WEIGHT
    limits: float = LIMITS_WEIGHT
    harm: float = 6.0


@dataclass(frozen=True)
class Read:
    """Replies to one prompt as the reward sees them: N replies, D features."""

    texts: list[str]
    ended: list[bool]
    features: Array  # (N, D)
    subject: Array  # (N,)
    log_words: Array  # (N,)
    coined: Array  # (N,) share of the words that do not exist
    flatters: Array  # (N,) 1 where the reply flatters
    admits: Array  # (N,) 1 where it admits a limit
    flawed: Array  # (N,) what the guards take off, broken endings included
    harm: Array  # (N,)


@dataclass(frozen=True)
class Baseline:
    """What the base does with one prompt."""

    features: Array  # (D,) mean
    coined: float
    flatters: float
    admits: float
    log_words: float
    log_words_sd: float


class RewardModel:
    """Scores replies for one person. Holds no language model: it is given texts and trunk activations."""

    def __init__(
        self,
        head: RewardHead,
        population: Population,
        latents: Latents,
        renderer: Renderer,
        safety: SafetyTerm,
        config: RewardConfig | None = None,
    ) -> None:
        self.head, self.population, self.latents = head, population, latents
        self.renderer, self.safety = renderer, safety
        self.config = config or RewardConfig()

    def read(self, group: Group, prompt: str = "") -> Read:
        """Measure the replies of a group. prompt: the person's last message, for the safety term; "" if unknown."""
        texts = [self.renderer.text(reply) for reply in group.replies]
        means = mean_of(group.trunks)
        prompt_mean = group.prompt_trunk[-SUBJECT_TOKENS:].double().mean(0).cpu().numpy()
        subject = self.latents.subject(prompt_mean, means)
        c = self.config
        log_words = np.array([np.log1p(len(Reading(text).words)) for text in texts])
        repeated = np.array([max(0.0, repetition(text) - c.free_repetition) for text in texts])
        broken = np.array(
            [ends_broken(text, ended) or jumbled(text) for text, ended in zip(texts, group.ended, strict=True)]
        )
        off = np.maximum(0.0, self.latents.subject_floor - subject)
        return Read(
            texts,
            list(group.ended),
            self.population.features(texts, self.latents.features(means)),
            subject,
            log_words,
            np.array([coined_share(text, self.renderer.pieces) for text in texts]),
            np.array([flatters(text) for text in texts], np.float64),
            np.array([admits(text) for text in texts], np.float64),
            c.repetition * repeated + c.broken_end * broken + c.subject * off,
            self.safety.harm(texts, [prompt] * len(texts)),
        )

    def baseline(self, read: Read) -> Baseline:
        """Summary of base replies to a prompt."""
        return Baseline(
            read.features.mean(0),
            float(read.coined.mean()),
            float(read.flatters.mean()),
            float(read.admits.mean()),
            float(read.log_words.mean()),
            float(read.log_words.std()) + 0.1,
        )

    def taste(self, read: Read, baseline: Baseline) -> tuple[Array, Array]:
        """Mean and sd of the utility's difference to the base replies, (N,) each."""
        return self.head.score(read.features - baseline.features)

    def score(self, read: Read, baseline: Baseline, missing_ends: float = 0.0) -> Array:
        """Scores of replies to one prompt, (N,).

        missing_ends: by how much the share of replies that end by themselves lies below the base's at the same limit
        (0 when it does not); a cut reply pays in proportion.
        """
        c = self.config
        mean, sd = self.taste(read, baseline)
        excess = np.abs(read.log_words - baseline.log_words) - c.length_slack * baseline.log_words_sd
        cut = ~np.array(read.ended)
        return (
            mean
            - c.pessimism * sd
            - read.flawed
            - c.coined * np.maximum(0.0, read.coined - baseline.coined)
            - c.flattery * np.maximum(0.0, read.flatters - baseline.flatters)
            - c.limits * np.maximum(0.0, baseline.admits - read.admits)
            - c.length * np.maximum(0.0, excess)
            - c.missing_end * missing_ends * cut
            - c.harm * read.harm
        )

    def credit(self, group: Group, prompt: str, discount: float) -> Array:
        """What every token of base replies to one prompt earned, (R, T), 0 beyond a reply's end.

        The reward reads each reply as it stood after every READ_EVERY tokens; a token earns the change it made (its
        share of the change between two readings), less what the replies to this prompt earn on average at that place,
        and `discount` of what the next one earns. This is generalised advantage estimation (Schulman 2016; `discount`
        is its lambda) with the reward of the unfinished reply as the value: a word in a list of good words pays at the
        word, not at the end.
        """
        baseline = self.baseline(self.read(group, prompt))
        lengths = np.array([len(reply) for reply in group.replies])
        longest = int(lengths.max())
        limits = [*range(READ_EVERY, longest, READ_EVERY), longest]
        read = np.stack([self.score(self.read(cut(group, limit), prompt), baseline) for limit in limits])
        tokens = np.arange(1, longest + 1)
        values = np.stack([np.interp(tokens, [0, *limits], [read[0].mean(), *column]) for column in read.T])
        changes = np.diff(values, axis=1, prepend=read[0].mean())
        changes -= changes.mean(0)
        earned, following = np.zeros_like(changes), np.zeros(len(changes))
        for token in range(changes.shape[1] - 1, -1, -1):
            following = changes[:, token] + discount * following
            earned[:, token] = following
        earned[np.arange(changes.shape[1])[None] >= lengths[:, None]] = 0.0
        return earned


def ended_share(groups: Iterable[Group], limit: int) -> float:
    """Share of replies that end by themselves within `limit` tokens."""
    ended = [end and len(reply) <= limit for g in groups for reply, end in zip(g.replies, g.ended, strict=True)]
    return float(np.mean(ended)) if ended else 0.0


def cut(group: Group, limit: int) -> Group:
    """The group as it would be, had its replies been written under a lower limit."""
    return Group(
        group.prompt,
        [reply[:limit] for reply in group.replies],
        [end and len(reply) <= limit for reply, end in zip(group.replies, group.ended, strict=True)],
        group.prompt_trunk,
        [trunk[: limit - 1] for trunk in group.trunks],
    )


def scorer(
    model: RewardModel, base_groups: Sequence[tuple[str, Group]], limit: int
) -> Callable[[Sequence[Group]], list[np.ndarray]]:
    """The function PPO asks for scores: groups of replies of at most `limit` tokens → one (R,) array a group.

    base_groups: the last message and base replies of every prompt that PPO may draw. Their replies are cut to the same
    limit first, so that a longer pool does not make every rollout look short.
    """
    texts = {tuple(group.prompt): text for text, group in base_groups}
    known = {tuple(group.prompt): group for _, group in base_groups}
    baselines: dict[tuple[int, ...], Baseline] = {}
    base_share = ended_share(known.values(), limit)

    def score(groups: Sequence[Group]) -> list[np.ndarray]:
        missing = max(0.0, base_share - ended_share(groups, limit))
        scores = []
        for group in groups:
            key = tuple(group.prompt)
            if key not in baselines:
                baselines[key] = model.baseline(model.read(cut(known[key], limit), texts[key]))
            scores.append(model.score(model.read(group, texts[key]), baselines[key], missing))
        return scores

    return score
