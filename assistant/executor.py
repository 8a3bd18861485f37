"""Where updates run: one small interface with two ways behind it.

    local   a worker process of this machine, one at a time (worker_process.py)
    ray     the nodes of a Ray cluster, as many at once as it has room for (ray_executor.py)

Either way a job's folder is all that goes in, and status, metrics, checkpoint, candidate and verdict appear in it. What
becomes of them is decided here, by whoever holds the database.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from assistant.config import Config
from assistant.worker_process import WorkerProcess


class Running(Protocol):
    """One job that is being worked on. Exit codes are those of adapters.worker, and LOST."""

    job: Path

    @property
    def lost(self) -> str:
        """With LOST: what became of it, as the beginning of a sentence."""

    def wait(self, seconds: float) -> int | None:
        """The exit code if it ends within this time."""

    def give_way(self, chatting: bool) -> None:
        """Leave to others what they need of the processor; chatting: somebody waits for a reply."""

    def pause(self, patience: float) -> int:
        """End it within so many seconds, to go on later from its checkpoint; the exit code."""

    def cancel(self, patience: float) -> int:
        """End it for good."""


class Executor(Protocol):
    """Something that runs jobs."""

    elsewhere: bool  # not on this machine, so that whoever chats here is not in the way

    def open(self) -> None:
        """Make sure that it can be used. Raises MynahError."""

    def room(self) -> int:
        """How many jobs may run at once, as far as is known now."""

    def start(self, job: Path) -> Running:
        """Begin with the job in a folder, or go on from its checkpoint."""

    def close(self) -> None:
        """Let go; what still runs is paused."""


class LocalExecutor:
    """One worker process after the other, at a low priority. threads: at most, 0 for as many as there are cores."""

    elsewhere = False

    def __init__(self, threads: int, nice: int) -> None:
        self._cores, self._nice = threads or os.cpu_count() or 1, nice

    def open(self) -> None:
        """Nothing to do."""

    def room(self) -> int:
        """One: two cores do one well."""
        return 1

    def start(self, job: Path) -> WorkerProcess:
        """The worker process."""
        return WorkerProcess(job, self._cores, self._nice)

    def close(self) -> None:
        """Nothing to do."""


def make_executor(config: Config) -> Executor:
    """The executor that the options ask for; nothing is started before `open`."""
    if config.executor == "ray":
        from assistant.ray_executor import RayExecutor

        return RayExecutor(config.ray_address, config.threads or 1, config.nice)
    return LocalExecutor(config.threads, config.nice)
