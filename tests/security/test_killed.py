"""Updates are atomic: killed at any moment, the old version is served or the new one, and what was begun ends.

The real worker and the real server are ended with SIGKILL, at moments drawn over a whole run, and at lines drawn over
those that write files and rows, where a moment of the clock would seldom fall (tests/deaths).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from peft import LoraConfig

from adapters.base_model import BaseFiles
from adapters.files import read_json
from adapters.job import UpdateConfig, write_job
from adapters.latents import Latents
from adapters.policy import Policy
from adapters.progress import read_metrics
from adapters.versions import VersionFiles, fill, manifest_hash, verify
from assistant.adoption import adopt, debris
from assistant.config import Config
from assistant.doctor import examine
from assistant.worker_process import end_stale
from feedback.population import load_population
from feedback.store import Store
from tests.adapters.helpers import write
from tests.adapters.jobs import SMALL, own_base, tiny_job
from tests.assistant.serving import OPEN_GATE, PASSWORD, own_models, wait_for
from tests.assistant.test_cli import Place, Server
from tests.deaths.moments import Lines, drafts, reached, wait_or_kill
from tests.soak import cases

ROOT = Path(__file__).resolve().parents[2]
SAVING = Lines(("adapters/files.py", "adapters/checkpoint.py", "adapters/versions.py", "shutil.py"))
KILLED, NEVER = -9, 10**9


# ---- the worker ---------------------------------------------------------------------------------------------------


class Jobs:
    """The same update many times over, each in a folder of its own, with a base whose pool is not made yet."""

    def __init__(self, root: Path, base: BaseFiles, latents: Latents) -> None:
        self.root, self.base, self.population = root, base, load_population(len(latents.directions))
        self.count = root / "count"

    def new(self, name: str) -> Path:
        base, config = own_base(self.base, self.root / name / "base"), UpdateConfig.from_dict(SMALL)
        write_job(self.root / name / "job", tiny_job(base, self.population, config=config))
        return self.root / name / "job"

    def start(self, job: Path, line: int = 0) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"} | (SAVING.environment(self.count, line) if line else {})
        with (job / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "adapters.worker", str(job)]
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def come_out(job: Path) -> tuple[str, Any, list[dict[str, Any]]]:
    """What a job led to: the candidate's hash, its verdict, and what was measured on the way."""
    verify(job / "result")
    passing = ("progress", "eta_seconds", "seconds")
    rows = [{name: value for name, value in row.items() if name not in passing} for row in read_metrics(job)]
    return manifest_hash(job / "result"), read_json(job / "gate.json"), rows


def test_a_worker_killed_at_any_moment_comes_to_the_same_candidate(
    base_files: BaseFiles, latents: Latents, tmp_path: Path
) -> None:
    jobs, random = Jobs(tmp_path, base_files, latents), np.random.default_rng(20)
    whole, begun = jobs.new("whole"), monotonic()
    assert jobs.start(whole, NEVER).wait() == 0
    seconds, lines, expected = monotonic() - begun, reached(jobs.count), come_out(whole)

    kills = 0
    while kills < cases(30):
        job = jobs.new(f"after-{kills}")
        code, left = KILLED, lines
        while code == KILLED:
            if kills == cases(30):
                code = jobs.start(job).wait()
            elif kills % 2:
                code = wait_or_kill(jobs.start(job), random.uniform(0, seconds))
            else:
                code = jobs.start(job, int(random.integers(1, left + 1))).wait()
                left = max(1, left - reached(jobs.count))
            kills += code == KILLED
            if (job / "gate.json").exists():
                assert come_out(job) == expected, "the verdict comes last, when all else is there"
            for draft in drafts(job.parent / "base"):
                os.utime(draft, (0, 0))  # the pool is everybody's: what is left there goes after an hour
        assert code == 0, (job / "worker.log").read_text()
        assert come_out(job) == expected
        assert not drafts(job.parent)
        shutil.rmtree(job.parent)


