"""The process that trains: started, watched, slowed down, paused and ended from here.

It is `python -m adapters.worker JOB`, at a low priority, so that whoever chats is served first. All that passes
between the two processes are files in the job's folder and an exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from assistant.cores import Cores

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 10.0  # seconds for a process that was killed to be gone
FIRST_TO_GO = 500  # as if it took half of the machine's memory more than it does
DONE, FAILED, PAUSED, CANCELLED, OCCUPIED, REFUSED = 0, 1, 3, 4, 5, 6  # exit codes of adapters.worker
LOST = 7  # and of whoever runs it elsewhere: nobody knows


@dataclass(frozen=True)
class Report:
    """What a worker last said. metrics: {"stage", "step", "steps": one dict a step, "latest": the last of them}."""

    progress: float
    eta_seconds: float | None
    metrics: dict[str, Any]
    reason: str


class WorkerProcess:
    """One running worker. threads: how many it may use, to begin with; nice: its priority, 19 the lowest; tied: it ends
    with this process, however this one ends."""

    lost = ""  # its exit code always tells what became of it

    def __init__(self, job: Path, threads: int, nice: int, *, tied: bool = False) -> None:
        self.job = job
        end_stale(job)
        self._most, self._threads = threads, 0
        self.use_threads(threads)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with (job / "worker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "adapters.worker", str(job), *(["--tied"] if tied else [])],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is ours to answer. Not a session of its own: Linux shares the processor out
                # between sessions first (autogroup), and `nice` would count for nothing between it and us.
                process_group=0,
            )
        with contextlib.suppress(psutil.Error, OSError):
            psutil.Process(self._process.pid).nice(nice)
            # Linux: where memory runs out, training is what has to end, not the server; it goes on from its checkpoint.
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text(str(FIRST_TO_GO))
        try:
            (job / "pid").write_text(str(self._process.pid))
        except OSError:  # the folder is gone, its person having left or started over in this moment
            self._process.kill()
            self.wait(PATIENCE)
            raise
        self._own = Cores(threads, self._own_seconds)

    def wait(self, seconds: float) -> int | None:
        """The exit code if it ends within this time; negative for a signal."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code

    def give_way(self, chatting: bool) -> None:
        """Leave other programs what they use of the processor, and half of it to whoever is chatting."""
        free = self.free_cores()
        self.use_threads(min(free, max(1, self._most // 2)) if chatting else free)

    def use_threads(self, count: int) -> None:
        """Ask for another number of threads; heard between two batches."""
        if count != self._threads:
            self._threads = count
            (self.job / "threads").write_text(str(count))

    def free_cores(self) -> int:
        """How many of the threads it began with nobody else has a use for (for the first seconds: all)."""
        return self._own.free()

    def pause(self, patience: float) -> int:
        """Ask it to leave its checkpoint and go; one that does not listen is killed and loses a batch."""
        self._process.terminate()
        return self._end(patience)

    def cancel(self, patience: float) -> int:
        """End it for good."""
        with contextlib.suppress(OSError):  # the folder is gone when its person is
            (self.job / "cancel").touch()
        self._process.terminate()
        return self._end(patience)

    def _own_seconds(self) -> float:
        """Processor time of the worker so far; 0 once it has ended."""
        with contextlib.suppress(psutil.Error):
            used = psutil.Process(self._process.pid).cpu_times()
            return float(used.user + used.system)
        return 0.0

    def _end(self, patience: float) -> int:
        code = self.wait(patience)
        if code is None:
            self._process.kill()
            code = self._process.wait()
        return code


def read_report(job: Path) -> Report:
    """What the files of a job say; empty before the worker has said anything."""
    status: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        status = json.loads((job / "status.json").read_text("utf-8"))
    steps: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in (job / "metrics.jsonl").read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line may be half-written
                steps.append(json.loads(line))
    latest = steps[-1] if steps else {}
    metrics = {
        "stage": status.get("stage") or latest.get("stage", "starting"),
        "step": latest.get("step", 0),
        "steps": steps,
        "latest": latest,
    }
    progress = float(status.get("progress") or latest.get("progress", 0.0))
    eta = status.get("eta_seconds", latest.get("eta_seconds"))
    return Report(progress, None if eta is None else float(eta), metrics, str(status.get("reason") or ""))


def last_words(job: Path) -> str:
    """The end of what a worker left in its log, where it could not say anything in words: causes come before the last
    line."""
    with contextlib.suppress(OSError):
        return (job / "worker.log").read_text("utf-8", "replace").strip()[-4000:]
    return ""


def end_stale(job: Path) -> None:
    """End the worker of a server that was killed: two must never share a job."""
    try:
        process = psutil.Process(int((job / "pid").read_text()))
        if str(job) in process.cmdline():  # process numbers are used again
            process.terminate()
            process.wait(10)
    except psutil.TimeoutExpired:
        process.kill()
    except (OSError, ValueError, psutil.Error):
        return
