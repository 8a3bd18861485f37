"""How a running job tells what it does: a status file, a line of metrics a step, and an honest estimate of the rest.

    status.json      {"state", "stage", "progress", "eta_seconds", "reason"}, replaced in one step
    metrics.jsonl    {"stage", "step", "progress", "eta_seconds", and what was measured}, one line a step
    tensorboard/     the same figures as event files, if the job asks for it

The estimate starts from what each stage should take on two cores and is corrected by the pace of those that ran, the
more the longer they ran: what was found ready says nothing of the rest. It is None until something ran, rather than a
guess.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from adapters.files import write_json, write_whole
from feedback.errors import NotSupported

Stage = Literal["pool", "warm_start", "ppo", "gate"]
STAGES: tuple[Stage, ...] = ("pool", "warm_start", "ppo", "gate")
TRUSTED = 15.0  # seconds of work for which the expected pace counts as if it had been seen


class Pace:
    """Progress and time left over stages of different length.

    expected: seconds each stage should take. clock: for tests.
    """

    def __init__(self, expected: Mapping[Stage, float], clock: Callable[[], float] = time.monotonic) -> None:
        self.expected, self._clock = dict(expected), clock
        self._began = clock()
        self._entered: dict[Stage, tuple[float, float]] = {}  # when, and the share an earlier process had done
        self._share: dict[Stage, float] = {}

    def at(self, stage: Stage, share: float) -> tuple[float, float | None]:
        """Progress 0 to 1 and seconds left, with `share` of a stage done. Call it once at the start of each stage."""
        now, place = self._clock(), STAGES.index(stage)
        entered, done_before = self._entered.setdefault(stage, (now, share))
        self._share[stage] = share
        total = sum(self.expected.values())
        before = sum(self.expected[earlier] for earlier in STAGES[:place])
        later = sum(self.expected[after] for after in STAGES[place + 1 :])
        progress = (before + share * self.expected[stage]) / total
        ran = sum((self._share[each] - self._entered[each][1]) * self.expected[each] for each in self._share)
        if ran <= 0:
            return progress, None
        overall = (now - self._began + TRUSTED) / (ran + TRUSTED)
        here = (share - done_before) * self.expected[stage]
        pace = (now - entered + TRUSTED * overall) / (here + TRUSTED)
        return progress, pace * (1 - share) * self.expected[stage] + overall * later


class Journal:
    """Writes the status and the metrics of one job. What an earlier process wrote is kept, its half line is cut off."""

    def __init__(self, folder: Path, pace: Pace, *, tensorboard: bool = False) -> None:
        self._folder, self._pace = folder, pace
        self._path = folder / "metrics.jsonl"
        self.rows = read_metrics(folder)
        self._rewrite()
        self._writer = _tensorboard_writer(folder / "tensorboard") if tensorboard else None
        self._last: dict[str, Any] = {"stage": "", "progress": 0.0, "eta_seconds": None}

    def report(
        self, stage: Stage, share: float, step: int | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Where the job is; with a step and metrics, also one line for good. A step that is done again replaces the
        line of the first time, and those after it."""
        progress, eta = self._pace.at(stage, share)
        self._last = {
            "stage": stage,
            "progress": round(progress, 4),
            "eta_seconds": None if eta is None else round(eta, 1),
        }
        if step is not None:
            row = {**self._last, "step": step, **(metrics or {})}
            kept = [old for old in self.rows if old["stage"] != stage or old["step"] < step]
            stale, self.rows = len(kept) < len(self.rows), [*kept, row]
            if stale:
                self._rewrite()
            else:
                self._append(row)
            self._plot(row)
        self.state("running")

    def state(self, state: str, reason: str = "") -> None:
        """Publish the job's state."""
        done = {"progress": 1.0, "eta_seconds": 0.0} if state == "done" else {}
        write_json(self._folder / "status.json", {"state": state, "reason": reason, **self._last, **done})

    def of(self, stage: Stage, name: str) -> list[float]:
        """One figure over the steps of a stage."""
        return [row[name] for row in self.rows if row["stage"] == stage and name in row]

    def steps(self, stage: Stage, without: str = "") -> list[int]:
        """The steps of a stage that were told of; without: not those with this figure."""
        return [row["step"] for row in self.rows if row["stage"] == stage and without not in row]

    def close(self, state: str, reason: str) -> None:
        """Publish how the process ended."""
        self.state(state, reason)
        if self._writer is not None:
            self._writer.close()

    def _append(self, row: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self) -> None:
        write_whole(self._path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def _plot(self, row: dict[str, Any]) -> None:
        if self._writer is not None:
            for name, value in row.items():
                if name not in ("stage", "step", "eta_seconds"):
                    self._writer.add_scalar(f"{row['stage']}/{name}", value, row["step"])


class Paused(Exception):
    """Leave everything as it is, for later."""


class Cancelled(Exception):
    """The person does not want this update any more."""


class JobRun:
    """What every stage needs: the folder, the journal, and `tell`, which also listens."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder, self.journal = folder, journal
        self.checkpoint = folder / "checkpoint"
        self.checkpoint.mkdir(exist_ok=True)

    def tell(
        self, stage: Stage, share: float, step: int | None = None, metrics: dict[str, float] | None = None
    ) -> None:
        """Report, then do what the folder asks for: fewer threads, or an end."""
        self.journal.report(stage, share, step, metrics)
        if (self.folder / "cancel").exists():
            raise Cancelled
        with contextlib.suppress(OSError, ValueError):
            if (threads := int((self.folder / "threads").read_text())) != torch.get_num_threads() and threads > 0:
                torch.set_num_threads(threads)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines a job has written so far; a half-written last one is left out."""
    try:
        text = (folder / "metrics.jsonl").read_text("utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _tensorboard_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise NotSupported(
            'TensorBoard is not installed; add it with the "tensorboard" extra or turn it off.'
        ) from error
    return SummaryWriter(str(folder))
