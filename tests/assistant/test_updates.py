"""Updates with the real worker: to the end, interrupted, killed, cancelled, and by themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from adapters.base_model import BaseFiles
from adapters.files import read_json, write_json
from adapters.job import UpdateConfig, can_be_read
from assistant import trainer
from assistant.chat import ChatRequest
from assistant.config import Config
from assistant.mynah import Mynah
from assistant.updates import Updates, version_number
from assistant.worker_process import read_report
from feedback.errors import Conflict, CorruptFile, InvalidInput, NotFound, TooFewLabels
from feedback.types import Update, User
from tests.assistant.serving import PASSWORD, SHUT_GATE, open_mynah, own_models, settings, teach, tiny_numbers, wait_for
from tests.deaths.moments import Lines


@pytest.fixture(scope="module")
def config(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("updates")
    return settings(own_models(base_files, folder / "models"), folder / "data")


@pytest.fixture(scope="module")
def mynah(config: Config) -> Iterator[Mynah]:
    """All services, without the thread of updates: each test runs its own."""
    opened = open_mynah(config, run_updates=False)
    yield opened
    opened.close()


@pytest.fixture
def user(mynah: Mynah) -> Iterator[User]:
    """Somebody with enough labels."""
    made = mynah.accounts.add(f"person {len(mynah.accounts.people())}", PASSWORD)
    teach(mynah, made, 12)
    yield made
    for update in mynah.store.versions.live_updates(made.id):
        mynah.store.versions.set_state(update.id, "cancelled")


@pytest.fixture
def torn(mynah: Mynah) -> User:
    """Somebody whose clicks say one thing and then the opposite."""
    made = mynah.accounts.add("torn", PASSWORD)
    for number in range(12):
        texts = [f"You can count to {number}, and you will like it!", f"The number {number} is a number."]
        asked = [{"role": "user", "content": f"What is good about the number {number}?"}]
        mynah.learning.bring(made, [{"messages": asked, "replies": texts, "ranking": [[number % 2], [1 - number % 2]]}])
    return made


def updates_of(mynah: Mynah, config: Config | None = None, numbers: UpdateConfig | None = None) -> Updates:
    """Updates over the shared services, as after a restart."""
    config = config or mynah.config
    numbers = numbers or mynah.updates.numbers
    return Updates(mynah.store, mynah.learning, mynah.engine, mynah.versions, mynah.files, config, numbers)


def state_of(mynah: Mynah, update: Update) -> str:
    return mynah.store.versions.update(update.user_id, update.id).state


def worker_of(job: Path) -> psutil.Process:
    return psutil.Process(int((job / "pid").read_text()))


def over(process: psutil.Process) -> bool:
    """Whether a process has ended."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_labels_that_do_not_foretell_one_another_train_nothing(mynah: Mynah, torn: User) -> None:
    numbers = UpdateConfig.from_dict(tiny_numbers({"foretold": 0.0}))
    begun = datetime.now()
    ended = updates_of(mynah, numbers=numbers).run_here(torn)
    assert datetime.now() - begun < timedelta(seconds=10), "no worker was started"
    assert (ended.state, ended.version, ended.reason) == ("rejected", None, "")
    (check,) = ended.gate
    assert check["check"] == "foretold" and not check["passed"] and "12 labels" in check["words"]
    assert mynah.store.versions.versions(torn.id) == [] and not (mynah.config.jobs / ended.id).exists()
    assert (
        mynah.store.acts.labels_after(torn.id, mynah.store.versions.last_label(torn.id, mynah.engine.base_id)) == 0
    ), "the next one waits for new labels"