# ---- taking a version in ------------------------------------------------------------------------------------------

STATE = {"layer.lora_A.weight": torch.arange(6.0).reshape(2, 3), "layer.lora_B.weight": torch.ones(3, 2)}
BASE = "base@000000000000/nf4"
CHECK = {"check": "kl", "value": 0.02, "bound": 0.1, "passed": True, "words": "close to the base"}


class Folder:
    """A data folder in which the update of a person is finished and not taken in yet; v1 is served."""

    def __init__(self, root: Path) -> None:
        self.config = Config(data_dir=root)
        self.versions = VersionFiles(self.config.adapters)

    @classmethod
    def new(cls, root: Path) -> Folder:
        root.mkdir()
        folder = cls(root)
        store = Store(folder.config.database)
        ada = store.people.add("Ada", "ada", "-")
        for number in (1, 2):
            update = store.versions.queue(ada.id, BASE, "asked", 7, None, (1, 20), {})
            assert store.versions.begin(update.id, None, (1, 20), {})
            job = folder.config.jobs / update.id
            (job / "result").mkdir(parents=True)
            fill(job / "result", STATE, LoraConfig(r=2, target_modules=["q_proj"]), {"number": number})
            for name, content in (("gate", [CHECK]), ("job", {})):
                (job / f"{name}.json").write_text(json.dumps(content))
            if number == 1:
                adopt(store, folder.versions, store.versions.update(ada.id, update.id), job)
                shutil.rmtree(job)
        store.close()
        return folder

    def look(self) -> tuple[int, str, list[Path]]:
        """The number that is served, the state of the last update, and what belongs to nothing; all rows are whole."""
        store = Store(self.config.database)
        (ada,) = store.people.all()
        for version in store.versions.versions(ada.id):
            self.versions.check(version)
        active, update = store.versions.active(ada.id, BASE), store.versions.updates(ada.id)[0]
        left = debris(store, self.config.adapters, self.config.jobs)
        assert store.database.check() == "ok"
        store.close()
        assert active is not None and (update.version == active.number) == (update.state == "promoted")
        return active.number, update.state, left


