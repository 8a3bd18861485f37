"""The server under test: the project's own command in a process of its own, on a free port, over a new data folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a long enough password"
START_SECONDS = 180
STARTED = r"account: (\S+), password: (\S+)[\s\S]*is at (http://\S+)"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Site:
    """A running server: where it is, and what its first start said about the admin."""

    url: str
    admin: str
    admin_password: str
    environment: dict[str, str]

    def command(self, *words: str, given: str = "") -> str:
        """Run one of the project's commands beside the server."""
        done = subprocess.run(
            [sys.executable, "app.py", *words],
            cwd=ROOT,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def add(self, name: str) -> None:
        """A person with an account."""
        self.command("user", "add", name, "--password-stdin", given=PASSWORD)


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Site]:
    """Start a server over a folder and stop it afterwards; settings as in assistant/config.py."""
    values = {"data_dir": folder / "data", "port": 0, **settings}
    environment = {**os.environ, **{f"MYNAH_{name.upper()}": str(value) for name, value in values.items()}}
    log = folder / "log"
    with log.open("w") as out:
        server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=out, stderr=out)
        try:
            said = _started(log, server)
            yield Site(said[3], said[1], said[2], environment)
        finally:
            server.terminate()
            server.wait(30)
    assert "Traceback" not in log.read_text(), log.read_text()


def _started(log: Path, server: subprocess.Popen[bytes]) -> re.Match[str]:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(STARTED, log.read_text()):
            return found
        time.sleep(0.1)
    raise AssertionError(f"The server did not start: {log.read_text()}")
