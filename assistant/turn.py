"""One request being answered: what can be read at once, and the replies that are kept in the end.

A turn has one part for every arm that takes part, mostly one. An arm that chooses among drafts has nothing to show
before it has told them apart by their beginnings; the others stream from the first word. When several arms take part
nothing is shown before all are done, so that the timing does not tell which is which. A turn that may ask comes with
two replies instead of one, when a comparison of them would teach the person's head something (feedback/pairing.py); or,
while a version is on trial, with that version's reply and one without it (probation.py).
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adapters.rendering import ChatMessage
from adapters.safety import HARMFUL, SafetyTerm
from adapters.wellformed import coined_share
from assistant.arms import RERANKED, choose, fitness, rank_drafts, resampled
from assistant.writing import NARROW_AT, RESAMPLE_AT, Draft, Writing
from feedback.errors import MynahError
from feedback.pairing import LEAST_BITS, most_telling
from feedback.population import Population
from feedback.reward_head import RewardHead
from feedback.types import ArmName, Reply, User, new_id

Keep = Callable[[Sequence[Reply], bool], None]  # stores finished replies; the flag: they are to be compared

log = logging.getLogger(__name__)

PATIENCE = 0.5  # seconds between signs of life while nothing can be shown


@dataclass(frozen=True)
class Judge:
    """What drafts are chosen by: the person's head as it was when they asked, and what stands above taste."""

    head: RewardHead
    population: Population
    safety: SafetyTerm
    subject_floor: float
    pieces: Callable[[str], int]  # how many tokens a word takes (adapters/rendering.py)
    said: Sequence[str] = ()  # the replies before in the chat

    def best(self, drafts: Sequence[Draft], prompt: str, count: int) -> list[Draft]:
        """The best `count` of the drafts, best first. prompt: the person's last message."""
        return [drafts[place] for place in choose(self.order(drafts, prompt), drafts, count)]

    def order(self, drafts: Sequence[Draft], prompt: str) -> list[int]:
        """Places of all drafts, best first."""
        taste, _ = self.head.score(self._features(drafts))
        coined = np.array([coined_share(draft.text, self.pieces) for draft in drafts])
        return rank_drafts(drafts, taste, self._harm(drafts, prompt), coined, self.subject_floor, self.said)

    def resampled(self, drafts: Sequence[Draft], unfinished: Collection[int], prompt: str) -> dict[int, int]:
        """Which drafts go on as copies of which others, half way."""
        return resampled(self.order(drafts, prompt), drafts, unfinished)

    def going_on(self, drafts: Sequence[Draft], prompt: str, count: int, ask: bool) -> list[int]:
        """Places of the best `count` of drafts that are still being written; with `ask`, also of the one whose
        comparison with the best would teach enough."""
        chosen = self.best(drafts, prompt, count)
        rival = self.worth_asking(chosen[0], drafts, prompt) if ask else None
        wanted = [*chosen, rival] if rival is not None and rival not in chosen else chosen
        return [next(place for place, draft in enumerate(drafts) if draft is each) for each in wanted]

    def worth_asking(self, first: Draft, drafts: Sequence[Draft], prompt: str) -> Draft | None:
        """The draft whose comparison with `first` would teach most, None when no answer would teach enough.

        Only drafts that are no worse than `first` in what stands above taste come into question, and that begin with
        other words: those that went on from the same beginning differ too little to be worth reading twice.
        """
        harm = self._harm(drafts, prompt)
        fits = [fitness(d, float(harm[place]), self.subject_floor, self.said) for place, d in enumerate(drafts)]
        mine = next(place for place, draft in enumerate(drafts) if draft is first)
        others = [
            place
            for place, draft in enumerate(drafts)
            if fits[place] <= fits[mine]
            and draft.text.strip() not in ("", first.text.strip())
            and draft.ids[:RESAMPLE_AT] != first.ids[:RESAMPLE_AT]
        ]
        found = most_telling(self.head, self._features(drafts), mine, others) if first.text.strip() else None
        return drafts[found[0]] if found and found[1] >= LEAST_BITS else None

    def may_differ(self, one: Draft, other: Draft, prompt: str) -> bool:
        """Whether two replies can be shown for a choice: both say something, not the same, and neither is harmful."""
        texts = {one.text.strip(), other.text.strip()}
        return len(texts) == 2 and "" not in texts and not (self._harm([one, other], prompt) >= HARMFUL).any()

    def _features(self, drafts: Sequence[Draft]) -> NDArray[np.float64]:
        return self.population.features([d.text for d in drafts], np.stack([d.latent for d in drafts]))

    def _harm(self, drafts: Sequence[Draft], prompt: str) -> NDArray[np.float64]:
        return self.safety.harm([d.text for d in drafts], [prompt] * len(drafts))


