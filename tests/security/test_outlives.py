"""Chat outlives training: whatever becomes of the worker, replies are written, the update says how it ended, and the
next one can run.

A real server over HTTP with its real worker. Memory runs out for the worker at moments drawn over a whole update: from
then on the system refuses it every further page (RLIMIT_AS), so whatever allocates next fails in its own way.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from adapters.base_model import BaseFiles
from assistant.worker_process import FIRST_TO_GO
from tests.adapters.jobs import SMALL
from tests.assistant.serving import OPEN_GATE, PASSWORD, own_models, wait_for
from tests.assistant.test_cli import Place, Server
from tests.soak import cases

# Python itself sometimes loses a MemoryError ("SystemError: error return without exception set"), while it imports
# before anybody could tell.
MEMORY, LOST, UNKNOWN = "There was too little memory", "Training ended before", "The update met something unexpected"
TOLD = {False: (MEMORY, f"{UNKNOWN} (SystemError"), True: (MEMORY, LOST)}
ENDED = ("promoted", "rejected", "failed", "cancelled")


class Ada:
    """Somebody with enough labels for an update, and the server she uses."""

    def __init__(self, place: Place, server: Server) -> None:
        self.jobs = place.data / "jobs"
        place.run("user", "add", "Ada", "--password-stdin", stdin=f"{PASSWORD}\n")
        key = place.run("key", "create", "Ada")[0].strip()
        self.http = httpx.Client(base_url=server.address, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        item = {"messages": [{"role": "user", "content": "Hi"}], "replies": ["You!", "It."], "ranking": [[0], [1]]}
        assert self.http.post("/v1/me/preferences", json=[item] * 12).status_code == 201

    def asks(self) -> None:
        """One reply, chosen among drafts."""
        body = {"model": "mynah", "messages": [{"role": "user", "content": "Name three birds."}], "max_tokens": 8}
        answer = self.http.post("/v1/chat/completions", json=body | {"mynah": {"arm": "rerank"}})
        assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"], answer.text

    def update(self) -> str:
        """Ask for an update; its id."""
        answer = self.http.post("/v1/me/updates")
        assert answer.status_code == 202, answer.text
        return str(answer.json()["update_id"])

    def seen(self, update_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/v1/me/updates/{update_id}").json())

    def ended(self, update_id: str) -> dict[str, Any]:
        """The update once it has come to its end, and its folder is gone."""
        wait_for(lambda: self.seen(update_id)["state"] in ENDED and not (self.jobs / update_id).exists())
        return self.seen(update_id)

    def worker(self, update_id: str, other_than: int = 0) -> psutil.Process:
        """The process that trains, once it is there."""
        file = self.jobs / update_id / "pid"
        wait_for(lambda: file.exists() and int(file.read_text() or 0) not in (0, other_than))
        return psutil.Process(int(file.read_text()))


@pytest.fixture(scope="module")
def server(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("outlives")
    place = Place(folder, own_models(base_files, folder / "models"))
    place.environment["MYNAH_UPDATES_PER_DAY"] = "1000"
    (folder / "update.json").write_text(json.dumps({**SMALL, "gate": {**SMALL["gate"], **OPEN_GATE}}))
    running = Server(place)
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture(scope="module")
def ada(server: Server) -> Iterator[Ada]:
    made = Ada(server.place, server)
    yield made
    made.http.close()


def test_memory_that_runs_out_for_training_ends_the_update_with_its_reason(ada: Ada) -> None:
    random, ran_out = np.random.default_rng(22), 0
    while ran_out < cases(20):
        ada.asks()
        update_id = ada.update()
        worker = ada.worker(update_id)
        if (moment := random.uniform(-0.3, 0.9)) < 0:  # while it starts
            sleep(-10 * moment)
        else:
            wait_for(lambda: ada.seen(update_id)["progress"] >= moment)  # noqa: B023
        try:
            now = worker.memory_info().vms
            worker.rlimit(psutil.RLIMIT_AS, (now, now))
        except psutil.NoSuchProcess:  # it was faster
            ada.ended(update_id)
            continue
        ada.asks()
        end = ada.ended(update_id)
        ada.asks()
        if end["state"] != "promoted":  # where it was nearly done, it may have needed no more
            ran_out += 1
            assert end["state"] == "failed" and end["reason"].startswith(TOLD[moment < 0]), (moment, end["reason"])
    assert ada.ended(ada.update())["state"] == "promoted"
    ada.asks()


def test_a_worker_that_is_killed_goes_on_but_not_for_ever(ada: Ada, server: Server) -> None:
    """As by a system without memory: which would take the worker first."""
    update_id, pid = ada.update(), 0
    for _ in range(3):
        worker = ada.worker(update_id, other_than=pid)
        pid = worker.pid
        scores = [int(Path(f"/proc/{each}/oom_score_adj").read_text()) for each in (pid, server.process.pid)]
        assert scores[0] == max(scores[1], FIRST_TO_GO)
        ada.asks()
        os.kill(pid, signal.SIGKILL)
        ada.asks()
    end = ada.ended(update_id)
    assert end["state"] == "failed"
    assert end["reason"] == ("Training was ended from outside (exit code -9), 3 times; there may be too little memory.")
    update_id = ada.update()
    crash = ada.worker(update_id)
    sleep(1)
    crash.send_signal(signal.SIGSEGV)
    ada.asks()
    assert ada.ended(update_id)["state"] == "promoted", "once is no reason to give up"
    ada.asks()
