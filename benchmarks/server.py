"""A real Mynah server in a process of its own, and a plain HTTP client: what `demo` and `footprint` drive.

Everything goes the way a stranger would go: `python app.py serve` on an empty data folder, accounts and keys by the
command line and the admin routes, the rest over HTTP.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from assistant.config import default_models_dir
from benchmarks.work import ROOT
from feedback.errors import MynahError

READY = "Mynah is at "
START_SECONDS = 900  # a first start also fetches and converts the base model
ENDED = ("promoted", "rejected", "failed", "cancelled")
ADMIN = "keeper"


class Server:
    """`python app.py serve` on a data folder, until the block ends."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir, self.options = data_dir, options
        self.address = ""
        self.started = 0.0  # by time.perf_counter

    def __enter__(self) -> Server:
        if not (self.data_dir / "mynah.db").exists():
            self.command("user", "add", ADMIN, "--admin", "--password-stdin", typed=os.urandom(12).hex())
        self.started = time.perf_counter()
        self._log = (self.data_dir / "server.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "app.py", "serve", "--port", "0", *self._where(), *self.options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self.address = self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The server's process; training runs below it."""
        return self._process.pid

    def close(self) -> None:
        """End it as an operator would: SIGTERM, then patience."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def command(self, *words: str, typed: str | None = None) -> str:
        """Run a command of the command line on this data folder; what it printed. Raises MynahError."""
        done = subprocess.run(
            [sys.executable, "app.py", *words, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            input=typed,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise MynahError(f"app.py {' '.join(words[:2])} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def client(self, name: str) -> Client:
        """A client with a fresh key of a person."""
        return Client(self.address, name, self.command("key", "create", name))

    def add(self, admin: Client, name: str) -> Client:
        """Make an account by the admin routes and sign in to it with a key."""
        admin.post("/v1/admin/users", {"name": name, "password": os.urandom(12).hex()})
        return self.client(name)

    def _where(self) -> list[str]:
        return ["--data-dir", str(self.data_dir), "--models-dir", str(default_models_dir())]

    def _wait_until_ready(self) -> str:
        """Read what the server prints until it answers. Raises MynahError with the end of its log."""
        watchdog = threading.Timer(START_SECONDS, self._process.kill)
        watchdog.start()
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if line.startswith(READY):
                    return line.removeprefix(READY).strip()
        finally:
            watchdog.cancel()
        self._process.wait()
        log = (self.data_dir / "server.log").read_text("utf-8", "replace").strip()[-500:]
        raise MynahError(f"The server ended before it answered (exit code {self._process.returncode}): {log}")


@dataclass(frozen=True)
class Choice:
    """One reply as it came. ended: the model ended it by itself, so it was not cut by the limit."""

    reply_id: str
    text: str
    ended: bool


@dataclass(frozen=True)
class Answer:
    """All replies to one request, and who wrote them."""

    choices: list[Choice]
    arm: str
    version: str | None


class Client:
    """One person over HTTP. Every refusal raises MynahError with the server's own words."""

    def __init__(self, address: str, name: str, key: str) -> None:
        self.name = name
        self._http = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=300)

    def get(self, path: str) -> Any:
        """GET, as JSON."""
        return self._checked(self._http.get(path)).json()

    def post(self, path: str, body: Any = None) -> Any:
        """POST, as JSON."""
        return self._checked(self._http.post(path, json=body if body is not None else {})).json()

    def download(self, path: str) -> bytes:
        """GET, as bytes."""
        return self._checked(self._http.get(path)).content

    def chat(self, text: str, *, n: int = 1, arm: str = "auto", seed: int | None = None, **more: Any) -> Answer:
        """Ask one question. more: further fields of the request, `model` and `max_tokens` among them."""
        body = {"model": "mynah", "max_tokens": 64, "messages": [{"role": "user", "content": text}], "n": n} | more
        if seed is not None:
            body["seed"] = seed
        found = self.post("/v1/chat/completions", body | {"mynah": {"arm": arm}})
        choices = [
            Choice(each["reply_id"], each["message"]["content"], each["finish_reason"] == "stop")
            for each in found["choices"]
        ]
        return Answer(choices, found["mynah"]["arm"], found["mynah"]["version"])

    def thumb(self, reply_id: str, thumb: int) -> dict[str, Any]:
        """A thumb up (1) or down (-1)."""
        answer: dict[str, Any] = self.post("/v1/feedback", {"reply_id": reply_id, "thumb": thumb})
        return answer

    def rank(self, tiers: Sequence[Sequence[str]]) -> dict[str, Any]:
        """A ranking, best first."""
        answer: dict[str, Any] = self.post("/v1/feedback", {"ranking": [list(tier) for tier in tiers]})
        return answer

    def update(self, watch: Callable[[dict[str, Any]], None] = lambda seen: None, every: float = 2.0) -> dict[str, Any]:
        """Start an update and follow it to its end. watch: gets every state on the way. Adds `minutes`, from the
        request to the verdict."""
        update_id = self.post("/v1/me/updates")["update_id"]
        started = time.monotonic()
        while True:
            seen: dict[str, Any] = self.get(f"/v1/me/updates/{update_id}")
            watch(seen)
            if seen["state"] in ENDED:
                return seen | {"minutes": (time.monotonic() - started) / 60}
            time.sleep(every)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            words = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            words = response.text[:200]
        path = response.request.url.path
        raise MynahError(f"{response.request.method} {path} answered {response.status_code}: {words}")