def test_an_update_becomes_the_version_that_is_served(mynah: Mynah, user: User) -> None:
    seen: list[Update] = []
    ended = mynah.updates.run_here(user, seen.append)
    assert (ended.state, ended.reason) == ("promoted", "")
    assert (ended.version, ended.progress) == (1, 1.0)
    version = mynah.store.versions.active(user.id, mynah.engine.base_id)
    assert version is not None and version.number == 1 and version.update_id == ended.id
    assert (version.first_label, version.last_label) == (1, 12)
    assert mynah.versions.check(version).is_dir()
    assert UpdateConfig.from_dict(version.config) == mynah.updates.numbers
    assert version.gate and all(check["passed"] for check in version.gate)
    steps = version.metrics["steps"]
    assert any("objective/kl" in step and "val/ratio" in step for step in steps)
    assert [update.progress for update in seen] == sorted(update.progress for update in seen)
    assert not any(mynah.config.jobs.iterdir()), "the job is gone"

    turn = mynah.chat.start(user, ChatRequest([{"role": "user", "content": "Hello!"}], arm="adapter", max_tokens=4))
    assert [reply.version for reply in turn.replies()] == [1]
    mynah.updates.activate(user, "base")
    assert mynah.active(user) is None
    assert mynah.store.versions.version(user.id, 1).status == "rolled back"
    mynah.updates.activate(user, "v1")
    assert mynah.active(user) is not None
    for name, error in (("v2", NotFound), ("3", InvalidInput), ("v0x", InvalidInput), ("", InvalidInput)):
        with pytest.raises(error):
            mynah.updates.activate(user, name)

    weights = mynah.versions.path(user.id, 1) / "adapter_model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + b"x")
    mynah.updates.activate(user, "base")
    with pytest.raises(CorruptFile):
        mynah.updates.activate(user, "v1")
    weights.write_bytes(sound)


def test_a_job_that_another_release_froze_is_frozen_anew(mynah: Mynah, user: User) -> None:
    updates = updates_of(mynah)
    update = updates.request(user)
    job = mynah.config.jobs / update.id
    updates._trainer._freeze(update)
    old = read_json(job / "job.json")
    del old["foretold"]
    write_json(job / "job.json", old)
    (job / "checkpoint").mkdir()
    mynah.store.versions.set_state(update.id, "paused")
    assert not can_be_read(job)
    ended = updates.run_here(user)
    assert (ended.id, ended.state, ended.version) == (update.id, "promoted", 1)


def test_a_restart_pauses_and_goes_on(mynah: Mynah, user: User) -> None:
    """Also: at a low priority, one at a time, a killed worker goes on, and what fails the gate is never served."""
    numbers = UpdateConfig.from_dict(tiny_numbers(SHUT_GATE))
    with closing(updates_of(mynah, numbers=numbers)) as updates:
        updates.start()
        update = updates.request(user)
        with pytest.raises(Conflict, match="under way"):
            updates.request(user)
        job = mynah.config.jobs / update.id
        wait_for(lambda: (job / "checkpoint" / "own.safetensors").exists())
        assert state_of(mynah, update) == "running"
        first = worker_of(job)
        assert first.nice() == mynah.config.nice
        assert os.getsid(first.pid) == os.getsid(0) and os.getpgid(first.pid) == first.pid, "so that nice counts"
        assert updates.forecast(user).position == 0
        begun = datetime.now()
    assert datetime.now() - begun < timedelta(seconds=10)
    assert over(first)
    assert state_of(mynah, update) == "paused"

    with closing(updates_of(mynah, numbers=numbers)) as updates:
        updates.start()
        wait_for(lambda: (job / "pid").read_text() != str(first.pid))
        assert read_report(job).progress > 0, "it goes on where it was"
        os.kill(worker_of(job).pid, signal.SIGKILL)
        wait_for(lambda: state_of(mynah, update) in ("promoted", "rejected", "failed"))
    ended = updates.get(user, update.id)
    assert (ended.state, ended.version, ended.reason) == ("rejected", 1, "")
    assert any(not check["passed"] for check in ended.gate)
    assert not job.exists()
    assert mynah.active(user) is None
    assert mynah.store.versions.version(user.id, 1).status == "rejected"
    with pytest.raises(Conflict, match="gate"):
        updates.activate(user, "v1")


def test_cancelling_ends_the_worker_and_leaves_nothing(mynah: Mynah, user: User) -> None:
    with closing(updates_of(mynah)) as updates:
        updates.start()
        update = updates.request(user)
        job = mynah.config.jobs / update.id
        wait_for(lambda: (job / "pid").exists())
        worker = worker_of(job)
        assert updates.cancel(user, update.id).state == "cancelled"
        with pytest.raises(Conflict, match="ended already"):
            updates.cancel(user, update.id)
        wait_for(lambda: not job.exists())
    assert over(worker)
    assert mynah.store.versions.versions(user.id) == []


def test_removing_a_person_ends_their_update(mynah: Mynah, user: User) -> None:
    with closing(updates_of(mynah)) as updates:
        updates.start()
        update = updates.request(user)
        job = mynah.config.jobs / update.id
        wait_for(lambda: (job / "pid").exists())
        worker = worker_of(job)
        receipt = mynah.remove_person(user)
        assert receipt["jobs"] == 1 and receipt["rows"]["updates"] == 1
    assert over(worker)
    assert not job.exists() and not mynah.versions.path(user.id, 1).parent.exists()


