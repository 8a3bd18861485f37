"""Acknowledged feedback survives: a server is killed with -9 under load, again and again, and nothing of it is lost.

The servers are real ones, with pages, database, heads and language model: each is forked from a process that has
imported everything and checked the base model's files already, since that takes most of a start. Between two of them,
what their clients were told is compared with what the database holds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from adapters.base_model import BaseFiles
from adapters.latents import LATENTS
from assistant.accounts import Accounts
from assistant.heads import Heads
from assistant.mynah import trait_record
from assistant.profile import profile_of
from feedback.population import load_population
from feedback.store import Store
from feedback.types import Feedback, User, new_id
from tests.assistant.serving import PASSWORD, own_models, wait_for
from tests.soak import cases

ROOT = Path(__file__).resolve().parents[2]
READY = "Mynah is at "
PEOPLE = 3  # who click, import and chat at once
SPAWNER = """
import ctypes, os, signal, sys
import assistant.api.app, assistant.mynah, assistant.ui.app, uvicorn
from assistant.config import Config
from assistant.serve import serve

config = Config.build({})
files = assistant.mynah.prepare_base(config.base_model, config.models_dir, config.quantize)
assistant.mynah.prepare_base = lambda *asked: files
print("imported", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # no server outlives this process
        print(f"process {os.getpid()}", flush=True)
        sys.exit(serve(config, {}))
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""


class Servers:
    """One server after the other on a data folder."""

    def __init__(self, data: Path, models: Path) -> None:
        environment = {
            **os.environ, "MYNAH_DATA_DIR": str(data), "MYNAH_MODELS_DIR": str(models), "MYNAH_PORT": "0",
            "MYNAH_UPDATES": "off", "MYNAH_REQUESTS_PER_MINUTE": "100000", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._log = data.with_suffix(".log").open("w+")
        self._spawner = subprocess.Popen(
            [sys.executable, "-c", SPAWNER], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        self._until("imported")
        self.pid = 0

    def start(self) -> str:
        """Another server; its address."""
        assert self._spawner.stdin is not None
        self._spawner.stdin.write("start\n")
        self._spawner.stdin.flush()
        self.pid = int(self._until("process "))
        return self._until(READY)

    def end(self, how: signal.Signals) -> None:
        """Send it a signal, and wait for its end."""
        os.kill(self.pid, how)
        self._until("ended")

    def close(self) -> str:
        """End everything; what was logged."""
        assert self._spawner.stdin is not None and self._spawner.stdout is not None
        self._spawner.stdin.close()  # ends the loop, once no server runs
        self._spawner.kill()
        self._spawner.wait()
        self._spawner.stdout.close()
        self._log.seek(0)
        log = self._log.read()
        self._log.close()
        return log

    def _until(self, beginning: str) -> str:
        """The rest of the next line that begins so."""
        assert self._spawner.stdout is not None
        for line in self._spawner.stdout:
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
        self._log.seek(0)
        raise AssertionError(f"it ended before it said {beginning!r}: {self._log.read()[-2000:]}")


@dataclass
class Request:
    """An act of feedback as it is sent, and sent again. count: how many acts it brings."""

    path: str
    body: Any
    key: str = field(default_factory=lambda: new_id("key"))
    count: int = 1


class Clicker:
    """Somebody with a program that never rests: what it was told stands in `given` and `taken_back`."""

    def __init__(self, user: User, secret: str, seed: int) -> None:
        self.user = user
        self.headers = {"Authorization": f"Bearer {secret}"}
        self.random = np.random.default_rng(seed)
        self.pairs: list[list[str]] = []  # ids of two replies to one prompt
        self.given: dict[str, tuple[Request, list[str]]] = {}  # by key, with the ids of its acts
        self.taken_back: set[str] = set()
        self.under_way: Request | str | None = None  # a request, or the id of an act that is to be taken back
        self.error: BaseException | None = None

    def client(self, address: str) -> httpx.Client:
        """A connection of its own."""
        return httpx.Client(base_url=address, headers=self.headers, timeout=60)

    def work(self, address: str) -> None:
        """Act until the server is gone."""
        try:
            with self.client(address) as http:
                while True:
                    self.act(http)
        except httpx.TransportError:
            pass
        except BaseException as error:
            self.error = error

    def act(self, http: httpx.Client) -> None:
        """One act, by chance."""
        kind = self.random.choice(["chat", "thumb", "rank", "bring", "retract"], p=[0.1, 0.4, 0.2, 0.2, 0.1])
        if kind == "chat" or not self.pairs:
            self.chat(http)
        elif kind == "bring":
            self.give(http, Request("/v1/me/preferences", [self.preference(), self.preference()], count=2))
        elif kind == "retract" and self.given:
            self.take_back(http, str(self.random.choice([ids[0] for _, ids in self.given.values()])))
        else:
            pair = list(self.random.permutation(self.pairs[self.random.integers(len(self.pairs))]))
            thumb = {"reply_id": pair[0], "thumb": int(self.random.choice([1, -1])), "comment": f"{len(self.given)}"}
            self.give(http, Request("/v1/feedback", thumb if kind == "thumb" else {"ranking": [[one] for one in pair]}))

    def chat(self, http: httpx.Client) -> None:
        """Two replies to a question."""
        asked = [{"role": "user", "content": f"What is good about the number {self.random.integers(1000)}?"}]
        body = {"model": "mynah", "messages": asked, "n": 2, "max_tokens": 2, "mynah": {"arm": "base"}}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        self.pairs.append([choice["reply_id"] for choice in answer.json()["choices"]])

    def preference(self) -> dict[str, Any]:
        """One that was given elsewhere."""
        number = int(self.random.integers(1000))
        return {
            "messages": [{"role": "user", "content": f"What is {number}?"}],
            "replies": [f"You can count to {number}!", f"The number {number} is a number."],
            "ranking": [[0], [1]],
        }

    def give(self, http: httpx.Client, request: Request) -> None:
        """Send an act, and remember what came back."""
        self.under_way = request
        answer = http.post(request.path, json=request.body, headers={"Idempotency-Key": request.key})
        assert answer.status_code == 201, answer.text
        told = answer.json()
        ids = told.get("feedback_ids") or [told["feedback_id"]]
        assert len(ids) == request.count
        before = self.given.setdefault(request.key, (request, ids))[1]
        assert ids == before, "sent again, it is the same act"
        self.under_way = None

    def take_back(self, http: httpx.Client, feedback_id: str) -> None:
        """Take an act back; one that was taken back or replaced already is not there."""
        self.under_way = feedback_id
        answer = http.delete(f"/v1/feedback/{feedback_id}")
        assert answer.status_code in (200, 404), answer.text
        self.taken_back.add(feedback_id)
        self.under_way = None

    def again(self, http: httpx.Client) -> None:
        """After a restart: what was under way, and something that was acknowledged long ago."""
        if isinstance(self.under_way, Request):
            self.give(http, self.under_way)
        elif self.under_way is not None:
            self.take_back(http, self.under_way)
        for key in self.random.permutation(list(self.given))[:3]:
            self.give(http, self.given[key][0])

    def check(self, events: list[Feedback]) -> None:
        """What was acknowledged is there, and nothing else but what was under way."""
        there = {event.id: event for event in events}
        acknowledged = {name for _, ids in self.given.values() for name in ids}
        assert acknowledged <= set(there), "an acknowledged act is lost"
        unasked, sent = set(there) - acknowledged, self.under_way
        allowed = (0, sent.count) if isinstance(sent, Request) else (0,)
        assert len(unasked) in allowed, "an act is there twice, or half of an import"
        assert all(there[name].retracted_at for name in self.taken_back), "what was taken back is there again"


@pytest.fixture
def clickers(tmp_path: Path) -> Iterator[list[Clicker]]:
    """Some people with a key each, and the last one, who will not click while servers are killed."""
    (tmp_path / "data").mkdir()
    store = Store(tmp_path / "data" / "mynah.db")
    accounts = Accounts(store)
    made = []
    for number in range(PEOPLE + 1):
        user = accounts.add(f"Person {number}", PASSWORD, admin=number == 0)
        made.append(Clicker(user, accounts.create_key(user)[1], number))
    store.close()
    yield made


def acts(people: list[Clicker]) -> int:
    """How many requests were acknowledged."""
    return sum(len(one.given) for one in people)


def taught(path: Path, one: Clicker, base_id: str) -> list[dict[str, object]]:
    """What a server should know of somebody, to the last bit, by the acts that the database holds."""
    store = Store(path)
    heads = Heads(store, base_id, population := load_population(LATENTS))
    profile = profile_of(heads.head(one.user.id), heads.acts(one.user.id), {}, population.together)
    store.close()
    return [trait_record(trait) for trait in profile]


def test_no_acknowledged_act_is_lost_and_none_is_doubled(
    base_files: BaseFiles, clickers: list[Clicker], tmp_path: Path
) -> None:
    path, random = tmp_path / "data" / "mynah.db", np.random.default_rng(11)
    *busy, quiet = clickers
    servers = Servers(tmp_path / "data", own_models(base_files, tmp_path / "models"))
    moved = cut = 0
    known: dict[str, list[dict[str, object]]] = {}
    try:
        for number in range(cases(200) + 1):
            address = servers.start()
            if number == 0:
                with quiet.client(address) as http:
                    for _ in range(5):
                        quiet.give(http, Request("/v1/me/preferences", quiet.preference()))
                for one in busy:
                    with one.client(address) as http:
                        one.chat(http)
            else:
                for one in clickers:
                    with one.client(address) as http:
                        traits = http.get("/v1/me/profile").json()["traits"]
                    assert traits == taught(path, one, base_files.base_id), "another head from the same acts"
                    moved += traits != known.get(one.user.id)
                    known[one.user.id] = traits
                for one in busy:
                    with one.client(address) as http:
                        one.again(http)
            store = Store(path)
            for one in clickers:
                one.check(store.acts.events(one.user.id))
            store.close()
            threads = [threading.Thread(target=one.work, args=[address]) for one in busy]
            for thread in threads:
                thread.start()
            enough = acts(busy) + random.integers(12)
            wait_for(lambda enough=enough: acts(busy) >= enough or any(one.error for one in busy), 60)
            time.sleep(random.uniform(0.0, 0.05))
            servers.end(signal.SIGKILL)
            for thread in threads:
                thread.join()
            assert [one.error for one in busy] == [None] * PEOPLE
            cut += sum(one.under_way is not None for one in busy)
            store = Store(path)
            assert store.database.check() == "ok"
            for one in clickers:
                one.check(store.acts.events(one.user.id))
            store.close()
    finally:
        log = servers.close()
    assert "Traceback" not in log, log[-3000:]
    assert cut > cases(200) / 4 and moved > cases(200) / 4 and acts(busy) > 3 * cases(200), (cut, moved)
