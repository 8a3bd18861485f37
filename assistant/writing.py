"""One request to the engine: what is asked, what comes of it, and the steps in between.

A `Writing` is made by `Engine.write` and lives in two threads: the engine's calls `turn` for every token, the caller's
reads `pieces` and `result`. Left out on purpose: which request has its turn (turns.py).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from adapters.decoding import Sampling
from adapters.latents import SUBJECT_TOKENS, mean_of
from adapters.rendering import ChatMessage, Rendered
from assistant.messages import group_of
from assistant.streaming import TextStream
from feedback.types import AdapterVersion, Reply, new_id, now

if TYPE_CHECKING:
    from assistant.drafts import Drafts
    from assistant.engine import Engine

Array = NDArray[np.float64]

# Tokens after which drafts are told apart: as many as re-ranking is measured on (benchmarks/personalize.py).
NARROW_AT = 64
RESAMPLE_AT = 32  # tokens after which the best beginnings take the place of the others


@dataclass(frozen=True)
class Ask:
    """What to write. adapter: None for the base; stream: show text as it comes, else only the result counts.

    narrow: given all drafts as they are after NARROW_AT tokens, the places of those to go on with; the others are not
    part of the result. What a single one that is left says is shown as it comes. resample: given them after RESAMPLE_AT
    tokens and the places of the unfinished ones, which go on as copies of which others.
    """

    messages: Sequence[ChatMessage]
    adapter: AdapterVersion | None
    copies: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    user_id: str = ""
    stream: bool = True
    narrow: Callable[[Sequence[Draft]], Sequence[int]] | None = None
    resample: Callable[[Sequence[Draft], Collection[int]], Mapping[int, int]] | None = None


@dataclass(frozen=True)
class Draft:
    """One reply. ids hold the end token, and the tokens of a stop string that the text no longer shows.

    ended: the model ended it by itself; finish "stop": that, a stop string, a loop; "length": the limit or by hand.
    latent: (K,) features; subject: see `Latents`.
    """

    text: str
    ids: list[int]
    ended: bool
    finish: Literal["stop", "length"]
    latent: Array
    subject: float

    def as_reply(
        self,
        user_id: str,
        messages: Sequence[ChatMessage],
        base_id: str,
        *,
        source: Literal["chat", "import", "edit"],
        reply_id: str = "",
        conversation_id: str | None = None,
        arm: str = "",
        version: int | None = None,
        sampling: dict[str, Any] | None = None,
        seed: int = 0,
        learn: bool = True,
    ) -> Reply:
        """The draft as the store keeps it; replies to the same messages share a group."""
        return Reply(
            id=reply_id or new_id("r"),
            user_id=user_id,
            conversation_id=conversation_id,
            group_id=group_of(messages),
            prompt=[{"role": message["role"], "content": message["content"]} for message in messages],
            text=self.text,
            arm=arm,
            version=version,
            base_id=base_id,
            sampling=sampling or {},
            seed=seed,
            token_ids=np.asarray(self.ids, dtype="<u4").tobytes(),
            ended=self.ended,
            learn=learn,
            source=source,
            latent=np.ascontiguousarray(self.latent, dtype=np.float64).tobytes(),
            created_at=now(),
        )


@dataclass(frozen=True)
class Written:
    """All drafts of one request. dropped: oldest turns that did not fit the context."""

    drafts: list[Draft]
    prompt_tokens: int
    dropped: int


class Task:
    """A job in the queue, and the promise of its outcome."""

    def __init__(self, user_id: str, positions: int) -> None:
        self.user_id, self.positions = user_id, positions
        self.started = time.monotonic()
        self.rouse: Callable[[], None] = lambda: None  # tells the engine's thread that there is something to do
        self._stop = threading.Event()
        self._over = threading.Event()
        self._written: Written | None = None
        self._error: Exception | None = None

    @property
    def stopped(self) -> bool:
        """Whether somebody asked for an end."""
        return self._stop.is_set()

    @property
    def rows(self) -> int:
        """Rows of a step that it can take with others; 0 when its next turn is its own."""
        return 0

    @property
    def ready(self) -> bool:
        """Whether a turn would find something to do."""
        return True

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._over.is_set()

    @property
    def failed(self) -> bool:
        """Whether the outcome is an error."""
        return self._error is not None

    def stop(self) -> None:
        """End within a token; the result holds what was written so far."""
        self._stop.set()
        self.rouse()

    def wait(self, timeout: float) -> bool:
        """Wait for the outcome, at most so many seconds; whether it is known now."""
        return self._over.wait(timeout)

    def result(self, timeout: float | None = None) -> Written:
        """Wait for the outcome; raises what went wrong, TimeoutError when it takes longer."""
        if not self._over.wait(timeout):
            raise TimeoutError(f"not written within {timeout} s")
        if self._error is not None:
            raise self._error
        assert self._written is not None
        return self._written

    def turn(self, engine: Engine) -> Written | None:
        """One step, on the engine's thread; the outcome when it was the last."""
        raise NotImplementedError

    def settle(self, outcome: Written | Exception) -> None:
        """Make the outcome known."""
        if isinstance(outcome, Exception):
            self._error = outcome
        else:
            self._written = outcome
        self._over.set()


