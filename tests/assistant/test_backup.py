"""A backup is whole or absent; a restore takes all of a sound one into an empty folder, or nothing."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

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


def test_what_is_not_there_is_said(config: Config, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        backup(replace(config, data_dir=tmp_path / "none"), tmp_path / "x.zip")
    with pytest.raises(NotFound):
        restore(config, tmp_path / "x.zip")
    with pytest.raises(NotSaved):
        backup(config, tmp_path / "no such folder" / "x.zip")
