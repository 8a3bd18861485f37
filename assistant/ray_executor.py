"""Updates on a Ray cluster, as the server sees them.

The server itself never imports Ray: a process of its own is the cluster's client (ray_bridge.py), so that a cluster
that breaks down takes that process with it and nobody's chat. The two talk in lines of JSON:

    to it       {"do": "start", "key", "job"}, {"do": "end", "key"}; the end of its input means: end everything
    from it     {"room": how many jobs the cluster can run at once}, {"key", "code", "lost"}, {"refused": why}

A key is one attempt at one job. What an attempt that was given up still says is said under a key that nobody hears.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import IO, Any

from assistant.worker_process import CANCELLED, LOST, PAUSED, ROOT
from feedback.errors import InvalidInput, NotSupported

CONNECT_SECONDS = 60.0
AGAIN_SECONDS = 30.0  # before a cluster that went away is looked for again

log = logging.getLogger(__name__)


class RayExecutor:
    """Runs jobs on the cluster at an address. threads: cores that each takes of its node; nice: its priority there."""

    elsewhere = True

    def __init__(self, address: str, threads: int, nice: int) -> None:
        self._address, self._options = address, [str(threads), str(nice)]
        self._bridge: _Bridge | None = None
        self._opened = 0.0
        self._lock = threading.Lock()

    def open(self) -> None:
        """Connect. Raises NotSupported without Ray, InvalidInput without tokens or where no cluster answers."""
        require_ray()
        with self._lock:
            bridge = self._bridge
        if bridge is None or bridge.over:
            bridge = self._connect()
        if not bridge.greeted(CONNECT_SECONDS):
            self.close()
            why = bridge.refused or f"nothing answered within {CONNECT_SECONDS:.0f} seconds"
            raise InvalidInput(
                f"ray_address is {self._address!r}, but no cluster can be used there: {why}. Start one with "
                "`ray start --head`, or leave --executor at local.",
                param="ray_address",
            )

    def room(self) -> int:
        """How many jobs the nodes have cores and memory for; 0 while there is no cluster, which is looked for again."""
        with self._lock:
            bridge = self._bridge
        if bridge is not None and bridge.over and time.monotonic() - self._opened > AGAIN_SECONDS:
            log.warning("Looking for the Ray cluster at %s again", self._address)
            bridge = self._connect()
        return 0 if bridge is None or bridge.over else bridge.room

    def start(self, job: Path) -> RayJob:
        """Send a job to a node."""
        with self._lock:
            bridge = self._bridge
        if bridge is None:
            bridge = self._connect()
        return RayJob(bridge, job)

    def close(self) -> None:
        """End the client, and with it whatever it still runs."""
        with self._lock:
            bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()

    def _connect(self) -> _Bridge:
        with self._lock:
            if self._bridge is not None:
                self._bridge.close()
            self._opened = time.monotonic()
            self._bridge = _Bridge([sys.executable, "-m", "assistant.ray_bridge", self._address, *self._options])
            return self._bridge


class RayJob:
    """One attempt at one job, somewhere on the cluster."""

    _numbers = count(1)

    def __init__(self, bridge: _Bridge, job: Path) -> None:
        self.job = job
        self._bridge, self._key = bridge, f"{job.name}-{next(self._numbers)}"
        bridge.say({"do": "start", "key": self._key, "job": str(job)})

    @property
    def lost(self) -> str:
        """What became of it, where it was lost."""
        return self._bridge.lost(self._key)

    def wait(self, seconds: float) -> int | None:
        """The exit code if it ends within this time."""
        return self._bridge.code(self._key, seconds)

    def give_way(self, chatting: bool) -> None:
        """Nothing to do: its node keeps so many cores for it."""

    def pause(self, patience: float) -> int:
        """End it; what it had finished has come back already."""
        self._bridge.say({"do": "end", "key": self._key})
        code = self._bridge.code(self._key, patience)
        return PAUSED if code is None or code == LOST else code

    def cancel(self, patience: float) -> int:
        """End it for good."""
        self.pause(patience)
        return CANCELLED


class _Bridge:
    """The cluster's client as a process."""

    def __init__(self, command: list[str]) -> None:
        self.room = 0
        self.refused = ""
        self._ended: dict[str, tuple[int, str]] = {}
        self._changed = threading.Condition()
        self._greeted = self._over = False
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C in the terminal is the server's to answer
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input: IO[str] = self._process.stdin
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()

    @property
    def over(self) -> bool:
        """Whether it has ended, and with it all that it ran."""
        return self._over

    def greeted(self, seconds: float) -> bool:
        """Whether it reached the cluster within this time."""
        with self._changed:
            self._changed.wait_for(lambda: self._greeted or self._over, seconds)
            return self._greeted

    def say(self, command: dict[str, str]) -> None:
        """Ask for something; nothing happens when it has ended."""
        with self._changed, contextlib.suppress(OSError, ValueError):
            self._input.write(json.dumps(command) + "\n")
            self._input.flush()

    def code(self, key: str, seconds: float) -> int | None:
        """How an attempt ended, if it does within this time."""
        with self._changed:
            self._changed.wait_for(lambda: key in self._ended or self._over, seconds)
            if key in self._ended:
                return self._ended[key][0]
            return LOST if self._over else None

    def lost(self, key: str) -> str:
        """Why there is no exit code."""
        with self._changed:
            return self._ended.get(key, (LOST, "The connection to the Ray cluster was lost"))[1]

    def close(self) -> None:
        """End it within seconds; it ends what it runs."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()

    def _listen(self, output: IO[str]) -> None:
        with output:
            for line in output:
                said: dict[str, Any] = json.loads(line)
                with self._changed:
                    self.room = int(said.get("room", self.room))
                    self._greeted = self._greeted or "room" in said
                    self.refused = str(said.get("refused", self.refused))
                    if "key" in said:
                        self._ended[said["key"]] = (int(said["code"]), str(said["lost"]))
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


def require_ray() -> None:
    """Raises NotSupported where Ray is missing, InvalidInput where the cluster would let anybody in."""
    if importlib.util.find_spec("ray") is None:
        raise NotSupported(
            'executor is ray, but Ray is not installed; add it with the "ray" extra of pyproject.toml.',
            param="executor",
        )
    if (mode := os.environ.get("RAY_AUTH_MODE", "")) != "token":
        raise InvalidInput(
            f"executor is ray, but RAY_AUTH_MODE is {mode!r}: whoever reaches such a cluster can run programs on it. "
            "Set RAY_AUTH_MODE=token for every node and for this server.",
            param="executor",
        )
    if not _has_token():
        raise InvalidInput(
            "executor is ray, but there is no token for it: make one with `ray get-auth-token --generate`, or name one "
            "with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, the same on every node.",
            param="executor",
        )


def _has_token() -> bool:
    """Where Ray looks for it, in its order."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    with contextlib.suppress(OSError):
        return bool(path.read_text().strip())
    return False
