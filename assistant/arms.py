"""Ways to answer (arms): which one is served, what each of them changes, and how well each has done.

    base             the base model
    context          the base, told in words what is known of the person's taste
    rerank           the best of several base replies by the person's reward head, chosen twice (`resampled`)
    adapter          the person's active adapter
    adapter+rerank   the best of several replies of the adapter

Pure functions: who writes is in requests.py, who keeps in chat.py. The record is read at every reply, so its intervals
are such that looking all the time does no harm (feedback/sequential.py). Left out on purpose: a bandit that explores by
itself; the record grows from the comparisons that people make anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.honesty import LIMITS_WEIGHT, admits, flatters
from adapters.reward import COINED_WEIGHT
from adapters.safety import HARMFUL
from adapters.wellformed import find_flaws
from assistant.profile import TraitView
from feedback.errors import InvalidInput
from feedback.sequential import interval
from feedback.types import ARMS, ArmName

Array = NDArray[np.float64]
Fitness = tuple[bool, bool, bool, bool]

RERANK_DRAFTS = 16
RERANK_DRAFTS_BUSY = 8  # while others wait
SURVIVORS = 4  # one beginning in so many is gone on from
SAME_WORDS = 8  # of a draft that is a reply before once more, at least
HARM_WEIGHT = 6.0  # logits of a click that certain harm costs; the same as in the reward (adapters/reward.py)
CONTEXT_TOKENS = 24  # two tastes or so: with each more, the embedded base breaks off more replies (LOG.md)

RERANKED: frozenset[ArmName] = frozenset({"rerank", "adapter+rerank"})
ADAPTED: frozenset[ArmName] = frozenset({"adapter", "adapter+rerank"})


# ---- which arm ----------------------------------------------------------------------------------------------------


def check_arm(name: object) -> ArmName | None:
    """An arm's name as it came from outside; None for "auto". Raises InvalidInput."""
    if name == "auto":
        return None
    for arm in ARMS:
        if name == arm:
            return arm
    raise InvalidInput(f"arm is {str(name)[:40]!r}; it can be auto, {', '.join(ARMS)}.", param="mynah.arm")


def ladder(labels: int, has_version: bool) -> list[ArmName]:
    """The arms `auto` chooses from, the most personal first; what it falls back to comes after.

    Without a label nothing is known of the person, and the base can be read while it writes. From the first label on
    the head chooses among drafts, so that a click changes the next reply.
    """
    arms: list[ArmName] = ["base"]
    if labels:
        arms.insert(0, "rerank")
    if has_version:
        arms.insert(0, "adapter+rerank" if labels else "adapter")
    return arms


def served_arm(labels: int, has_version: bool, record: Record) -> ArmName:
    """What `auto` serves: the top of the ladder, unless the person's own record speaks against it.

    An arm makes way for the next one when it has lost to it significantly (95%), side by side or in thumbs.
    """
    arms = ladder(labels, has_version)
    for arm, next_one in pairwise(arms):
        if not record.loses(arm, next_one):
            return arm
    return arms[-1]


def rival(arm: ArmName, labels: int, has_version: bool) -> ArmName | None:
    """The arm to show beside this one when replies are to be compared: the next on the ladder."""
    arms = ladder(labels, has_version)
    place = arms.index(arm)
    return arms[place + 1] if place + 1 < len(arms) else None


def without_adapter(arm: ArmName) -> ArmName:
    """The arm that differs from this one only in that the base writes."""
    return "rerank" if arm == "adapter+rerank" else "base"


# ---- how well each did --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """Wins out of so many comparisons; a tie is half a win."""

    wins: float = 0.0
    count: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.wins + other.wins, self.count + other.count)

    def interval(self) -> tuple[float, float]:
        """Share of wins, 95% sure at all times together, (0, 1) without any."""
        return interval(self.wins, self.count)


@dataclass(frozen=True)
class ArmRecord:
    """One arm against all others side by side (comparisons, wins, the interval low-high), and its thumbs."""

    arm: ArmName
    comparisons: int
    wins: float
    low: float
    high: float
    thumbs: int
    ups: int


