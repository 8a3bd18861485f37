"""Another project's server, started for tests and stopped with all its processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.assistant.serving import wait_for


class Program:
    """A server on a port of 127.0.0.1 that stays; {port} in the command stands for it. log: what it says."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, healthy: str) -> None:
        """healthy: the path that answers 200 once it serves."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", log
        self._command = [each.replace("{port}", str(self.port)) for each in command]
        self._environment, self._healthy = {**os.environ, **environment}, healthy
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                # All its processes end with this one, however this one ends (the pipe closes), and when it gives up.
                ["sh", "-c", '("$@"; kill -9 0) & cat > /dev/null; kill -9 0', "sh", *self._command],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, 600)

    def kill(self) -> None:
        """All its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            return httpx.get(self.url + self._healthy, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False
