"""A simulated person at work: shown replies, clicks, and the heads that follow, with the product's own code.

One prompt, one act. Acts take turns: a ranking of four, a pair, a thumb; each counts as one label. Shown is what
`auto` shows: base replies before the first label; after it the best drafts by the head so far and, where several are
compared, one base reply among them. All are chosen among whole drafts here, as a chat chooses several to compare; a
single one it chooses twice (`measure.rerank`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from assistant.turn import Judge
from assistant.writing import Draft
from benchmarks.base_replies import Drafts
from benchmarks.people import Person
from feedback.foretelling import Split, split
from feedback.labels import act_of, ranking_preference, thumb_preference
from feedback.population import Population
from feedback.reward_head import RewardHead, fit
from feedback.store.acts import HELD_OUT_EVERY
from feedback.types import Preference

Kind = Literal["ranking", "pair", "thumb"]
TURNS: tuple[Kind, ...] = ("ranking", "pair", "thumb")
SHOWN: dict[Kind, int] = {"ranking": 4, "pair": 2, "thumb": 1}
JudgeOf = Callable[[RewardHead], Judge]


def click_through(
    person: Person, prompts: Sequence[Drafts], count: int, population: Population, judge_of: JudgeOf
) -> list[Preference]:
    """The person's first `count` acts, one to each of the prompts in order."""
    return [act for _, act in shown_and_clicked(person, prompts, count, population, judge_of)]


def shown_and_clicked(
    person: Person, prompts: Sequence[Drafts], count: int, population: Population, judge_of: JudgeOf
) -> list[tuple[list[Draft], Preference]]:
    """The same acts, each with the replies it is about."""
    assert count <= len(prompts), f"{count} labels need as many prompts; there are {len(prompts)}"
    acts: list[tuple[list[Draft], Preference]] = []
    for number, kept in enumerate(prompts[:count]):
        kind = TURNS[number % len(TURNS)]
        judge = judge_of(head_of([act for _, act in acts], population)) if acts else None
        shown = to_show(kept, SHOWN[kind], judge)
        acts.append((shown, _numbered(click(person, kind, shown, population), number + 1)))
    return acts


def liked_texts(acts: Sequence[tuple[Sequence[Draft], Preference]]) -> list[str]:
    """The replies that somebody liked, oldest first: thumbs up, and the best of what was ranked."""
    liked: list[str] = []
    for shown, act in acts:
        best = act.tiers[0] if act.kind == "ranking" else range(act.thumb > 0)
        liked += [shown[place].text.strip() for place in best]
    return liked


def to_show(kept: Drafts, count: int, judge: Judge | None) -> list[Draft]:
    """The replies a chat shows when `count` are asked for. judge: None before the first label."""
    *drafts, rival = as_drafts(kept)
    if judge is None:
        return [*drafts, rival][:count]
    if count == 1:
        return judge.best(drafts, kept.prompt, 1)
    return [*judge.best(drafts, kept.prompt, count - 1), rival]


def click(person: Person, kind: Kind, shown: Sequence[Draft], population: Population) -> dict[str, Any]:
    """One act, as the fields of a preference."""
    replies = [draft.as_reply("", [], "", source="chat", reply_id=f"r{place}") for place, draft in enumerate(shown)]
    if kind == "thumb":
        return thumb_preference(replies[0], person.thumb(replies[0].text), population)
    texts = [reply.text for reply in replies]
    if kind == "ranking":
        tiers = person.rank(texts)
    else:
        tiers = {-1: [[0], [1]], 0: [[0, 1]], 1: [[1], [0]]}[person.compare(texts[0], texts[1])]
    return ranking_preference(replies, [[replies[place].id for place in tier] for tier in tiers], population)


def head_of(preferences: Sequence[Preference], population: Population) -> RewardHead:
    """The posterior after some acts."""
    return fit([act_of(each, population, same_base=True) for each in preferences], population.prior)


def heads_of(preferences: Sequence[Preference], population: Population) -> Split:
    """What an update takes."""
    acts = [act_of(each, population, same_base=True) for each in preferences]
    return split(acts, [each.held_out for each in preferences], population.prior, np.ones(len(acts)))


def as_drafts(kept: Drafts) -> list[Draft]:
    """Kept drafts as the engine hands them over (without their tokens, which nothing here reads)."""
    return [
        Draft(text, [], ended, "stop" if ended else "length", latent, float(subject))
        for text, ended, latent, subject in zip(kept.texts, kept.ended, kept.latent, kept.subject, strict=True)
    ]


def best_row(kept: Drafts, judge: Judge) -> int:
    """Which of the kept drafts re-ranking shows."""
    drafts = as_drafts(kept)
    (best,) = judge.best(drafts, kept.prompt, 1)
    return next(row for row, draft in enumerate(drafts) if draft is best)


def _numbered(act: dict[str, Any], seq: int) -> Preference:
    """The act as the store would number it: every fifth is held out."""
    fields = act | {"tiers": tuple(tuple(tier) for tier in act["tiers"])}
    return Preference(feedback_id=f"f{seq}", seq=seq, held_out=seq % HELD_OUT_EVERY == 0, **fields)