@dataclass(frozen=True)
class Record:
    """What a person's feedback says of the arms. pairs: (arm, other) → how often `arm` won; thumbs: arm → ups."""

    pairs: Mapping[tuple[ArmName, ArmName], Tally] = field(default_factory=dict)
    thumbs: Mapping[ArmName, Tally] = field(default_factory=dict)

    def __add__(self, other: Record) -> Record:
        """Both together: the record of several people."""
        pairs, thumbs = dict(self.pairs), dict(self.thumbs)
        for two, tally in other.pairs.items():
            pairs[two] = pairs.get(two, Tally()) + tally
        for arm, tally in other.thumbs.items():
            thumbs[arm] = thumbs.get(arm, Tally()) + tally
        return Record(pairs, thumbs)

    @property
    def arms(self) -> list[ArmRecord]:
        """One line for every arm that was ever judged."""
        lines = []
        for arm in ARMS:
            pairs = sum((tally for (mine, _), tally in self.pairs.items() if mine == arm), Tally())
            thumbs = self.thumbs.get(arm, Tally())
            if pairs.count or thumbs.count:
                lines.append(ArmRecord(arm, pairs.count, pairs.wins, *pairs.interval(), thumbs.count, int(thumbs.wins)))
        return lines

    def loses(self, arm: ArmName, other: ArmName) -> bool:
        """Whether `arm` has done significantly worse than `other`."""
        if self.pairs.get((arm, other), Tally()).interval()[1] < 0.5:
            return True
        mine, theirs = (self.thumbs.get(name, Tally()) for name in (arm, other))
        return mine.interval()[1] < theirs.interval()[0]


def record_of(rankings: Iterable[Sequence[Sequence[ArmName]]], thumbs: Iterable[tuple[ArmName, int]]) -> Record:
    """Count up live feedback: rankings as tiers of the arms that wrote the replies, best first; thumbs 1 or -1."""
    pairs: dict[tuple[ArmName, ArmName], Tally] = {}
    for tiers in rankings:
        placed = [(place, arm) for place, tier in enumerate(tiers) for arm in tier]
        for (above, left), (below, right) in combinations(placed, 2):
            if left != right:
                won = 0.5 if above == below else 1.0  # the left one stands first, so it never lost
                pairs[left, right] = pairs.get((left, right), Tally()) + Tally(won, 1)
                pairs[right, left] = pairs.get((right, left), Tally()) + Tally(1.0 - won, 1)
    ups: dict[ArmName, Tally] = {}
    for arm, thumb in thumbs:
        ups[arm] = ups.get(arm, Tally()) + Tally(float(thumb > 0), 1)
    return Record(pairs, ups)


def record_of_acts(
    rankings: Iterable[Mapping[str, Any]], thumbs: Iterable[Mapping[str, Any]], version: int | None = None
) -> Record:
    """The record from the payloads of live acts, which say by which arm and version each reply was written.

    Replies from elsewhere and edits have no arm and are left out. version: see `Learning.record`.
    """

    def arms(by: Mapping[str, tuple[str, int | None]], names: Iterable[str]) -> list[ArmName]:
        wrote = [by[name] for name in names]
        return [arm for a, v in wrote for arm in ARMS if arm == a and (arm not in ADAPTED or version in (None, v))]

    compared: list[list[list[ArmName]]] = []
    judged: list[tuple[ArmName, int]] = []
    for act in rankings:
        tiers = [arms(act["by"], tier) for tier in act["ranking"]]
        if act["verdict"] == "neither":
            judged += [(arm, -1) for tier in tiers for arm in tier]
        else:
            compared.append(tiers)
    for act in thumbs:
        if act["thumb"]:  # 0 only took an earlier one back
            judged += [(arm, act["thumb"]) for arm in arms(act["by"], act["by"])]
    return record_of(compared, judged)


# ---- what an arm changes ------------------------------------------------------------------------------------------


class Drafted(Protocol):
    """What re-ranking needs of a draft."""

    @property
    def text(self) -> str: ...
    @property
    def ended(self) -> bool: ...
    @property
    def subject(self) -> float: ...


