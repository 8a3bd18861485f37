"""Requests: from what is asked to replies under way. Which version and arm write, and what is wrong with a request.

The version in use is read once a request, so a reply is never half old and half new, and a version that was promoted
meanwhile is picked up by the next. While it is on trial (probation.py), a request that may ask, or that wants two
replies to compare, is a duel: one reply of the version, one without it, all else the same. Left out on purpose:
conversations (chat.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from jinja2 import TemplateError

from adapters.decoding import Sampling
from adapters.rendering import DEFAULT_SYSTEM, ChatMessage
from assistant.arms import (
    ADAPTED,
    RERANKED,
    check_arm,
    context_system,
    draft_count,
    rival,
    served_arm,
    without_adapter,
)
from assistant.engine import Ask, Engine
from assistant.learning import Learning
from assistant.limits import Limits
from assistant.messages import newest_messages
from assistant.streaming import check_stops
from assistant.turn import About, Judge, Keep, Part, Turn
from feedback.errors import Conflict, InvalidInput
from feedback.store import Store
from feedback.types import AdapterVersion, ArmName, Duel, Reply, User, now

MAX_CHOICES = 4
MAX_TOKENS = 2048  # a reply


@dataclass(frozen=True)
class ChatRequest:
    """What is asked for. version: the active one, a number, or None for the base; seed: None draws one.

    ask: two replies may come instead of one, when a comparison of them would teach something.
    """

    messages: object
    arm: str = "auto"
    version: int | Literal["active"] | None = "active"
    n: int = 1
    max_tokens: int | None = None
    temperature: float = 0.8
    top_p: float = 1.0
    seed: int | None = None
    stop: object = ()
    learn: bool = True
    conversation_id: str | None = None
    ask: bool = False


@dataclass(frozen=True)
class Wish:
    """What one arm is to contribute. version: None for the base."""

    arm: ArmName
    version: AdapterVersion | None
    count: int


class Requests:
    """Everybody's requests."""

    def __init__(self, store: Store, engine: Engine, learning: Learning, limits: Limits, *, max_tokens: int) -> None:
        """max_tokens: of a reply, when a request does not say."""
        self._store, self._engine, self._learning, self._limits = store, engine, learning, limits
        self._max_tokens = max_tokens

    def served(self, user: User) -> tuple[ArmName, int | None]:
        """The arm that `auto` serves now, and its version."""
        version = self._store.versions.active(user.id, self._engine.base_id)
        arm = self._served(user, version)
        return arm, version.number if version and arm in ADAPTED else None

    def start(self, user: User, request: ChatRequest, keep: Keep) -> Turn:
        """Begin to answer. keep: stores the replies.

        Raises InvalidInput, NotFound (a version), Conflict, Busy and OverQuota.
        """
        messages, left_out = newest_messages(request.messages)
        wanted = check_arm(request.arm)
        _check_numbers(request)
        if request.conversation_id is not None:
            self._store.chats.conversation(user.id, request.conversation_id)
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        sampling = Sampling(request.temperature, request.top_p, request.max_tokens or self._max_tokens, seed)
        version = self._version(user, request.version, wanted)
        self._limits.ask(user)
        engine = self._engine
        judge = Judge(
            self._learning.head(user.id),
            engine.population,
            engine.safety,
            engine.latents.subject_floor,
            engine.policy.renderer.pieces,
            [message["content"] for message in messages if message["role"] == "assistant"],
        )
        parts = []
        duel = self._duel(user, request, wanted, version)
        if duel is not None and version is not None:
            keep = self._remembering(user, version.number, keep)
        said = messages[-1]["content"]
        drafts = draft_count(engine.busy > 0, request.seed is not None, request.temperature == 0)  # for all arms alike
        wishes = duel or self._arms(user, request, wanted, version)
        # Several of one arm had better not begin alike, and what they are compared with is chosen as they are.
        single = all(wish.count == 1 for wish in wishes if wish.arm in RERANKED)
        try:
            for place, wish in enumerate(wishes):
                arm, count = wish.arm, wish.count
                if request.ask and arm not in RERANKED and not duel:
                    count = 2  # of re-ranked ones another draft is the second
                ask = Ask(
                    self._told(user, messages) if arm == "context" else messages,
                    wish.version,
                    max(drafts, count) if arm in RERANKED else count,
                    replace(sampling, seed=(seed + place * 7919) % 2**63),
                    check_stops(request.stop),
                    user.id,
                    arm not in RERANKED,
                    partial(judge.going_on, prompt=said, count=count, ask=request.ask and not duel)
                    if arm in RERANKED
                    else None,
                    partial(judge.resampled, prompt=said) if arm in RERANKED and single else None,
                )
                number = wish.version.number if wish.version else None
                parts.append(Part(arm, number, count, engine.write(ask)))
        except Exception as error:
            for part in parts:
                part.writing.stop()
            if isinstance(error, TemplateError):
                raise InvalidInput(f"The base model's chat template refuses these turns: {error}.") from error
            raise
        about = About(user, messages, engine.base_id, request.conversation_id, request.learn, left_out)
        return Turn(about, parts, judge, keep, shuffle=seed, ask=request.ask)

    def _version(
        self, user: User, wanted: int | Literal["active"] | None, arm: ArmName | None
    ) -> AdapterVersion | None:
        """The adapter a request may use. Raises InvalidInput for a version and an arm that contradict each other."""
        if wanted == "active":
            active = self._store.versions.active(user.id, self._engine.base_id)
            if active is None and arm in ADAPTED:
                raise Conflict(f"The arm {arm} needs an active version, and you have none yet; update first.")
            return active
        if wanted is None:
            if arm in ADAPTED:
                raise InvalidInput(
                    f"The model is the base, but the arm {arm} needs a version; leave one out.", param="mynah.arm"
                )
            return None
        if arm is not None and arm not in ADAPTED:
            raise InvalidInput(
                f"The model names v{wanted}, but the arm {arm} uses no version; leave one out.", param="mynah.arm"
            )
        version = self._store.versions.version(user.id, wanted)
        if why := version.unusable(self._engine.base_id):
            raise Conflict(why)
        return version

    def _arms(
        self, user: User, request: ChatRequest, wanted: ArmName | None, version: AdapterVersion | None
    ) -> list[Wish]:
        """What takes part. With `auto`, choices to compare also come from the next arm down."""

        def wish(arm: ArmName, count: int) -> Wish:
            return Wish(arm, version if arm in ADAPTED else None, count)

        if wanted is not None:
            return [wish(wanted, request.n)]
        if request.version is None:
            return [wish("base", request.n)]
        learned = self._learning.has_learned(user)
        if request.version != "active":
            return [wish("adapter+rerank" if learned else "adapter", request.n)]
        served = self._served(user, version)
        other = rival(served, learned, version is not None) if request.n > 1 else None
        return [wish(served, request.n)] if other is None else [wish(served, request.n - 1), wish(other, 1)]

    def _duel(
        self, user: User, request: ChatRequest, wanted: ArmName | None, version: AdapterVersion | None
    ) -> list[Wish] | None:
        """The version on trial and what was served before it, when they are to stand side by side."""
        if wanted is not None or request.version != "active" or version is None or version.status != "probation":
            return None
        served = self._served(user, version)
        if served not in ADAPTED or not request.learn or not (request.ask or request.n == 2):
            return None
        before = self._store.versions.trusted(user.id, self._engine.base_id)
        return [Wish(served, version, 1), Wish(served if before else without_adapter(served), before, 1)]

    def _remembering(self, user: User, number: int, keep: Keep) -> Keep:
        """Keep the replies of a duel, and that they were one."""

        def remember(replies: Sequence[Reply], asked: bool) -> None:
            with self._store.database.transaction():
                keep(replies, asked)
                if len(replies) == 2:
                    mine, other = sorted(replies, key=lambda reply: reply.version != number)
                    self._store.trials.add_duel(user.id, Duel(number, mine.id, other.id, now()))

        return remember

    def _served(self, user: User, version: AdapterVersion | None) -> ArmName:
        record = self._learning.record(user, version.number if version else None)
        return served_arm(self._learning.has_learned(user), version is not None, record)

    def _told(self, user: User, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The conversation with what is known of the person's taste in its system prompt."""
        system, rest = DEFAULT_SYSTEM, list(messages)
        if rest[0]["role"] == "system":
            system = rest.pop(0)["content"]
        told = context_system(system, self._learning.profile(user), self._engine.token_count)
        return [{"role": "system", "content": told}, *rest]


def _check_numbers(request: ChatRequest) -> None:
    """What Sampling does not check itself."""
    if isinstance(request.n, bool) or not isinstance(request.n, int) or not 1 <= request.n <= MAX_CHOICES:
        raise InvalidInput(f"n is {request.n}; it can be 1 to {MAX_CHOICES}.", param="n")
    assert not request.ask or request.n == 1, "what is compared anyway needs no asking"
    if request.max_tokens is not None and not 1 <= request.max_tokens <= MAX_TOKENS:
        raise InvalidInput(f"max_tokens is {request.max_tokens}; it can be 1 to {MAX_TOKENS}.", param="max_tokens")
    if request.seed is not None and not 0 <= request.seed < 2**63:
        raise InvalidInput(f"seed is {request.seed}; it can be 0 to 2**63 - 1.", param="seed")
