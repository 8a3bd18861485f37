"""One update from its place in the line to a version: freeze it, run its worker, make something of what comes out.

Whatever happens ends in a state that says so: done, to be gone on with, or failed with a reason. Which update is next
is decided elsewhere (updates.py).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from adapters.base_model import BaseFiles
from adapters.checks import check_foretold
from adapters.job import JobSpec, UpdateConfig, can_be_read, pool_ready, write_job, write_pool_job
from adapters.memory import TOO_LITTLE, says_so
from adapters.rendering import ChatMessage
from adapters.versions import VersionFiles
from assistant import worker_process as worker
from assistant.adoption import POOL_JOB, adopt, has_result, remove
from assistant.asking import Asking
from assistant.board import Board
from assistant.config import Config
from assistant.engine import Engine
from assistant.executor import Executor, LocalExecutor
from assistant.learning import Learning
from assistant.schedule import MIN_LABELS
from assistant.worker_process import Report, last_words, read_report
from feedback.errors import MynahError, NotFound, NotSaved, TooFewLabels
from feedback.store import Store
from feedback.types import LIVE_STATES, Update

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 4.0  # for a worker to leave its checkpoint; a server must be gone 10 s after SIGTERM
CHATTING_SECONDS = 15.0  # after the last reply, chat still counts as going on
MAX_CRASHES = 3
OWN_PROMPTS = 200
CRASHED = "Update %s, attempt %d: %s"  # in the server's log

log = logging.getLogger(__name__)
Progress = Callable[[Update], None]


class Trainer:
    """Works on updates, each in a thread of its caller's. stop: set when the server ends; what runs is paused then.
    executor: what their jobs run on."""

    def __init__(
        self,
        store: Store,
        learning: Learning,
        engine: Engine,
        versions: VersionFiles,
        files: BaseFiles,
        config: Config,
        stop: threading.Event,
        executor: Executor | None = None,
    ) -> None:
        self._store, self._learning, self._engine = store, learning, engine
        self._versions, self._files, self._stop = versions, files, stop
        self._jobs = config.jobs
        self._executor = executor or LocalExecutor(config.threads, config.nice)
        self._asking, self._board = Asking(store), Board(config.tensorboard)
        self._crashes: Counter[str] = Counter()

    def work(self, update: Update, progress: Progress) -> None:
        """Take an update as far as it goes now. Raises NotSaved when the disk refused; then it can be tried again."""
        job = self._jobs / update.id
        try:
            if has_result(job) or can_be_read(job):  # else it is another release's, or none: it is frozen anew
                self._store.versions.set_state(update.id, "running")
            else:
                self._freeze(update)
            code, lost = worker.DONE, ""
            if self._now(update).state in LIVE_STATES and not has_result(job):
                code, lost = self._watch(update, progress)
            self._settle(self._now(update), code, lost)
        except NotSaved:
            raise
        except MynahError as error:
            self._fail(update, error.message)
        except PermissionError as error:  # no waiting mends that, and nobody else's update is to wait for it
            log.warning("Mynah may not write to %s; give it to whoever runs the server", error.filename or job)
            self._fail(update, "The server may not write where it keeps this person's versions; tell whoever runs it.")
        except OSError as error:
            if self._now(update).state in LIVE_STATES:
                raise NotSaved(f"An update cannot write to {job}: {error.strerror}. Free some disk space.") from error
            remove(job)  # its person was removed, and the folder under the worker's feet
        except Exception as error:  # a defect must not stand at the head of the line for ever
            log.exception("A defect ended update %s", update.id)
            self._fail(update, f"It met something unexpected ({type(error).__name__}); the server's log tells more.")
        finally:
            self._board.end(update.id)

    def build_pool(self, numbers: UpdateConfig, give_way: Callable[[], bool]) -> bool:
        """Prepare what all updates share, until it is there or somebody needs the machine; False if it cannot be."""
        if pool_ready(self._files, numbers):
            return True
        job = self._jobs / POOL_JOB
        remove(job)
        write_pool_job(job, self._files, numbers)
        process = self._executor.start(job)
        while (code := process.wait(POLL_SECONDS)) is None:
            if self._stop.is_set() or give_way() or self.chatting():
                process.pause(PATIENCE_SECONDS)
                remove(job)
                return True
            process.give_way(self.chatting())
        if code not in (worker.DONE, worker.PAUSED):
            self._crashes[POOL_JOB] += 1
            log.warning("The shared pool was not built (exit code %s): %s", code, read_report(job).reason)
        remove(job)
        return code != worker.FAILED and self._crashes[POOL_JOB] < MAX_CRASHES

    def chatting(self) -> bool:
        """Whether somebody is using the model, or just was."""
        return bool(self._engine.busy) or self._engine.idle_seconds < CHATTING_SECONDS

    def close(self) -> None:
        """Finish what is written for TensorBoard."""
        self._board.close()

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _freeze(self, update: Update) -> None:
        """Write down all that the worker will know: labels as they are now, as heads; prompts; the parent version,
        which is the last that is not on trial; and whether nobody will compare the result with it (a strict gate).

        Labels that do not foretell one another fail at the gate whatever is made of them, so nothing is.
        """
        user = self._store.people.get(update.user_id)
        with self._learning.alone(user):  # what is taken back from here on finds an update that has begun
            config = UpdateConfig.from_dict(update.config)
            require_labels(self._store, update.user_id)  # clicks may have been taken back while it stood in line
            labels = self._store.acts.label_range(update.user_id)
            parent = self._store.versions.trusted(update.user_id, update.base_id)
            folder = self._versions.check(parent) if parent else None
            policy = self._engine.policy
            ours = config.adapter.first_layer(policy.depth) == policy.split  # else the heads are not along them
            heads = self._learning.split_heads(update.user_id)
            spec = JobSpec(
                update_id=update.id,
                base=self._files,
                population=self._engine.population.version,
                seed=update.seed,
                prompts=cast(list[list[ChatMessage]], self._store.chats.own_prompts(update.user_id, OWN_PROMPTS)),
                heads=heads,
                parent=folder,
                strict=not self._asking.wanted(user),
                config=config,
                latents=self._engine.latents if ours else None,
            )
            job = self._jobs / update.id
            remove(job)  # what a crash left of an earlier attempt to write it
            if not self._store.versions.begin(update.id, parent.number if parent else None, labels, update.config):
                return
            told = check_foretold(heads.foretold, spec.labels, config.gate)
            if told.passed:
                write_job(job, spec)
            else:
                self._store.versions.set_state(update.id, "rejected", gate=[told.as_dict()])

    def _watch(self, update: Update, progress: Progress) -> tuple[int, str]:
        """Run the job to its end, or until the server stops or the update is cancelled; its exit code, and what became
        of it where that does not tell."""
        process = self._executor.start(self._jobs / update.id)
        seen: Any = None
        try:
            while (code := process.wait(POLL_SECONDS)) is None:
                if self._stop.is_set():
                    return process.pause(PATIENCE_SECONDS), ""
                if self._now(update).state not in LIVE_STATES:
                    return process.cancel(PATIENCE_SECONDS), ""
                process.give_way(self.chatting())
                report = read_report(process.job)
                if (said := (report.progress, report.eta_seconds, report.metrics["step"])) != seen:
                    seen = said
                    self._tell(update, report, progress)
            self._tell(update, read_report(process.job), progress)
            return code, process.lost
        except BaseException:  # Ctrl-C in the foreground, or a full disk: the checkpoint stays
            process.pause(PATIENCE_SECONDS)
            self._store.versions.set_state(update.id, "paused", "It was interrupted.")
            raise

    def _tell(self, update: Update, report: Report, progress: Progress) -> None:
        """Progress is for looking at: a disk that is full for a moment is no reason to stop training."""
        try:
            self._store.versions.set_progress(update.id, report.progress, report.eta_seconds, report.metrics)
        except NotSaved as error:
            log.warning("The progress of an update was not saved: %s", error)
        self._board.write(update.id, report.metrics["steps"])
        told: dict[str, Any] = {
            "progress": report.progress,
            "eta_seconds": report.eta_seconds,
            "metrics": report.metrics,
        }
        progress(replace(update, state="running", **told))

    def _settle(self, update: Update, code: int, lost: str) -> None:
        """What an ended worker means for its update."""
        job = self._jobs / update.id
        if update.state not in LIVE_STATES:  # cancelled, or the person is gone
            remove(job)
        elif code == worker.DONE:
            adopt(self._store, self._versions, update, job)
            remove(job)
        elif code in (worker.PAUSED, worker.OCCUPIED) or self._stop.is_set():
            self._store.versions.set_state(update.id, "paused", "It goes on where it stopped.")
        elif code == worker.FAILED:
            self._fail(update, read_report(job).reason or _guessed(self._last_words(update)))
        else:
            self._crashed(update, code, lost)

    def _crashed(self, update: Update, code: int, lost: str) -> None:
        """Killed from outside, for want of memory most likely, or lost with its node: once more from its checkpoint,
        but not for ever."""
        self._crashes[update.id] += 1
        how = lost or f"Training was ended from outside (exit code {code})"
        log.warning(CRASHED, update.id, self._crashes[update.id], how)
        if self._crashes[update.id] < MAX_CRASHES:
            self._store.versions.set_state(update.id, "paused", f"{how}; it goes on where it was.")
        elif lost:
            self._fail(update, f"{how}; it was tried {MAX_CRASHES} times.")
        else:
            self._fail(update, f"{how}, {MAX_CRASHES} times; there may be too little memory.")

    def _last_words(self, update: Update) -> str:
        """The end of the log of a worker that could not say why it ended; the operator is told its last line."""
        words = last_words(self._jobs / update.id)
        last = words.rpartition("\n")[2][:200] or "nothing"
        log.warning("The worker of update %s ended without a reason; the last it wrote: %s", update.id, last)
        return words

    def _fail(self, update: Update, reason: str) -> None:
        log.warning("Update %s failed: %s", update.id, reason)
        self._store.versions.set_state(update.id, "failed", reason)
        remove(self._jobs / update.id)

    def _now(self, update: Update) -> Update:
        """The update as it is now; as cancelled when its person is gone."""
        try:
            return self._store.versions.update(update.user_id, update.id)
        except NotFound:
            return replace(update, state="cancelled")


def require_labels(store: Store, user_id: str) -> None:
    """Raises TooFewLabels for somebody of whom too little is known to train an adapter."""
    labels = store.acts.label_count(user_id)
    if missing := max(MIN_LABELS - labels, 0):
        raise TooFewLabels(
            f"An update needs {MIN_LABELS} labels and there are {labels}; give {missing} more.", needed=missing
        )


def _guessed(words: str) -> str:
    """Why a worker failed that could not say so itself; words: the end of its log."""
    return TOO_LITTLE if says_so(words) else "Training ended before it could say why; the server's log tells more."