@dataclass(frozen=True)
class Part:
    """What one arm contributes: `count` replies out of a writing's drafts."""

    arm: ArmName
    version: int | None
    count: int
    writing: Writing


@dataclass(frozen=True)
class About:
    """What all replies of a turn have in common. left_out: oldest turns of the conversation that `messages` lacks."""

    user: User
    messages: Sequence[ChatMessage]
    base_id: str
    conversation_id: str | None
    learn: bool
    left_out: int = 0


class Turn:
    """Replies under way. Known at once: arm, version, reply_ids, dropped."""

    def __init__(
        self, about: About, parts: Sequence[Part], judge: Judge, keep: Keep, shuffle: int, ask: bool = False
    ) -> None:
        """keep: stores the finished replies, once. shuffle: seed of the order in which choices are shown.

        ask: a second reply may come with the first, out of the one part, or from the second one of a trial.
        """
        self.about, self.parts = about, parts
        self._judge, self._keep = judge, keep
        self.arm, self.version = parts[0].arm, parts[0].version
        self._duel = ask and len(parts) == 2
        count = 1 if self._duel else sum(part.count for part in parts)  # nothing tells of the other before it is there
        self.reply_ids = [new_id("r") for _ in range(count)]
        self.dropped = about.left_out + max(part.writing.prompt.dropped for part in parts)
        self.streams = len(parts) == 1 and self.arm not in RERANKED
        self._single = count == 1 and not ask  # one draft is left early on, and is shown from then on
        self.asked = False  # after `replies`: whether they are to be compared, because that would teach something
        self.may_ask = ask
        as_it_is = self.streams or ask
        self._order = list(range(count)) if as_it_is else np.random.default_rng(shuffle).permutation(count).tolist()
        self._lock = threading.Lock()
        self._replies: list[Reply] | None = None

    @property
    def done(self) -> bool:
        """Whether all is written (not yet: kept)."""
        return all(part.writing.done for part in self.parts)

    @property
    def kept(self) -> bool:
        """Whether the replies are in the store."""
        return self._replies is not None

    @property
    def failed(self) -> bool:
        """Whether the writing has ended in an error, so that there will be nothing to keep. What may come as a second
        reply to compare with does not count: the first comes without it."""
        needed = self.parts[:1] if self.may_ask else self.parts
        return self.done and any(part.writing.failed for part in needed)

    @property
    def progress(self) -> float:
        """Share of what may be written before something can be shown, 0 to 1."""
        if self.done:
            return 1.0
        most = NARROW_AT if self._single else 2**31
        shares = (part.writing.tokens / min(part.writing.ask.sampling.max_tokens, most) for part in self.parts)
        return min([1.0, *shares])

    @property
    def finish(self) -> list[Literal["stop", "length"]]:
        """Why each reply ended; after `replies`."""
        return [reply.sampling["finish"] for reply in self.replies()]

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of the prompt and of the replies shown, drafts not counted; after `replies`."""
        prompt = self.parts[0].writing.result().prompt_tokens
        written = sum(len(reply.token_ids) // 4 for reply in self.replies())
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def stop(self) -> None:
        """End within a token; what was written so far is the reply."""
        for part in self.parts:
            part.writing.stop()

    def pieces(self) -> Iterator[tuple[int, str]]:
        """(choice, new text). An empty text is a sign of life while nothing can be shown.

        The replies are kept before this ends. A reader that goes away ends the writing. Raises what went
        wrong with the writing, or with keeping it.
        """
        try:
            if self.streams or self._single:
                yield from self.parts[0].writing.pieces(PATIENCE)
                self.replies()
                return
            while not self.done:
                for part in self.parts:
                    if not part.writing.wait(PATIENCE):
                        yield 0, ""
            for choice, reply in enumerate(self.replies()):
                for word in re.findall(r"\s*\S+\s*$|\s*\S+|\s+", reply.text):
                    yield choice, word
        except GeneratorExit:
            self.stop()
            with contextlib.suppress(MynahError):
                self.replies()
            raise

    def replies(self) -> list[Reply]:
        """Wait for the replies, keep them (once) and return them, as many as were asked for."""
        try:
            results = [part.writing.result() for part in self._needed()]
        except Exception:
            self.stop()  # one part failed: nobody waits for the others
            raise
        with self._lock:
            if self._replies is None:
                made = [
                    (part, draft)
                    for part, result in zip(self.parts, results, strict=False)
                    for draft in self._chosen(part, result.drafts)
                ]
                if self.may_ask:
                    made = self._compared(made, results[0].drafts)
                    self.reply_ids = [*self.reply_ids, new_id("r")][: len(made)]
                    self._order = list(range(len(made)))
                replies = [
                    self._reply(name, *made[place]) for name, place in zip(self.reply_ids, self._order, strict=True)
                ]
                self._keep(replies, self.asked)
                self._replies = replies
            return self._replies

    def _needed(self) -> Sequence[Part]:
        """The parts without which there is no turn: if what is only to be compared with cannot be written, the reply
        that the person waits for comes alone."""
        if self._duel:
            try:
                self.parts[1].writing.result()
            except MynahError:
                return self.parts[:1]
            except Exception:
                log.exception("What a reply was to be compared with met a defect")
                return self.parts[:1]
        return self.parts

    def _compared(self, made: list[tuple[Part, Draft]], drafts: Sequence[Draft]) -> list[tuple[Part, Draft]]:
        """What was made, with the draft that it is worth comparing with, if one is."""
        (part, first), *others = made
        if part.writing.stopped:  # nobody who wants it to end wants to be asked
            return made[:1] if self._duel else made
        if self._duel:
            self.asked = bool(others) and self._judge.may_differ(
                first, others[0][1], self.about.messages[-1]["content"]
            )
            return made if self.asked else made[:1]
        rival = self._judge.worth_asking(first, drafts, self.about.messages[-1]["content"])
        self.asked = rival is not None
        return [(part, first), (part, rival)] if rival is not None and len(made) == 1 else made

    def _chosen(self, part: Part, drafts: Sequence[Draft]) -> Sequence[Draft]:
        if part.arm not in RERANKED:
            return drafts
        return self._judge.best(drafts, self.about.messages[-1]["content"], part.count)

    def _reply(self, reply_id: str, part: Part, draft: Draft) -> Reply:
        ask = part.writing.ask
        sampling: dict[str, Any] = {
            "temperature": ask.sampling.temperature,
            "top_p": ask.sampling.top_p,
            "max_tokens": ask.sampling.max_tokens,
            "stop": list(ask.stop),
            "drafts": ask.copies,
            "finish": draft.finish,
        }
        return draft.as_reply(
            self.about.user.id,
            self.about.messages,
            self.about.base_id,
            source="chat",
            reply_id=reply_id,
            conversation_id=self.about.conversation_id,
            arm=part.arm,
            version=part.version,
            sampling=sampling,
            seed=ask.sampling.seed,
            learn=self.about.learn,
        )