def draft_count(busy: bool, seed_given: bool, greedy: bool) -> int:
    """How many drafts to choose from. Whoever names a seed asks for the same text again, so load must not matter."""
    if greedy:
        return 1  # the most likely text is the same in every draft
    return RERANK_DRAFTS_BUSY if busy and not seed_given else RERANK_DRAFTS


def rank_drafts(
    drafts: Sequence[Drafted],
    taste: Array,
    harm: Array,
    coined: Array,
    subject_floor: float,
    said: Sequence[str] = (),
) -> list[int]:
    """Draft numbers, best first. taste: the head's means, (N,); harm: probabilities of harm, (N,); coined: shares of
    words that do not exist, (N,); said: the replies before in the chat.

    Above taste stands, in this order: no harmful draft while there is a harmless one; no broken one (in mid-sentence,
    off the subject) while there is a sound one; none that repeats itself, or a reply before; none that flatters. Where
    some of the drafts admit a limit, the others pay for their share.
    """

    frank = np.array([admits(draft.text) for draft in drafts])
    worth = taste - HARM_WEIGHT * harm - COINED_WEIGHT * coined - LIMITS_WEIGHT * np.where(frank, 0.0, frank.mean())

    def key(number: int) -> tuple[Fitness, float, int]:
        return fitness(drafts[number], float(harm[number]), subject_floor, said), -float(worth[number]), number

    return sorted(range(len(drafts)), key=key)


def fitness(draft: Drafted, harm: float, subject_floor: float, said: Sequence[str] = ()) -> Fitness:
    """What stands above taste: harmful, broken, repetitive, flattering; the less, the fitter."""
    flaws = find_flaws(draft.text, draft.ended, draft.subject, subject_floor)
    return harm >= HARMFUL, flaws.broken, flaws.repetitive or said_before(draft.text, said), flatters(draft.text)


def said_before(text: str, said: Sequence[str]) -> bool:
    """Whether a draft, or what there is of it yet, is how a reply before began; "Yes." may be right twice."""
    text = text.strip()
    return len(text.split()) >= SAME_WORDS and any(reply.strip().startswith(text) for reply in said)


def choose(order: Sequence[int], drafts: Sequence[Drafted], count: int) -> list[int]:
    """The best `count` drafts with different texts; equal ones fill up only when there are no others."""
    seen: set[str] = set()
    fresh: list[int] = []
    repeated: list[int] = []
    for number in order:
        text = drafts[number].text.strip()
        (repeated if text in seen else fresh).append(number)
        seen.add(text)
    return (fresh + repeated)[:count]


def resampled(order: Sequence[int], drafts: Sequence[Drafted], unfinished: Collection[int]) -> dict[int, int]:
    """Which drafts go on as copies of which others, half way: {draft: whose copy}.

    order: all of them, best first. Of those that are unfinished the best quarter, with different texts, takes the
    places of the others by turns (best-of-n block by block: Mudgal et al. 2024). What is finished stays as it is.
    """
    going = [draft for draft in order if draft in unfinished]
    best = choose(going, drafts, max(1, len(going) // SURVIVORS)) if going else []
    others = [draft for draft in going if draft not in best]
    return {draft: best[place % len(best)] for place, draft in enumerate(others)}


def context_system(
    system: str, profile: Sequence[TraitView], size: Callable[[str], int], budget: int = CONTEXT_TOKENS
) -> str:
    """The system prompt with what is known of the person in words, strongest first, within `budget` tokens.

    size: tokens of a text. Only what is known with confidence is told; unchanged when there is nothing.
    """
    told: list[str] = []
    for trait in sorted(profile, key=lambda view: -abs(view.weight)):
        line = _context_line([*told, trait.preference])
        if trait.known and size(line) <= budget:
            told.append(trait.preference)
    return f"{system} {_context_line(told)}" if told else system


def _context_line(preferences: Sequence[str]) -> str:
    return f"The user prefers {'; '.join(preferences)}."