def test_taking_a_version_in_can_be_killed_at_any_line(tmp_path: Path) -> None:
    made = Folder.new(tmp_path / "made")
    command = [sys.executable, "-m", "tests.deaths.adopting"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as adopting:

        def take_in(line: int) -> tuple[Folder, int, int]:
            """In a copy of the folder: the copy, the exit status, how many lines there were."""
            assert adopting.stdin and adopting.stdout
            print(tmp_path / "data", line, file=adopting.stdin, flush=True)
            code, lines = adopting.stdout.readline().split()
            return Folder(tmp_path / "data"), int(code), int(lines)

        def fresh() -> None:
            shutil.rmtree(tmp_path / "data", ignore_errors=True)
            shutil.copytree(made.config.data_dir, tmp_path / "data")

        fresh()
        folder, code, lines = take_in(0)
        assert code == 0 and folder.look() == (2, "promoted", [])
        places = np.random.default_rng(21).permutation(lines)[: cases(400)] + 1
        ends = set()
        for line in places.tolist():
            fresh()
            folder, code, reached_line = take_in(line)
            assert (code, reached_line) == (KILLED, line)
            served, state, _ = folder.look()
            assert (served, state) in ((1, "running"), (2, "promoted"))
            ends.add(state)
            folder, code, _ = take_in(0)
            served, state, left = folder.look()
            assert code == 0 and served > 1 and (state, left) == ("promoted", [])
            assert not any(folder.config.jobs.iterdir())
        assert ends == {"running", "promoted"}, "before and after the row, both were tried"


# ---- the server ---------------------------------------------------------------------------------------------------

SEA = "Tell me about the sea."


class Person:
    """Somebody who talks to whichever server is there."""

    def __init__(self, place: Place, server: Server) -> None:
        place.run("user", "add", "Ada", "--password-stdin", stdin=f"{PASSWORD}\n")
        self.server, self.headers = server, {"Authorization": f"Bearer {place.run('key', 'create', 'Ada')[0].strip()}"}

    def get(self, path: str) -> dict[str, Any]:
        return dict(httpx.get(self.server.address + path, headers=self.headers, timeout=60).raise_for_status().json())

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        address = self.server.address + path
        return dict(httpx.post(address, json=body, headers=self.headers, timeout=60).raise_for_status().json())

    def asks(self) -> tuple[str, str]:
        """The version that answers, and what it says."""
        body = {"model": "mynah", "messages": [{"role": "user", "content": SEA}], "temperature": 0, "max_tokens": 12}
        found = self.post("/v1/chat/completions", body | {"mynah": {"arm": "adapter"}})
        return found["mynah"]["version"], found["choices"][0]["message"]["content"]

    def end_of(self, update_id: str) -> str:
        """The state of an update once it has come to its end."""
        seen: list[str] = []

        def over() -> bool:
            seen.append(self.get(f"/v1/me/updates/{update_id}")["state"])
            return seen[-1] not in ("queued", "running", "paused")

        wait_for(over)
        return seen[-1]


def served(place: Place) -> tuple[int, Path]:
    """The number and the folder of Ada's version that is served, as it lies there; every version is whole."""
    store, files = Store(place.data / "mynah.db"), VersionFiles(place.data / "adapters")
    (ada,) = [user for user in store.people.all() if user.name == "Ada"]
    versions = store.versions.versions(ada.id)
    for version in versions:
        files.check(version)
    active = store.versions.active(ada.id, versions[0].base_id)
    store.close()
    assert active is not None
    return active.number, files.path(ada.id, active.number)


def answers(policy: Policy, folder: Path) -> str:
    """What the weights in a version's folder answer."""
    policy.load_adapter("told", folder)
    ids = write(policy, policy.render([{"role": "user", "content": SEA}]), "told", tokens=12)
    policy.drop_adapter("told")
    return policy.renderer.text(ids)


@pytest.fixture
def place(base_files: BaseFiles, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, own_models(base_files, tmp_path / "models"))
    (tmp_path / "update.json").write_text(json.dumps({**SMALL, "gate": {**SMALL["gate"], **OPEN_GATE}}))
    yield made
    for job in (made.data / "jobs").glob("*"):  # a worker whose server was killed, should the test have failed
        end_stale(job)


def test_a_server_killed_while_it_updates_serves_the_old_version_or_the_new(place: Place, policy: Policy) -> None:
    """Its worker is left behind; the next server takes the update up."""
    random, server = np.random.default_rng(22), Server(place)
    try:
        ada = Person(place, server)
        item = {"messages": [{"role": "user", "content": "Hi"}], "replies": ["You!", "It."], "ranking": [[0], [1]]}
        ada.post("/v1/me/preferences", [item] * 12)
        begun = monotonic()
        assert ada.end_of(ada.post("/v1/me/updates")["update_id"]) == "promoted"
        seconds = monotonic() - begun
        for _ in range(cases(10)):
            old, _ = served(place)
            update_id = ada.post("/v1/me/updates")["update_id"]
            sleep(random.uniform(0, seconds))
            server.process.kill()
            server.process.communicate()
            assert served(place)[0] in (old, old + 1)
            ada.server = server = Server(place)
            said, (number, folder) = ada.asks(), served(place)
            assert said in (
                (f"v{old}", answers(policy, folder.with_name(f"v{old}"))),
                (f"v{number}", answers(policy, folder)),
            )
            assert ada.end_of(update_id) == "promoted"
            wait_for(lambda: not any((place.data / "jobs").iterdir()))
        number, folder = served(place)
        assert ada.asks() == (f"v{number}", answers(policy, folder))
        config = Config.build({"data_dir": place.data, "models_dir": place.folder / "models"}, {})
        assert [finding for finding in examine(config) if not finding.ok] == []
    finally:
        server.process.kill()
        server.process.communicate()
