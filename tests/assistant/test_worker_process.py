"""How many threads a worker gets beside other programs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from assistant import worker_process
from assistant.worker_process import WorkerProcess, busy_seconds, left_free


def test_a_core_that_others_use_is_left_to_them() -> None:
    assert [left_free(2, used) for used in (-0.1, 0.0, 0.4, 0.6, 1.0, 2.3)] == [2, 2, 2, 1, 1, 1]
    assert left_free(8, 2.6) == 5


def test_whoever_works_is_counted() -> None:
    before, started = busy_seconds(), time.process_time()
    while time.process_time() - started < 0.3:
        pass
    assert busy_seconds() - before > 0.25


def test_a_worker_that_has_ended_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    monkeypatch.setattr(worker_process, "LOOK_SECONDS", 1e9)
    process = WorkerProcess(tmp_path, cores, 0)  # it says that there is no job, and goes
    assert process.wait(60) == 2
    assert process.free_cores(cores) == cores, "nothing is known yet"
    monkeypatch.setattr(worker_process, "LOOK_SECONDS", 0.0)
    assert 1 <= process.free_cores(cores) <= cores
