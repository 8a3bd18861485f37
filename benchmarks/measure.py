"""What an arm is worth: its replies to prompts nobody learned from, judged by the hidden taste and the shared rules.

Everything an arm writes is turned into `Drafts` (text, ending, latent features, subject), the same record that the
base's kept replies have, so that every arm is re-ranked and judged by one piece of code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adapters.decoding import Generation, Sampling
from adapters.latents import SUBJECT_TOKENS, Latents, mean_of
from adapters.packing import Group
from adapters.policy import Policy
from adapters.pool import reply_logprobs
from adapters.rendering import ChatMessage
from adapters.rollout import roll_out
from adapters.wellformed import find_flaws
from assistant.turn import Judge
from assistant.writing import NARROW_AT, RESAMPLE_AT
from benchmarks.base_replies import Drafts
from benchmarks.clicks import as_drafts, best_row
from benchmarks.judging import Judged
from benchmarks.people import Person

Prompt = tuple[str, str]  # id, text
RERANKED_ROWS = 128  # drafts written at once


@dataclass(frozen=True)
class Written:
    """Replies of an arm. drafts: one a prompt; kl: nats a token from the base, measured on these very replies."""

    drafts: list[Drafts]
    kl: float
    tokens: float  # mean length of a reply


@dataclass(frozen=True)
class Reranked:
    """The chosen reply of each prompt, and the mean length of a draft in tokens."""

    drafts: list[Drafts]
    tokens: float


def write(
    policy: Policy,
    latents: Latents,
    prompts: Sequence[Prompt],
    copies: int,
    sampling: Sampling,
    *,
    adapter: str | None = None,
    system: str | None = None,
) -> Written:
    """Let the base or an adapter answer, with or without a system prompt of its own.

    The divergence of a system prompt is that from the base with the usual one.
    """
    plain = [policy.render(_messages(text)) for _, text in prompts]
    asked = [policy.render(_messages(text, system)) for _, text in prompts] if system else plain
    groups = roll_out(policy, asked, copies, sampling, adapter=adapter)
    own = reply_logprobs(policy, groups, sampling.temperature, adapter)
    unmoved = groups
    if system:
        unmoved = [policy.read(ids, g.replies, g.ended) for ids, g in zip(plain, groups, strict=True)]
    base = reply_logprobs(policy, unmoved, sampling.temperature, None)
    tokens = sum(len(reply) for group in groups for reply in group.replies)
    # Masked places are 0 under both, so that the sum is over real tokens only.
    gap = float(sum((mine - theirs).double().sum() for mine, theirs in zip(own, base, strict=True)))
    drafts = [drafts_of(policy, latents, prompt, group) for prompt, group in zip(prompts, unmoved, strict=True)]
    return Written(drafts, gap / tokens, tokens / sum(len(group.replies) for group in groups))


def rerank(
    policy: Policy,
    latents: Latents,
    prompts: Sequence[Prompt],
    judge: Judge,
    copies: int,
    sampling: Sampling,
    *,
    adapter: str | None = None,
) -> Reranked:
    """The reply that a chat shows to each prompt when it re-ranks.

    Drafts are written half way, the best beginnings go on in place of the others (`Judge.resampled`), of all that come
    of them one is chosen (`Judge.best`), and that one is written to its end.
    """
    picks: dict[int, Drafts] = {}
    tokens = 0
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index][1]))
    at_once = max(1, RERANKED_ROWS // copies)
    policy.use(adapter)
    for start in range(0, len(order), at_once):
        asked = [prompts[index] for index in order[start : start + at_once]]
        drawn = replace(sampling, seed=sampling.seed * 100_003 + start)
        ids = [policy.render(_messages(text)) for _, text in asked]
        batch = Generation(ids, copies, drawn, policy.renderer.end_ids, adapter=adapter)
        _write_until(RESAMPLE_AT, batch, policy)
        parents: dict[int, int] = {}
        for place, each in enumerate(_written(policy, latents, asked, batch)):
            first = place * copies
            unfinished = [row for row in range(copies) if first + row in batch.unfinished]
            found = judge.resampled(as_drafts(each), unfinished, each.prompt)
            parents |= {first + row: first + parent for row, parent in found.items()}
        if parents:
            batch.resample(parents, policy.device)
        _write_until(NARROW_AT, batch, policy)
        tokens += sum(map(len, batch.replies))
        rows = [best_row(each, judge) for each in _written(policy, latents, asked, batch)]
        kept = {place * copies + row for place, row in enumerate(rows)}
        batch.drop(batch.unfinished - kept, policy.device)
        batch.run(policy)
        for place, each in enumerate(_written(policy, latents, asked, batch)):
            picks[order[start + place]] = some(each, rows[place], rows[place] + 1)
    return Reranked([picks[index] for index in range(len(prompts))], tokens / (len(prompts) * copies))


def _write_until(length: int, batch: Generation, policy: Policy) -> None:
    while not batch.done and max(map(len, batch.replies)) < length:
        batch.step(policy)


def _written(policy: Policy, latents: Latents, prompts: Sequence[Prompt], batch: Generation) -> list[Drafts]:
    """What there is of a batch, by prompt."""
    means = batch.trunk_means().double().cpu().numpy()
    about = batch.prompt_means(SUBJECT_TOKENS).double().cpu().numpy()
    found = []
    for place, prompt in enumerate(prompts):
        rows = slice(place * batch.copies, (place + 1) * batch.copies)
        texts = [policy.renderer.text(reply) for reply in batch.replies[rows]]
        subject = latents.subject(about[place], means[rows])
        found.append(Drafts(*prompt, texts, list(batch.ended[rows]), latents.features(means[rows]), subject))
    return found


def drafts_of(policy: Policy, latents: Latents, prompt: Prompt, group: Group) -> Drafts:
    """A group of replies as a record without activations."""
    means = mean_of(group.trunks)
    about = group.prompt_trunk[-SUBJECT_TOKENS:].double().mean(0).cpu().numpy()
    texts = [policy.renderer.text(reply) for reply in group.replies]
    return Drafts(*prompt, texts, list(group.ended), latents.features(means), latents.subject(about, means))


def judge(drafts: Sequence[Drafts], person: Person, subject_floor: float) -> list[list[Judged]]:
    """All replies as the judge sees them, prompt by prompt."""
    return [
        [
            Judged(text, person.utility(text), find_flaws(text, ended, float(subject), subject_floor).broken)
            for text, ended, subject in zip(each.texts, each.ended, each.subject, strict=True)
        ]
        for each in drafts
    ]


def some(drafts: Drafts, start: int, stop: int) -> Drafts:
    """A slice of the replies to a prompt."""
    part = slice(start, stop)
    return Drafts(
        drafts.prompt_id,
        drafts.prompt,
        drafts.texts[part],
        drafts.ended[part],
        drafts.latent[part],
        drafts.subject[part],
    )


def _messages(text: str, system: str | None = None) -> list[ChatMessage]:
    turn: ChatMessage = {"role": "user", "content": text}
    return [{"role": "system", "content": system}, turn] if system else [turn]
