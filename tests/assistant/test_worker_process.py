"""How many threads the server and its worker take beside other programs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from assistant import cores
from assistant.cores import Cores, busy_seconds, own_seconds
from assistant.worker_process import WorkerProcess


def test_whoever_works_is_counted() -> None:
    before, started = busy_seconds(), time.process_time()
    while time.process_time() - started < 0.3:
        pass
    assert busy_seconds() - before > 0.25


def test_one_s_own_work_takes_nothing_from_oneself() -> None:
    before, started = own_seconds(), time.process_time()
    while time.process_time() - started < 0.2:
        pass
    assert 0.15 < own_seconds() - before < 5


def test_what_others_use_is_left_to_them_for_as_long_as_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, busy, own = [0.0], [0.0], [0.0]
    monkeypatch.setattr(cores.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(cores, "busy_seconds", lambda: busy[0])
    all_of_four, two_of_eight = Cores(4, lambda: own[0], 4), Cores(2, lambda: own[0], 8)

    def after(seconds: float, others: float, mine: float) -> tuple[int, int]:
        clock[0] += seconds
        busy[0] += (others + mine) * seconds
        own[0] += mine * seconds
        return all_of_four.free(), two_of_eight.free()

    assert after(4.9, 4, 0) == (4, 2), "too soon to tell"
    assert after(0.1, 4, 0) == (1, 2)
    assert after(5, 1.2, 3) == (3, 2)
    assert after(5, 6.8, 1) == (1, 1)
    assert after(5, 0, 4) == (4, 2), "one's own work does not count"
    assert after(5, 0.4, 1) == (4, 2) and after(5, 0.6, 1) == (3, 2)


def test_a_worker_that_has_ended_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = os.cpu_count() or 1
    monkeypatch.setattr(cores, "LOOK_SECONDS", 1e9)
    process = WorkerProcess(tmp_path, threads, 0)  # it says that there is no job, and goes
    assert process.wait(60) == 2
    assert process.free_cores() == threads, "nothing is known yet"
    monkeypatch.setattr(cores, "LOOK_SECONDS", 0.0)
    assert 1 <= process.free_cores() <= threads


def test_a_worker_whose_folder_is_gone_is_not_left_running(tmp_path: Path) -> None:
    (tmp_path / "pid").mkdir()  # nothing can be written there any more
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(OSError):
        WorkerProcess(tmp_path, 1, 0)
    assert {child.pid for child in psutil.Process().children()} <= before