def test_a_defect_ends_its_update_with_a_reason(
    mynah: Mynah, user: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It must not stand at the head of the line for ever."""

    def broken(user_id: str) -> None:
        raise ZeroDivisionError("for the test")

    monkeypatch.setattr(mynah.learning, "split_heads", broken)
    ended = mynah.updates.run_here(user)
    assert ended.state == "failed" and "ZeroDivisionError" in ended.reason
    assert "for the test" in caplog.text
    assert list(mynah.config.jobs.iterdir()) == []


def test_a_worker_that_cannot_even_start_says_what_is_known(
    mynah: Mynah, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for failure, told in (("MemoryError", "too little memory"), ("ValueError('so')", "before it could say why")):
        (tmp_path / "torch.py").write_text(f"raise {failure}")
        ended = mynah.updates.run_here(user)
        assert ended.state == "failed" and told in ended.reason
    assert "the last it wrote: ValueError: so" in caplog.text


def test_a_pool_whose_workers_crash_is_given_up(mynah: Mynah, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CHATTING_SECONDS", 0.0)
    numbers = replace(mynah.updates.numbers, pool=replace(mynah.updates.numbers.pool, seed=99))
    for name, value in Lines(("adapters/worker.py",)).environment(tmp_path / "count", 1).items():
        monkeypatch.setenv(name, value)
    with closing(updates_of(mynah)) as updates:
        built = [updates._trainer.build_pool(numbers, lambda: False) for _ in range(trainer.MAX_CRASHES)]
    assert built == [True, True, False], "tried again, but not for ever"
    assert not (mynah.config.jobs / "pool").exists()


def test_too_few_labels_say_how_many_are_missing(mynah: Mynah) -> None:
    newcomer = mynah.accounts.add("newcomer", PASSWORD)
    teach(mynah, newcomer, 4)
    with pytest.raises(TooFewLabels) as caught:
        mynah.updates.request(newcomer)
    assert caught.value.needed == 6


def test_labels_taken_back_while_it_waits_end_it_with_a_reason(mynah: Mynah, user: User) -> None:
    with closing(updates_of(mynah)) as updates:
        updates.request(user)
        for act in mynah.store.acts.live_labels(user.id)[3:]:
            mynah.learning.retract(user, act)
        ended = updates.run_here(user)
    assert (ended.state, ended.reason) == ("failed", "An update needs 10 labels and there are 3; give 7 more.")


def test_updates_start_by_themselves_for_who_waited_longest(mynah: Mynah) -> None:
    """In a window that is open now, with twenty new labels, and not before."""
    now = datetime.now()
    window = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    early, late = (mynah.accounts.add(name, PASSWORD) for name in ("early", "late"))
    with closing(updates_of(mynah, replace(mynah.config, updates=window))) as updates:
        teach(mynah, early, 19)
        assert early.id not in updates._due() and updates.forecast(early).labels_needed == 1
        teach(mynah, early, 1)
        teach(mynah, late, 20)
        finished = mynah.store.versions.queue(late.id, mynah.engine.base_id, "asked", 0, None, (0, 0), {})
        mynah.store.versions.set_state(finished.id, "failed", "for the test")
        assert updates.forecast(late).position == 2 and "turns" in updates.forecast(late).why
        updates.start()
        wait_for(lambda: bool(mynah.store.versions.live_updates()))
        (update,) = mynah.store.versions.live_updates()
        assert update.user_id == early.id and update.trigger == "automatic"
        updates.cancel(early, update.id)
    for user in (early, late):
        mynah.remove_person(user)


def test_an_update_of_another_base_is_ended_with_a_reason(mynah: Mynah, user: User) -> None:
    update = mynah.store.versions.queue(user.id, "other@000000000000/nf4", "asked", 0, None, (1, 12), {})
    with closing(updates_of(mynah)) as updates:
        updates.start()
    ended = updates.get(user, update.id)
    assert ended.state == "cancelled" and "other@000000000000/nf4" in ended.reason


def test_version_names() -> None:
    assert version_number("base") is None and version_number("v12") == 12
    for bad in ("12", "v", "v-1", "V1", "v²", "v" + "9" * 30):
        with pytest.raises(InvalidInput):
            version_number(bad)
