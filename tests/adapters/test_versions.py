"""Version folders: written whole, adopted twice, refused by hash, removed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from adapters import versions
from adapters.versions import MANIFEST, WEIGHTS, VersionFiles, fill, manifest_hash
from feedback.errors import CorruptFile, InvalidInput
from feedback.types import AdapterVersion

STATE = {"layer.lora_A.weight": torch.arange(6.0).reshape(2, 3), "layer.lora_B.weight": torch.ones(3, 2)}


def write(files: VersionFiles, number: int = 1) -> AdapterVersion:
    sha256 = files.write("u_1", number, STATE, LoraConfig(r=2, target_modules=["q_proj"]), {"labels": 20})
    return version(sha256, number)


def version(sha256: str, number: int = 1) -> AdapterVersion:
    rest: dict[str, Any] = {"config": {}, "metrics": {}, "gate": [], "created_at": ""}
    return AdapterVersion("u_1", number, "base", "active", None, None, 1, 20, 0, manifest_sha256=sha256, **rest)


def test_a_version_is_written_whole_and_checked(tmp_path: Path) -> None:
    files = VersionFiles(tmp_path)
    folder = files.check(write(files))
    assert folder == tmp_path / "u_1" / "v1"
    assert sorted(os.listdir(folder)) == [
        "about.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    assert torch.equal(load_file(folder / WEIGHTS)["layer.lora_A.weight"], STATE["layer.lora_A.weight"])
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def test_a_number_is_never_used_twice(tmp_path: Path) -> None:
    files = VersionFiles(tmp_path)
    write(files)
    with pytest.raises(FileExistsError):
        write(files)


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json", "about.json"])
def test_a_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    files = VersionFiles(tmp_path)
    made = write(files)
    path = files.path("u_1", 1) / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=rf"Version v1 cannot be used: {name} in v1 is not what was written"):
        files.check(made)


def test_damage_anywhere_in_any_file_is_refused(tmp_path: Path) -> None:
    """A flipped bit or a lost end, 200 times: by hash, before anything of it is used."""
    files, random = VersionFiles(tmp_path), np.random.default_rng(2)
    made = write(files)
    paths = sorted(path for path in files.path("u_1", 1).iterdir())
    for number in range(200):
        path = paths[number % len(paths)]
        whole = path.read_bytes()
        place = int(random.integers(len(whole)))
        flipped = bytes([whole[place] ^ (1 << int(random.integers(8)))])
        path.write_bytes(whole[:place] if number % 2 else whole[:place] + flipped + whole[place + 1 :])
        with pytest.raises(CorruptFile, match="v1"):
            files.check(made)
        path.write_bytes(whole)
        files.check(made)


def test_a_truncated_or_missing_file_is_refused(tmp_path: Path) -> None:
    files = VersionFiles(tmp_path)
    made = write(files)
    weights = files.path("u_1", 1) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CorruptFile, match="not what was written"):
        files.check(made)
    weights.unlink()
    with pytest.raises(CorruptFile, match="is missing"):
        files.check(made)


def test_a_consistent_forgery_is_refused(tmp_path: Path) -> None:
    files = VersionFiles(tmp_path)
    made = write(files)
    weights = files.path("u_1", 1) / WEIGHTS
    weights.write_bytes(weights.read_bytes() + b"x")
    versions.seal(files.path("u_1", 1))  # the forger writes a fitting manifest, too
    with pytest.raises(CorruptFile, match="its manifest is not the one that was promoted"):
        files.check(made)


@pytest.mark.parametrize("content", ["", "[]", '{"files": {}}', '{"files": {"../x": {"sha256": "a", "bytes": 1}}}'])
def test_a_broken_manifest_is_one_clear_error(tmp_path: Path, content: str) -> None:
    files = VersionFiles(tmp_path)
    made = write(files)
    (files.path("u_1", 1) / MANIFEST).write_text(content)
    with pytest.raises(CorruptFile, match="v1"):
        files.check(made)
    (files.path("u_1", 1) / MANIFEST).unlink()
    with pytest.raises(CorruptFile, match="no readable manifest"):
        files.check(made)


def test_a_result_is_adopted_by_copy_and_may_be_adopted_again(tmp_path: Path) -> None:
    files, result = VersionFiles(tmp_path / "adapters"), tmp_path / "result"
    result.mkdir()
    fill(result, STATE, LoraConfig(r=2, target_modules=["q_proj"]), {})
    sha256 = files.adopt("u_1", 3, result)
    assert sha256 == manifest_hash(result) == files.adopt("u_1", 3, result)
    files.check(version(sha256, 3))
    (result / "about.json").write_text("{}")
    versions.seal(result)
    with pytest.raises(FileExistsError):
        files.adopt("u_1", 3, result)


def test_a_damaged_result_is_not_adopted(tmp_path: Path) -> None:
    files, result = VersionFiles(tmp_path / "adapters"), tmp_path / "result"
    result.mkdir()
    fill(result, STATE, LoraConfig(r=2, target_modules=["q_proj"]), {})
    (result / WEIGHTS).write_bytes(b"half")
    with pytest.raises(CorruptFile):
        files.adopt("u_1", 1, result)
    assert not files.path("u_1", 1).exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(versions, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        write(VersionFiles(tmp_path))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert not (tmp_path / "u_1" / "v1").exists()


def test_removing_takes_one_version_or_all(tmp_path: Path) -> None:
    files = VersionFiles(tmp_path)
    for number in (1, 2, 3):
        write(files, number)
    assert files.remove("u_1", 2) == 1
    assert files.remove("u_1") == 2
    assert files.remove("u_1") == 0
    assert not (tmp_path / "u_1").exists()


@pytest.mark.parametrize(("user_id", "number"), [("..", 1), ("a/b", 1), ("", 1), ("u_1", 0)])
def test_no_path_leads_outside(tmp_path: Path, user_id: str, number: int) -> None:
    with pytest.raises(InvalidInput):
        VersionFiles(tmp_path).path(user_id, number)
