"""A stopped run goes on; a unit is made once; memory is that of the whole process tree."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.work import PeakMemory, Work, code_hash, machine, tree_memory


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    made: list[str] = []

    def run(stop_at: str | None) -> list[int]:
        work = Work("trial", {"people": 3}, tmp_path, code="a")

        def make(name: str) -> dict[str, int]:
            if name == stop_at:
                raise KeyboardInterrupt
            made.append(name)
            return {"value": len(made)}

        return [work.unit(name, partial(make, name))["value"] for name in ("ada", "bo", "cy")]

    with pytest.raises(KeyboardInterrupt):
        run(stop_at="cy")
    assert made == ["ada", "bo"]
    assert run(stop_at=None) == [1, 2, 3]
    assert made == ["ada", "bo", "cy"]


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    first, second = (Work("trial", {"seeds": n}, tmp_path, code="a") for n in (1, 3))
    first.unit("ada", lambda: {"value": 1})
    assert first.has("ada") and not second.has("ada")
    assert second.unit("ada", lambda: {"value": 2})["value"] == 2
    first.forget()
    assert not first.has("ada") and second.has("ada")


def test_a_torn_file_is_made_again(tmp_path: Path) -> None:
    work = Work("trial", {}, tmp_path, code="a")
    work.unit("ada", lambda: {"value": 1})
    path = work.folder / "ada.json"
    path.write_bytes(path.read_bytes()[:10])
    assert work.unit("ada", lambda: {"value": 2})["value"] == 2


def test_units_of_other_code_are_named(tmp_path: Path) -> None:
    Work("trial", {}, tmp_path, code="old").unit("ada", lambda: {"value": 1})
    work = Work("trial", {}, tmp_path, code="new")
    work.unit("bo", lambda: {"value": 2})
    assert work.mixed == []
    assert work.unit("ada", lambda: {"value": 3})["value"] == 1
    assert work.mixed == ["ada"]


def test_the_code_hash_follows_the_sources(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    source = tmp_path / "adapters" / "ppo.py"
    source.write_text("x = 1\n")
    before = code_hash(tmp_path)
    source.write_text("x = 2\n")
    assert code_hash(tmp_path) != before


def test_the_machine_is_described_without_paths() -> None:
    described = machine()
    assert described["cores"] >= 1 and described["memory_gb"] > 0
    assert "/home" not in str(described) and os.uname().nodename not in described["processor"]


def test_peak_memory_counts_a_child_and_what_it_gave_back() -> None:
    script = "import time\nblock = bytearray(b'x' * 200_000_000)\ntime.sleep(0.5)\ndel block\ntime.sleep(0.3)"
    with PeakMemory(os.getpid(), every=0.05) as memory:
        alone = tree_memory(os.getpid())
        subprocess.run([sys.executable, "-c", script], check=True)
    assert memory.peak > alone + 180_000_000
    assert tree_memory(os.getpid()) < memory.peak


def test_the_memory_of_a_process_that_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert tree_memory(child.pid) == 0
