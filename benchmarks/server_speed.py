"""What only a whole server shows: how soon after its start there is a first token, also when the one before was killed
in the middle of an update, and what a thousand accounts cost.

Measured by `benchmarks.speed` and `benchmarks.endurance`, each against its bound in the same run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from adapters.prompts import shipped_prompts
from benchmarks.search_load import fill
from benchmarks.server import ADMIN, Client, Server
from benchmarks.work import ROOT
from feedback.store import Store

ACTIVE, REGISTERED = 8, 1000
MESSAGES = 10  # that everybody who only has an account once wrote and got
TOKENS = 48
LOAD = """
import assistant.serve
from adapters.base_model import DEFAULT_BASE, prepare_base
from adapters.policy import Policy
from assistant.config import default_models_dir
Policy.load(prepare_base(DEFAULT_BASE, default_models_dir(), "nf4"))
"""

Seconds = Callable[[], float]


@contextmanager
def first_token() -> Iterator[tuple[Seconds, Seconds]]:
    """Seconds from `python app.py serve` to the first token of a first reply, and of imports and loading alone."""
    with TemporaryDirectory(prefix="mynah-start-") as folder:
        with Server(Path(folder), "--updates", "off") as server:
            key = server.command("key", "create", ADMIN)

        def whole() -> float:
            with Server(Path(folder), "--updates", "off") as server:
                _first_piece(server.address, key)
                return time.perf_counter() - server.started

        yield whole, _loading


@contextmanager
def recovery() -> Iterator[tuple[Seconds, Seconds]]:
    """Seconds from `python app.py serve` to a first token after the server before was killed with -9 while an update
    ran, whose worker is still there; and after an orderly end, with nothing under way."""
    with TemporaryDirectory(prefix="mynah-killed-") as folder:
        with Server(Path(folder), "--updates", "off") as server, closing(server.client(ADMIN)) as client:
            key = server.command("key", "create", ADMIN)
            client.post("/v1/me/preferences", [_preference(number) for number in range(12)])

        def killed() -> float:
            with Server(Path(folder), "--updates", "off") as server, closing(server.client(ADMIN)) as client:
                update = f"/v1/me/updates/{client.post('/v1/me/updates')['update_id']}"
                while not client.get(update)["progress"]:
                    time.sleep(0.2)
                os.kill(server.pid, signal.SIGKILL)
            with Server(Path(folder), "--updates", "off") as server:
                _first_piece(server.address, key)
                seconds = time.perf_counter() - server.started
                httpx.delete(f"{server.address}{update}", headers={"Authorization": f"Bearer {key}"})
            return seconds

        def orderly() -> float:
            with Server(Path(folder), "--updates", "off") as server:
                _first_piece(server.address, key)
                return time.perf_counter() - server.started

        yield killed, orderly


def _preference(number: int) -> dict[str, Any]:
    replies = [f"You can count to {number}!", f"The number {number} is a number."]
    return {"messages": [{"role": "user", "content": f"What is {number}?"}], "replies": replies, "ranking": [[0], [1]]}


def _loading() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", LOAD], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def _first_piece(address: str, key: str) -> str:
    """Ask for a reply as a stream, and hang up after the first word."""
    asked = {"model": "mynah", "stream": True, "max_tokens": 8, "mynah": {"arm": "base"}}
    messages = [{"role": "user", "content": "How do I keep bees?"}]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.stream(
        "POST", f"{address}/v1/chat/completions", json=asked | {"messages": messages}, headers=headers, timeout=120
    ) as lines:
        for line in lines.iter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line.removeprefix("data: "))["choices"]:
                    if text := choice["delta"].get("content"):
                        return str(text)
    raise RuntimeError("The server streamed no word.")


@contextmanager
def crowd() -> Iterator[tuple[Seconds, Seconds]]:
    """Seconds in which eight people get a reply each at the same time, on a server with a thousand accounts and on one
    that knows nobody else."""
    with TemporaryDirectory(prefix="mynah-many-") as many, TemporaryDirectory(prefix="mynah-few-") as few:
        with Server(Path(many)):
            pass  # makes the data folder
        with closing(Store(Path(many) / "mynah.db")) as store:
            for number in range(REGISTERED - ACTIVE):
                name = f"registered-{number}"
                user = store.people.add(name, name, "nobody signs in with this")
                fill(store, user.id, 1, MESSAGES)
        with Server(Path(many)) as large, Server(Path(few)) as small:
            yield _all_at_once(large), _all_at_once(small)


def _all_at_once(server: Server) -> Seconds:
    admin = server.client(ADMIN)
    people = [server.add(admin, f"active-{number}") for number in range(ACTIVE)]
    texts = [text for _, text in shipped_prompts("gate")]

    def ask(person: Client, text: str) -> None:
        person.chat(text, arm="base", max_tokens=TOKENS, seed=1)

    def run() -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(ACTIVE) as pool:
            list(pool.map(ask, people, texts))
        return time.perf_counter() - started

    return run
