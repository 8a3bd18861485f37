"""A finished job becomes a version; a crash at any point leaves old or new, and no debris after the next start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.policy import Policy
from adapters.versions import VersionFiles, fill
from assistant import adoption
from assistant.adoption import POOL_JOB, adopt, debris, has_result, remove, sweep
from feedback.errors import Conflict, CorruptFile
from feedback.store import Store
from feedback.types import Update, User

BASE = "base@000000000000/nf4"


class Crash(BaseException):
    """The process ends here: no handler runs that a killed process would not run."""


class Place:
    """A data folder with one person and their finished job."""

    def __init__(self, root: Path, store: Store, policy: Policy) -> None:
        self.adapters, self.jobs, self.store, self.policy = root / "adapters", root / "jobs", store, policy
        self.files = VersionFiles(self.adapters)
        self.user: User = store.people.add("Ada", "ada", "-")

    def finished(self, passed: bool = True) -> tuple[Update, Path]:
        """A job as the worker leaves it."""
        update = self.store.versions.queue(self.user.id, BASE, "asked", 7, None, (1, 20), {})
        assert self.store.versions.begin(update.id, None, (1, 22), {"own_prompts": 3})
        job = self.jobs / update.id
        (job / "result").mkdir(parents=True)
        about = {"metrics": {"ppo/objective/kl": 0.02}}
        fill(job / "result", self.policy.adapter_state("fresh"), self.policy.lora_config(), about)
        check = {"check": "kl", "value": 0.02, "bound": 0.1, "passed": passed, "words": "close to the base"}
        (job / "gate.json").write_text(json.dumps([check]))
        return self.store.versions.update(self.user.id, update.id), job

    def restart(self) -> None:
        """What every start does before anything else."""
        sweep(self.store, self.adapters, self.jobs)

    def folders(self) -> list[str]:
        person = self.adapters / self.user.id
        return sorted(path.name for path in person.iterdir()) if person.exists() else []


@pytest.fixture
def place(tmp_path: Path, store: Store, policy: Policy) -> Iterator[Place]:
    policy.new_adapter("fresh")
    yield Place(tmp_path, store, policy)


def test_a_result_that_passed_is_served(place: Place) -> None:
    update, job = place.finished()
    assert has_result(job)
    version = adopt(place.store, place.files, update, job)
    assert place.store.versions.active(place.user.id, BASE) == version
    assert (version.number, version.first_label, version.last_label, version.seed) == (1, 1, 22, 7)
    assert version.metrics["ppo/objective/kl"] == 0.02 and version.config == {"own_prompts": 3}
    assert place.store.versions.update(place.user.id, update.id).state == "promoted"
    assert place.files.check(version) == place.adapters / place.user.id / "v1"


def test_a_result_that_failed_is_kept_and_not_served(place: Place) -> None:
    update, job = place.finished(passed=False)
    assert adopt(place.store, place.files, update, job).status == "rejected"
    assert place.store.versions.active(place.user.id, BASE) is None
    assert place.store.versions.update(place.user.id, update.id).state == "rejected"


@pytest.mark.parametrize("where", ["number", "folder", "row", "after"])
def test_a_crash_leaves_old_or_new_and_the_next_start_mends_it(
    place: Place, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, job = place.finished()
    adopt(place.store, place.files, first, job)
    remove(job)
    update, job = place.finished()

    def crash_after(target: Any, name: str) -> None:
        real = getattr(target, name)

        def crash(*args: Any, **kwargs: Any) -> None:
            real(*args, **kwargs)
            raise Crash

        monkeypatch.setattr(target, name, crash)

    def crash_before(target: Any, name: str) -> None:
        def crash(*args: Any, **kwargs: Any) -> None:
            raise Crash

        monkeypatch.setattr(target, name, crash)

    if where == "number":
        crash_after(place.store.versions, "next_number")
    elif where == "folder":
        crash_before(place.store.versions, "add")
    elif where == "row":  # inside the transaction, after the row and before the pointer
        crash_before(place.store.versions, "_activate")
    else:
        crash_after(place.store.versions, "add")
    with pytest.raises(Crash):
        adopt(place.store, place.files, update, job)
    monkeypatch.undo()

    active = place.store.versions.active(place.user.id, BASE)
    assert active is not None
    assert place.files.check(active), "what is served is whole, the old version or the new one"
    place.restart()
    known = [version.name for version in place.store.versions.versions(place.user.id)]
    assert place.folders() == known
    state = place.store.versions.update(place.user.id, update.id).state
    if where == "after":
        assert active.update_id == update.id and state == "promoted"
        assert not job.exists(), "a job whose update has ended is debris"
    else:
        assert active.update_id == first.id and state == "running"
        version = adopt(place.store, place.files, update, job)  # the job is still there, with its result
        assert place.store.versions.active(place.user.id, BASE) == version
        assert place.folders() == ["v1", version.name]


def test_a_cancelled_update_enters_nothing(place: Place) -> None:
    update, job = place.finished()
    place.store.versions.set_state(update.id, "cancelled")
    with pytest.raises(Conflict, match="cancelled"):
        adopt(place.store, place.files, update, job)
    assert place.folders() == [] and place.store.versions.versions(place.user.id) == []


def test_a_damaged_result_enters_nothing(place: Place) -> None:
    update, job = place.finished()
    with (job / "result" / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    with pytest.raises(CorruptFile):
        adopt(place.store, place.files, update, job)
    for gate in ("", "[]", "{}", '[{"check": "kl"}]'):
        (job / "gate.json").write_text(gate)
        with pytest.raises(CorruptFile, match="verdict"):
            adopt(place.store, place.files, update, job)
    assert place.folders() == []


def test_debris_is_what_no_row_speaks_of(place: Place) -> None:
    update, job = place.finished()
    adopt(place.store, place.files, update, job)
    kept = place.finished()[1]
    left = [
        place.adapters / "u_gone" / "v1",
        place.adapters / place.user.id / "v9",
        place.adapters / place.user.id / ".tmp-v2-abc",
        place.jobs / "up_gone",
        kept / ".tmp-result-abc",
        place.adapters.parent / ".tmp-backup-abc",
    ]
    for folder in [*left, place.jobs / POOL_JOB]:
        folder.mkdir(parents=True)
        (folder / "file").touch()
    found = debris(place.store, place.adapters, place.jobs)
    assert set(found) == {place.adapters / "u_gone", *left[1:], job}
    sweep(place.store, place.adapters, place.jobs)
    assert debris(place.store, place.adapters, place.jobs) == []
    assert kept.is_dir() and place.folders() == ["v1"] and (place.jobs / POOL_JOB).is_dir()
    assert adoption.sweep(place.store, place.adapters / "none", place.jobs / "none") == []
