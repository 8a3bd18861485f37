"""A backup is whole or absent; a restore takes all of a sound one into an empty folder, or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters.policy import Policy
from adapters.versions import VersionFiles
from assistant.backup import backup, restore
from assistant.config import Config
from assistant.lock import DataLock
from feedback.errors import Conflict, CorruptFile, MynahError, NotFound, NotSaved
from feedback.store import Store
from feedback.types import AdapterVersion, now


@pytest.fixture
def config(tmp_path: Path, policy: Policy) -> Config:
    """A data folder with one person, one version, and a job that is no part of a backup."""
    config = Config.build({"data_dir": tmp_path / "data", "models_dir": tmp_path / "models"}, {})
    config.data_dir.mkdir()
    store = Store(config.database)
    user = store.people.add("Ada", "ada", "-", admin=True)
    policy.new_adapter("fresh")
    state = policy.adapter_state("fresh")
    manifest = VersionFiles(config.adapters).write(user.id, 1, state, policy.lora_config(), {})
    version = AdapterVersion(user.id, 1, "base", "active", None, None, 1, 20, 0, {}, {}, [], manifest, now())
    store.versions.add(version, activate=True, update_state="promoted")
    store.close()
    (config.jobs / "up_x").mkdir(parents=True)
    (config.jobs / "up_x" / "job.json").touch()
    return config


def test_there_and_back(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "saved.zip"
    backup(config, file)
    assert file.stat().st_mode & 0o077 == 0
    assert not any("up_x" in name for name in zipfile.ZipFile(file).namelist())
    target = replace(config, data_dir=tmp_path / "new")
    assert restore(target, file) == 5
    store = Store(target.database)
    user = store.people.all()[0]
    active = store.versions.active(user.id, "base")
    assert active is not None and VersionFiles(target.adapters).check(active).is_dir()
    store.close()
    assert sorted(path.name for path in target.data_dir.iterdir()) == ["adapters", "lock", "mynah.db"]


def test_it_writes_beside_a_server_and_never_over_a_file(config: Config, tmp_path: Path) -> None:
    lock, store = DataLock(config.data_dir, "a test"), Store(config.database)
    file = tmp_path / "saved.zip"
    with store.database.transaction():
        pass
    backup(config, file)
    with pytest.raises(Conflict, match="exists"):
        backup(config, file)
    with pytest.raises(Conflict, match="in use"):
        restore(config, file)
    lock.release()
    with pytest.raises(Conflict, match="not empty"):
        restore(config, file)
    store.close()


@pytest.mark.parametrize("harm", ["cut", "changed", "no zip", "no manifest", "escape", "missing", "newer"])
def test_a_damaged_backup_restores_nothing(config: Config, tmp_path: Path, harm: str) -> None:
    file, bad = tmp_path / "saved.zip", tmp_path / "bad.zip"
    backup(config, file)
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(content["manifest.json"])
    if harm == "changed":
        content["mynah.db"] = content["mynah.db"][:-1] + b"x"
    elif harm == "no manifest":
        del content["manifest.json"]
    elif harm == "escape":
        about["sha256"]["../../evil"] = "00"
        content["../../evil"] = b""
    elif harm == "missing":
        del content["mynah.db"]
    elif harm == "newer":
        about["format"] = 99
    if harm != "no manifest":
        content["manifest.json"] = json.dumps(about).encode()
    with zipfile.ZipFile(bad, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    if harm == "cut":
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    elif harm == "no zip":
        bad.write_bytes(b"nothing of the kind")
    target = replace(config, data_dir=tmp_path / "new")
    with pytest.raises(MynahError) as caught:
        restore(target, bad)
    assert isinstance(caught.value, CorruptFile) or harm == "newer"
    assert [path.name for path in target.data_dir.iterdir()] == ["lock"]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("harm", ["lzma", "encrypted", "other manifest"])
def test_a_backup_that_zip_stumbles_over_is_refused_in_words(config: Config, tmp_path: Path, harm: str) -> None:
    file, bad = tmp_path / "saved.zip", tmp_path / "bad.zip"
    backup(config, file)
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(bad, "w", zipfile.ZIP_LZMA) as copy:
        for name in ("manifest.json", "mynah.db"):
            copy.writestr(name, b"[]" if harm == "other manifest" else archive.read(name))
    data = bytearray(bad.read_bytes())
    if harm == "lzma":
        start = 30 + len("manifest.json") + 9
        data[start : start + 50] = bytes(255 - byte for byte in data[start : start + 50])
    elif harm == "encrypted":
        data[data.index(b"PK\x01\x02") + 8] |= 1
    bad.write_bytes(data)
    target = replace(config, data_dir=tmp_path / "new")
    with pytest.raises(CorruptFile, match="or a damaged one"):
        restore(target, bad)
    assert [path.name for path in target.data_dir.iterdir()] == ["lock"]


def test_a_backup_that_was_killed_leaves_nothing_for_good(config: Config, tmp_path: Path) -> None:
    left = tmp_path / ".tmp-backup-killed"
    left.mkdir()
    (left / "mynah.db").write_bytes(b"everything")
    backup(config, tmp_path / "first.zip")
    assert left.exists(), "it may be another backup at work"
    os.utime(left, (0, 0))
    backup(config, tmp_path / "second.zip")
    assert not left.exists() and sorted(path.name for path in tmp_path.iterdir()) == ["data", "first.zip", "second.zip"]
    assert sorted(path.name for path in config.data_dir.iterdir()) == ["adapters", "jobs", "mynah.db"]


@pytest.mark.parametrize("moved", [[], ["adapters"]])
def test_a_restore_that_was_killed_can_be_done_again(config: Config, tmp_path: Path, moved: list[str]) -> None:
    backup(config, tmp_path / "saved.zip")
    target = replace(config, data_dir=tmp_path / "new")
    for name in ("adapters/u_1/v1", "mynah.db"):
        (target.data_dir / ".tmp-restore" / name).mkdir(parents=True)
    for name in moved:
        (target.data_dir / ".tmp-restore" / name).rename(target.data_dir / name)
    assert restore(target, tmp_path / "saved.zip") == 5
    assert sorted(path.name for path in target.data_dir.iterdir()) == ["adapters", "lock", "mynah.db"]
    assert not (target.adapters / "u_1").exists()


def test_every_byte_of_a_backup_is_looked_at(config: Config, tmp_path: Path) -> None:
    """Compressed as it was written: a flipped bit meets the decompressor, too."""
    file, bad = tmp_path / "saved.zip", tmp_path / "bad.zip"
    backup(config, file)
    whole = file.read_bytes()
    target = replace(config, data_dir=tmp_path / "new")
    for place in np.random.default_rng(0).integers(len(whole) * 9 // 10, size=40):
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(CorruptFile):  # what nobody reads, a date, say, may be anything
            restore(target, bad)
            shutil.rmtree(target.data_dir)


def test_names_of_other_alphabets_and_files_of_others(config: Config, tmp_path: Path) -> None:
    for name in ("通义千问-7b-0a1b", "-qwen-0a1b", "ünï"):
        (config.latents / name).mkdir(parents=True)
        (config.latents / name / "latents.safetensors").write_bytes(b"x")
    (version,) = config.adapters.glob("u_*/v1")
    (version / ".DS_Store").write_bytes(b"x")
    backup(config, tmp_path / "saved.zip")
    target = replace(config, data_dir=tmp_path / "new")
    assert restore(target, tmp_path / "saved.zip") == 8
    assert len(list(target.latents.iterdir())) == 3 and not list(target.adapters.rglob(".DS_Store"))


def test_a_version_without_its_folder_is_left_out_and_told(config: Config, tmp_path: Path) -> None:
    (version,) = config.adapters.glob("u_*/v1")
    shutil.rmtree(version)
    assert backup(config, tmp_path / "saved.zip").missing == ["Ada's v1"]
    assert restore(replace(config, data_dir=tmp_path / "new"), tmp_path / "saved.zip") == 1


def test_what_is_not_there_is_said(config: Config, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        backup(replace(config, data_dir=tmp_path / "none"), tmp_path / "x.zip")
    with pytest.raises(NotFound):
        restore(config, tmp_path / "x.zip")
    with pytest.raises(NotSaved):
        backup(config, tmp_path / "no such folder" / "x.zip")
