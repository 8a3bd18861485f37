"""Where updates run: several at once and in turn, and what is lost begins again.

The cluster itself is in tests/ecosystem/test_ray.py; here is all that needs no Ray.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adapters.base_model import BaseFiles
from assistant.config import Config
from assistant.executor import LocalExecutor, make_executor
from assistant.mynah import Mynah
from assistant.ray_executor import RayJob, _Bridge, require_ray
from assistant.trainer import MAX_CRASHES
from assistant.updates import Updates
from assistant.worker_process import DONE, FAILED, LOST, PAUSED
from feedback.errors import InvalidInput, NotSupported
from feedback.types import User
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings, teach, wait_for

LOST_BECAUSE = "The node that trained it was lost"


# ---- the line, over an executor whose jobs end when the test says so ----------------------------------------------


class Job:
    """One job on the stage: it waits until it is told how it ends."""

    def __init__(self, stage: Stage, job: Path) -> None:
        self.job, self.lost, self._stage = job, "", stage
        self._code: int | None = None
        self._ended = threading.Event()

    def ends(self, code: int, lost: str = "") -> None:
        self.lost, self._code = lost, code
        self._ended.set()

    def wait(self, seconds: float) -> int | None:
        self._ended.wait(seconds)
        if self._code is not None:
            self._stage.on.discard(self)
        return self._code

    def give_way(self, chatting: bool) -> None:
        pass

    def pause(self, patience: float) -> int:
        self.ends(PAUSED)
        return self.wait(0) or PAUSED

    cancel = pause


class Stage:
    """An executor with a given room that notes who was on it."""

    elsewhere = True

    def __init__(self, room: int) -> None:
        self._room = room
        self.on: set[Job] = set()
        self.began: list[Job] = []
        self.most = 0

    def open(self) -> None:
        pass

    def room(self) -> int:
        return self._room

    def start(self, job: Path) -> Job:
        began = Job(self, job)
        self.on.add(began)
        self.began.append(began)
        self.most = max(self.most, len(self.on))
        return began

    def close(self) -> None:
        pass

    def wait_until_began(self, count: int, job: str = "") -> None:
        """Until so many have begun, or this one so many times."""
        wait_for(lambda: sum(job in ("", each.job.name) for each in self.began) >= count)


def wait_until(updates: Updates, user: User, update_id: str, state: str) -> None:
    wait_for(lambda: updates.get(user, update_id).state == state)


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    folder = tmp_path_factory.mktemp("executor")
    opened = open_mynah(settings(own_models(base_files, folder / "models"), folder / "data"), run_updates=False)
    yield opened
    opened.close()


def updates_on(mynah: Mynah, stage: Stage) -> Updates:
    return Updates(
        mynah.store, mynah.learning, mynah.engine, mynah.versions, mynah.files, mynah.config, mynah.updates.numbers,
        executor=stage,
    )  # fmt: skip


@pytest.fixture(scope="module")
def taught(mynah: Mynah) -> list[User]:
    """People with enough labels."""
    made = [mynah.accounts.add(f"person {number}", PASSWORD) for number in range(4)]
    for user in made:
        teach(mynah, user, 10)
    return made


@pytest.fixture
def people(mynah: Mynah, taught: list[User]) -> Iterator[list[User]]:
    """The same, with nothing under way."""
    yield taught
    for update in mynah.store.versions.live_updates():
        mynah.store.versions.set_state(update.id, "cancelled")


def test_as_many_at_once_as_there_is_room_for_the_oldest_request_first(mynah: Mynah, people: list[User]) -> None:
    stage = Stage(2)
    with closing(updates_on(mynah, stage)) as updates:
        asked = [updates.request(user).id for user in people]
        updates.start()
        for turn in range(len(people)):
            stage.wait_until_began(min(turn + 2, len(people)))
            assert {job.job.name for job in stage.on} == set(asked[turn : turn + 2])
            places = [updates.forecast(user).position for user in people[turn:]]
            assert places == [0, 0, 2, 3][: len(places)]
            if places[2:]:
                assert "2 run at a time" in updates.forecast(people[turn + 2]).why
            next(job for job in stage.on if job.job.name == asked[turn]).ends(FAILED)
            wait_until(updates, people[turn], asked[turn], "failed")
    began = [job.job.name for job in stage.began]
    assert set(began[:2]) == set(asked[:2]), "two begin at once, each in a thread of its own: either may be the first"
    assert began[2:] == asked[2:] and stage.most == 2


def test_what_is_lost_begins_again_but_not_for_ever(mynah: Mynah, people: list[User]) -> None:
    """And meanwhile others go on; a cancelled one ends."""
    stage = Stage(3)
    ada, bob, eve = people[:3]
    with closing(updates_on(mynah, stage)) as updates:
        lost, goes_on, unwanted = (updates.request(user).id for user in (ada, bob, eve))
        updates.start()
        wait_for(lambda: len(stage.began) == 3)
        updates.cancel(eve, unwanted)
        wait_for(lambda: len(stage.on) == 2)
        for number in range(MAX_CRASHES):
            stage.wait_until_began(number + 1, lost)
            (now,) = [job for job in stage.on if job.job.name == lost]
            (mynah.config.jobs / lost / "checkpoint").mkdir(exist_ok=True)
            now.ends(LOST, LOST_BECAUSE)
        wait_until(updates, ada, lost, "failed")
        assert updates.get(ada, lost).reason == f"{LOST_BECAUSE}; it was tried {MAX_CRASHES} times."
        assert updates.get(bob, goes_on).state == "running" and updates.get(eve, unwanted).state == "cancelled"
    assert updates.get(bob, goes_on).state == "paused"
    assert mynah.store.versions.versions(ada.id) == []


def test_a_second_result_of_one_job_makes_no_second_version(mynah: Mynah, people: list[User]) -> None:
    """Two attempts end as done, one after the update has ended: as a node does that comes back late."""
    stage = Stage(1)
    ada = people[3]
    with closing(updates_on(mynah, stage)) as updates:
        update = updates.request(ada)
        updates.start()
        wait_for(lambda: len(stage.began) == 1)
        first = stage.began[0]
        first.ends(LOST, LOST_BECAUSE)
        wait_for(lambda: len(stage.began) == 2)
        make_result(mynah, first.job)
        stage.began[1].ends(DONE)
        wait_until(updates, ada, update.id, "promoted")
        first.ends(DONE)
        make_result(mynah, first.job)  # it writes where its job was
        updates._trainer.work(update, lambda update: None)
    assert [version.number for version in mynah.store.versions.versions(ada.id)] == [1]
    assert not first.job.exists(), "what came late is gone"


def make_result(mynah: Mynah, job: Path) -> None:
    """A candidate and a verdict that lets it pass."""
    from adapters.versions import fill

    policy = mynah.engine.policy
    policy.new_adapter("made")
    (job / "result").mkdir(parents=True)
    fill(job / "result", policy.adapter_state("made"), policy.lora_config(), {"metrics": {}})
    policy.drop_adapter("made")
    (job / "job.json").touch()
    (job / "gate.json").write_text('[{"check": "kl", "value": 0, "bound": 1, "passed": true, "words": "near"}]')


# ---- refusals -----------------------------------------------------------------------------------------------------


def test_local_is_the_default() -> None:
    executor = make_executor(Config())
    assert isinstance(executor, LocalExecutor) and executor.room() == 1
    with pytest.raises(InvalidInput, match="executor"):
        Config(executor="slurm")
    with pytest.raises(InvalidInput, match="ray_address"):
        Config(ray_address="somewhere")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_a_server_that_wants_it_says_so(mynah: Mynah, tmp_path: Path) -> None:
    config = settings(mynah.config.models_dir, tmp_path / "data", executor="ray", ray_address="127.0.0.1:1")
    with pytest.raises(NotSupported, match="extra"):
        open_mynah(config)
    open_mynah(config, run_updates=False).close()  # commands that train nothing need none


def test_without_a_token_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ray")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidInput, match="RAY_AUTH_MODE=token"):
        require_ray()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(InvalidInput, match="RAY_AUTH_TOKEN"):
        require_ray()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret\n")
    require_ray()
    (tmp_path / ".ray" / "auth_token").write_text(" \n")
    with pytest.raises(InvalidInput, match="get-auth-token"):
        require_ray()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    require_ray()


# ---- the process between server and cluster -----------------------------------------------------------------------

CLIENT = """
import json, sys
print(json.dumps({"room": 4}), flush=True)
for line in sys.stdin:
    said = json.loads(line)
    if said["do"] == "start" and said["job"].endswith("late"):
        print(json.dumps({"key": said["key"], "code": 7, "lost": "gone"}), flush=True)
    elif said["do"] == "start" and said["job"].endswith("crash"):
        sys.exit(1)
    elif said["do"] == "end":
        print(json.dumps({"key": said["key"], "code": 3, "lost": ""}), flush=True)
"""


def test_an_attempt_hears_only_what_is_said_of_itself() -> None:
    bridge = _Bridge([sys.executable, "-c", CLIENT])
    with closing(bridge):
        assert bridge.greeted(60) and bridge.room == 4
        first, second = RayJob(bridge, Path("job-late")), RayJob(bridge, Path("job"))
        assert first.wait(60) == LOST and first.lost == "gone"
        assert second.wait(0) is None
        assert second.pause(60) == PAUSED
        again = RayJob(bridge, Path("job"))
        assert again.wait(0) is None, "the end of another attempt at the same job is not its own"
    assert bridge.over and again.wait(0) == LOST
    assert "connection" in again.lost


def test_a_client_that_breaks_down_takes_only_its_jobs_with_it() -> None:
    with closing(_Bridge([sys.executable, "-c", CLIENT])) as bridge:
        job, _ = RayJob(bridge, Path("job")), RayJob(bridge, Path("crash"))
        assert job.wait(60) == LOST and "connection" in job.lost
        assert job.pause(0) == PAUSED, "nothing is there that could be ended"