class Writing(Task):
    """Replies under way."""

    def __init__(self, ask: Ask, prompt: Rendered) -> None:
        super().__init__(ask.user_id, ask.copies * (len(prompt.ids) + ask.sampling.max_tokens))
        self.ask, self.prompt = ask, prompt
        self._pieces: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        question = str(ask.messages[-1]["content"]) if ask.messages else ""
        self._streams = [TextStream(ask.stop, question) for _ in range(ask.copies)]
        self._drafting: Drafts | None = None
        self._resampled = False
        self._kept: list[int] | None = None  # after narrowing
        self._alone: int | None = None  # the one draft that is left, once its text is shown

    @property
    def tokens(self) -> int:
        """Tokens of the longest draft so far."""
        return max(map(len, self._drafting.replies)) if self._drafting else 0

    @property
    def begun(self) -> bool:
        """Whether a token was written."""
        return self._drafting is not None and bool(self._drafting.replies[0])

    @property
    def rows(self) -> int:
        """Drafts that only need their next token."""
        return 0 if self.stopped or self._drafting is None else self._drafting.rows

    @property
    def ready(self) -> bool:
        """Whether a turn would find something to do."""
        return self.stopped or self._drafting is None or self._drafting.ready

    @property
    def drafting(self) -> Drafts:
        """The drafts, once they are under way."""
        assert self._drafting is not None, "not under way yet"
        return self._drafting

    def pieces(self, patience: float | None = None) -> Iterator[tuple[int, str]]:
        """(draft, new text) as it is written; raises at the end what `result` raises. For one reader only.

        patience: after so many seconds without news an empty text comes, so that the reader can look around.
        """
        while True:
            try:
                piece = self._pieces.get(timeout=patience)
            except queue.Empty:
                yield 0, ""
                continue
            if piece is None:
                break
            yield piece
        self.result()

    def turn(self, engine: Engine) -> Written | None:
        """One more token for every draft that is not finished."""
        if self.stopped:
            return self._outcome(engine)
        if self._drafting is None:
            self._drafting = engine.begin(self.ask, self.prompt)
        written = self._drafting.step(engine.policy)
        return self.took(engine, written) if written or self._drafting.done else None

    def took(self, engine: Engine, written: dict[int, int]) -> Written | None:
        """Go on from a step that was taken, its tokens by draft; the outcome when it was the last."""
        engine.tokens_written += len(written)
        if self.ask.stream or self.ask.stop or self._kept is not None:
            self._show(engine, written)
        if self.ask.resample is not None and not self._resampled and self.tokens >= RESAMPLE_AT:
            self._resampled = True
            self._resample(engine, self.ask.resample)
        if self.ask.narrow is not None and self._kept is None and self.tokens >= NARROW_AT:
            self._narrow(engine, self.ask.narrow)
        return self._outcome(engine) if self.drafting.done else None

    def settle(self, outcome: Written | Exception) -> None:
        """Make the outcome known, to whoever reads pieces too."""
        super().settle(outcome)
        self._pieces.put(None)

    def leave(self) -> None:
        """Give back what is held, whatever happened."""
        if self._drafting is not None:
            self._drafting.close()

    def _show(self, engine: Engine, rows: dict[int, int]) -> None:
        for row in rows:
            self._push(engine, row, final=False)
        self.drafting.drop([row for row in rows if self._streams[row].cut], engine.policy.device)

    def _push(self, engine: Engine, row: int, *, final: bool) -> None:
        text = self._streams[row].push(engine.text(self.drafting.replies[row]), final=final)
        if text and self.ask.stream:
            self._pieces.put((row, text))
        elif text and row == self._alone:
            self._pieces.put((0, text))

    def _resample(
        self, engine: Engine, resample: Callable[[Sequence[Draft], Collection[int]], Mapping[int, int]]
    ) -> None:
        """Let the best beginnings take the place of the others."""
        drafts, device = self._drafts(engine, final=False), engine.policy.device
        self.drafting.drop([row for row, stream in enumerate(self._streams) if stream.cut], device)
        if not (parents := resample(drafts, self.drafting.unfinished)):
            return
        self._streams = [copy(self._streams[parents.get(row, row)]) for row in range(self.ask.copies)]
        self.drafting.resample(parents, device)

    def _narrow(self, engine: Engine, narrow: Callable[[Sequence[Draft]], Sequence[int]]) -> None:
        """Go on with the chosen drafts only."""
        self._kept = list(narrow(self._drafts(engine, final=False)))
        self.drafting.drop(set(range(self.ask.copies)) - set(self._kept), engine.policy.device)
        if len(self._kept) == 1:
            (self._alone,) = self._kept
            shown = self._streams[self._alone].shown
            if shown:
                self._pieces.put((0, shown))

    def _outcome(self, engine: Engine) -> Written:
        if not self.begun:  # stopped before the first token
            latent = np.zeros(len(engine.latents.directions))
            drafts = [Draft("", [], False, "length", latent, 0.0) for _ in range(self.ask.copies)]
            return Written(drafts, len(self.prompt.ids), self.prompt.dropped)
        if self.ask.narrow is not None and self._kept is None:  # all ended early, or were stopped
            self._narrow(engine, self.ask.narrow)
        drafts = self._drafts(engine, final=True)
        if self._kept is not None:
            drafts = [drafts[row] for row in self._kept]
        return Written(drafts, len(self.prompt.ids), self.prompt.dropped)

    def _drafts(self, engine: Engine, *, final: bool) -> list[Draft]:
        """All drafts as they are now."""
        drafting = self.drafting
        means = drafting.trunk_means().double().cpu().numpy()
        prompt_mean = drafting.prompt_means(SUBJECT_TOKENS)[0].double().cpu().numpy()
        latents, subjects = engine.latents.features(means), engine.latents.subject(prompt_mean, means)
        drafts = []
        for row, ids in enumerate(drafting.replies):
            self._push(engine, row, final=final or drafting.ended[row])
            stream, ended = self._streams[row], drafting.ended[row]
            finish: Literal["stop", "length"] = "stop" if ended or stream.cut else "length"
            drafts.append(Draft(stream.shown, list(ids), ended, finish, latents[row], float(subjects[row])))
        return drafts


class Reading(Task):
    """Features of texts that were not written here, one text a turn."""

    def __init__(self, user_id: str, prompt: Rendered, texts: Sequence[str], replies: Sequence[list[int]]) -> None:
        super().__init__(user_id, len(prompt.ids) + max(map(len, replies)))
        self.prompt, self.texts, self.replies = prompt, texts, replies
        self._drafts: list[Draft] = []

    def turn(self, engine: Engine) -> Written | None:
        """Read one more text."""
        place = len(self._drafts)
        ids = self.replies[place]
        group = engine.policy.read(self.prompt.ids, [ids], [True])
        means = mean_of(group.trunks)
        prompt_mean = group.prompt_trunk[-SUBJECT_TOKENS:].double().mean(0).cpu().numpy()
        latent = engine.latents.features(means)[0]
        subject = float(engine.latents.subject(prompt_mean, means)[0])
        self._drafts.append(Draft(self.texts[place], ids, True, "stop", latent, subject))
        over = self.stopped or len(self._drafts) == len(self.texts)
        return Written(self._drafts, len(self.prompt.ids), self.prompt.dropped) if over else None
