"""The engine: one thread that owns the policy and writes for everybody, one token a turn.

    engine = Engine(files, versions)         # loads the base, under a second
    engine.start()
    writing = engine.write(Ask(messages, adapter, copies=1, sampling=Sampling(), user_id=user.id))
    for draft, text in writing.pieces(): ...
    written = writing.result()

Callers from any thread get a `Writing` at once and read from it as it goes. Replies of a few drafts take their steps
together, each with its own adapter, as far as that changes none of them (adapters/lean.py): the same request gives the
same text whatever else is being written, to the last bit where the fused 4-bit kernel runs. Others, and prompts, are
batches of their own. One thread takes all steps, and each names its adapter, so people cannot mix. What goes wrong in
one request ends that request only; a step that fails ends those who took it.

With a model server (vllm.py) that server finds the tokens, and everything else stays as it is: prompts and texts, whose
turn it is, telling drafts apart, and what the reward head looks at, which the base here reads.

Left out on purpose: larger joint batches (`Policy.together`). Decoding from a quantized base is not batch-invariant
there, so texts would depend on who else is there, and two cores gain little more.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch

from adapters.base_model import BaseFiles
from adapters.decoding import Generation, step_together
from adapters.latents import Latents, kept_latents, latents_for
from adapters.memory import give_back
from adapters.policy import Policy
from adapters.rendering import ChatMessage, Rendered
from adapters.safety import SafetyTerm
from adapters.versions import VersionFiles
from assistant.cores import Cores, own_seconds
from assistant.drafts import Drafts, LocalDrafts
from assistant.prefixes import Prefixes
from assistant.shelf import Shelf
from assistant.turns import Turns
from assistant.vllm import ModelServer
from assistant.vllm_drafts import RemoteDrafts
from assistant.writing import Ask, Draft, Reading, Task, Writing, Written
from feedback.errors import Busy
from feedback.population import Population, load_population

ROOM = 32_768  # cache positions written at once; 0.75 GB on the embedded base
SHARE = ROOM // 4  # of it for one person, where a server writes for all at once
REST_SECONDS = 5.0  # without work, before memory is given back
READ_TOKENS = 1024  # of a text that was not written here; what follows does not change its features much

log = logging.getLogger("mynah.engine")

__all__ = ["Ask", "Draft", "Engine", "Writing", "Written"]


class Engine:
    """Owns the policy; everything that needs the model goes through here."""

    def __init__(
        self,
        files: BaseFiles,
        versions: VersionFiles,
        *,
        max_waiting: int = 64,
        policy: Policy | None = None,
        server_url: str | None = None,
        latents_dir: Path | None = None,
    ) -> None:
        """Load the base and what belongs to it. server_url: of a vLLM server that writes instead of the policy here.
        latents_dir: where the directions of the latent features are kept with what was learned along them.

        Raises BaseModelError or CorruptFile.
        """
        self.files, self.base_id, self.versions = files, files.base_id, versions
        self.policy = policy or Policy.load(files)
        self.renderer = self.policy.renderer
        self.latents: Latents = (
            kept_latents(latents_dir, files, self.policy) if latents_dir else latents_for(files, self.policy)
        )
        self.population: Population = load_population(len(self.latents.directions))
        self.safety = SafetyTerm.load("term")
        self.shelf = Shelf(self.policy, versions)
        self.prefixes = Prefixes()
        self.tokens_written = 0
        self.server = ModelServer(server_url, files, versions, self.policy) if server_url else None
        self._turns: Turns[Task] = Turns(ROOM, max_waiting, SHARE if self.server else None)
        self._errands: list[Callable[[], None]] = []
        self._wake = threading.Condition()
        self._tokenizer = threading.Lock()  # its Rust half refuses, or mixes up, two callers at once
        self._thread: threading.Thread | None = None
        self._leaving = self._closing = False
        self._last_work = time.monotonic()
        self._usual_seconds = 2.0

    # ---- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        assert self._thread is None, "started already"
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def leave_off(self) -> None:
        """Take nothing new. Replies under way end within a token and can be kept as far as they came; what has not
        begun, and what only reads texts, fails with Busy. Waits for nobody; may be called again."""

        def errand() -> None:
            for task in self._turns.all():
                if isinstance(task, Writing) and task.begun:
                    task.stop()
                else:
                    self._end(task, _leaving())

        with self._wake:
            self._leaving = True
            self._errands.append(errand)
            self._wake.notify_all()

    def close(self) -> None:
        """End the thread; what was under way fails with Busy."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self.server is not None:
            self.server.close()

    # ---- what callers ask for ---------------------------------------------------------------------------------------

    def write(self, ask: Ask) -> Writing:
        """Queue a request.

        Raises InvalidInput when it does not fit the context, Busy when the queue is full, and ModelServerError while
        the server that would write does not answer.
        """
        if self.server is not None:
            self.server.require()
        writing = Writing(ask, self.render(ask.messages))
        self._join(writing)
        return writing

    def begin(self, ask: Ask, prompt: Rendered) -> Drafts:
        """The drafts of a request, about to be written; on the engine's thread. Raises CorruptFile."""
        if self.server is None:
            return LocalDrafts(self.policy, self.shelf, self.prefixes, ask, prompt)
        return RemoteDrafts(self.server, self.policy, self.prefixes, ask, prompt, self._rouse)

    def read(self, messages: Sequence[ChatMessage], texts: Sequence[str], *, user_id: str = "") -> list[Draft]:
        """Features of texts as replies to a conversation; waits for its turn. Raises InvalidInput and Busy."""
        if not texts:
            return []
        prompt = self.render(messages)
        with self._tokenizer:
            replies = [self.renderer.reply_ids(text[: READ_TOKENS * 16])[:READ_TOKENS] for text in texts]
        reading = Reading(user_id, prompt, texts, replies)
        self._join(reading)
        return reading.result().drafts

    def render(self, messages: Sequence[ChatMessage]) -> Rendered:
        """Prompt tokens of a conversation, from any thread."""
        with self._tokenizer:
            return self.renderer.prompt(messages)

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as a person reads them, from any thread."""
        with self._tokenizer:
            return self.renderer.text(ids)

    def token_count(self, text: str) -> int:
        """Tokens of a plain text, from any thread."""
        with self._tokenizer:
            return len(self.renderer.reply_ids(text, ended=False))

    def forget(self, user_id: str) -> None:
        """Stop what is being written for a person and drop their adapters and what was read, before this returns."""
        done = threading.Event()

        def errand() -> None:
            self.shelf.forget(user_id)
            self.prefixes.forget(user_id)
            done.set()

        with self._wake:
            for task in self._turns.all():
                if task.user_id == user_id:
                    task.stop()
            alive = self._thread is not None and not self._closing
            if alive:
                self._errands.append(errand)
                self._wake.notify_all()
        if alive:
            done.wait(timeout=30)
        else:
            errand()
        if self.server is not None:
            self.server.forget(user_id)

    @property
    def busy(self) -> int:
        """Requests under way or waiting."""
        with self._wake:
            return len(self._turns)

    @property
    def waiting(self) -> int:
        """Requests that wait for room."""
        with self._wake:
            return len(self._turns.waiting)

    @property
    def idle_seconds(self) -> float:
        """How long nobody has wanted anything, 0 while somebody does."""
        with self._wake:
            return 0.0 if len(self._turns) else time.monotonic() - self._last_work

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _join(self, task: Task) -> None:
        with self._wake:
            if self._closing or self._leaving:
                raise _leaving()
            self._turns.join(task, retry_after=math.ceil(self._usual_seconds))
            task.rouse = self._rouse
            self._wake.notify_all()

    def _rouse(self) -> None:
        """There is something to do."""
        with self._wake:
            self._wake.notify_all()

    def _run(self) -> None:
        threads = torch.get_num_threads()
        cores = Cores(threads, own_seconds)
        rested = False
        while True:
            tasks: list[Task] = []
            with self._wake:
                while not (self._closing or self._errands or (tasks := self._turns.round(self.policy.together))):
                    if not self._wake.wait(None if rested else REST_SECONDS):
                        break
                if self._closing:
                    break
                errands, self._errands = self._errands, []
            rested = not tasks and not errands
            if rested:
                give_back()
            for errand in errands:
                errand()
            if tasks and threads > 1:
                torch.set_num_threads(cores.free())
            self._step(tasks)
        for task in self._turns.all():
            self._end(task, _leaving())

    def _step(self, tasks: Sequence[Task]) -> None:
        """One turn of one task, or one that several replies take together."""
        if len(tasks) <= 1:
            for task in tasks:
                self._turn(task, partial(task.turn, self))
            return
        writings = [task for task in tasks if isinstance(task, Writing)]  # only they have rows, written here
        try:
            taken = step_together([cast(Generation, writing.drafting) for writing in writings], self.policy)
        except Exception as error:
            for task in writings:
                self._failed(task, error)
            return
        for writing, written in zip(writings, taken, strict=True):
            self._turn(writing, partial(writing.took, self, written))

    def _turn(self, task: Task, take: Callable[[], Written | None]) -> None:
        """What a task raises is its own."""
        try:
            outcome = take()
        except Exception as error:
            self._failed(task, error)
            return
        if outcome is not None:
            self._end(task, outcome)

    def _failed(self, task: Task, error: Exception) -> None:
        log.warning("a request failed: %s: %s", type(error).__name__, error)
        self._end(task, error)

    def _end(self, task: Task, outcome: Written | Exception) -> None:
        if isinstance(task, Writing):
            task.leave()
        with self._wake:
            self._turns.leave(task)
            self._last_work = time.monotonic()
            took = min(self._last_work - task.started, 60.0)
            self._usual_seconds = 0.8 * self._usual_seconds + 0.2 * took
        task.settle(outcome)


def _leaving() -> Busy:
    return Busy("Mynah is shutting down; try again in a moment.", retry_after=5)
