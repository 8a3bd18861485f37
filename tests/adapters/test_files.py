"""Files that are either whole or absent."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from adapters.files import TEMPORARY, read_json, sha256_file, sha256_json, sweep, whole_folder, write_json, write_whole


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "made"
    with whole_folder(final) as draft:
        (draft / "a").write_text("1")
        assert not final.exists()
    assert (final / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["made"]


def test_a_folder_whose_writer_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"), whole_folder(tmp_path / "made") as draft:
        (draft / "a").write_text("1")
        raise RuntimeError("half way")
    assert os.listdir(tmp_path) == []


def test_what_is_published_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(FileExistsError), whole_folder(tmp_path / "made"):
        pass


def test_a_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file"
    write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


def test_json_round_trip_and_hashes(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ä"}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1}) != sha256_json({"a": 2, "b": 1})
    assert sha256_file(tmp_path / "v.json") == hashlib.sha256((tmp_path / "v.json").read_bytes()).hexdigest()


def test_sweep_removes_what_killed_writers_left(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}folder-1").mkdir()
    (tmp_path / f"{TEMPORARY}folder-1" / "x").write_text("")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / f"{TEMPORARY}file-2").write_text("")
    (tmp_path / "kept" / "file").write_text("")
    assert len(sweep(tmp_path)) >= 2
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["kept", "kept/file"]


def test_sweep_leaves_others_what_they_are_writing(tmp_path: Path) -> None:
    for name, age in (("left", 7200), ("written", 10)):
        (tmp_path / f"{TEMPORARY}{name}").write_text("")
        os.utime(tmp_path / f"{TEMPORARY}{name}", (time.time() - age,) * 2)
    assert sweep(tmp_path, older=3600) == [f"{TEMPORARY}left"]
    assert os.listdir(tmp_path) == [f"{TEMPORARY}written"]
