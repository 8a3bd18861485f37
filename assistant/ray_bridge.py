"""The Ray cluster's client, in a process of its own; started and spoken to by ray_executor.py.

    python -m assistant.ray_bridge ADDRESS THREADS NICE

Each attempt at a job is an actor on some node (ray_node.py). It is asked every second what its worker has written, and
that is laid into the job's folder here: status and metrics, the checkpoint whenever it has changed, the candidate and
its verdict in the end. So a job whose node is lost goes on elsewhere from the last checkpoint that came back. An actor
that was given up is killed and never asked again: what it may still do is nobody's result.

Actors belong to this process. When it ends, however it ends, Ray ends them; so a server that starts again finds jobs
that nobody works on, and goes on with them. Only bytes and plain data pass between the machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError

from adapters.files import code_version, read_json, whole_folder, write_whole
from assistant.ray_node import TOLD, Files, NodeJob, pack, refusal, unpack
from assistant.worker_process import CANCELLED, DONE, LOST, PAUSED, REFUSED

WAIT_SECONDS = 0.3
ROOM_SECONDS = 2.0
END_SECONDS = 3.0  # for a node to clear up after a job that is ended
PROCESS_BYTES = 2 * 2**30  # of memory that an update takes beside its base
BASE_SHARE = 2.5  # of the base's unquantized weights that it takes: twice in fp32, and 4 bits

SENT = ("job.json", "heads.safetensors", "metrics.jsonl")
SENT_FOLDERS = ("latents", "parent", "checkpoint")

HAPPENED = {
    "memory": "The node that trained it ran out of memory",
    "node": "The node that trained it was lost",
    "process": "The process that trained it was ended from outside",
}


@dataclass
class Attempt:
    """One job on its way. asked: what its actor was asked last; heard: whether it ever answered; seen: the stamp of the
    checkpoint that is here.

    code, lost: how it ended, from then on its actor is only asked to clear up, until `deadline`.
    """

    key: str
    job: Path
    actor: Any
    asked: Any
    heard: bool = False
    seen: str = ""
    code: int | None = None
    lost: str = ""
    deadline: float = 0.0


class Bridge:
    """The client. threads: cores an update takes; nice: its priority there; said: where lines of JSON go."""

    def __init__(self, threads: int, nice: int, said: IO[str]) -> None:
        self._threads, self._nice, self._said = threads, nice, said
        self._commands: queue.SimpleQueue[dict[str, str] | None] = queue.SimpleQueue()
        self._attempts: dict[str, Attempt] = {}
        self._room, self._looked = -1, 0.0
        self._memory = PROCESS_BYTES  # of one update, known from the first on
        self._leaving = False
        self._code_version = code_version()

    def run(self) -> None:
        """Until the input ends, and with it all attempts."""
        threading.Thread(target=self._read, daemon=True).start()
        while not self._leaving or self._attempts:
            self._obey()
            self._look()
            asked = {attempt.asked: attempt for attempt in self._attempts.values()}
            if asked:
                ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=WAIT_SECONDS)
                for answer in ready:
                    self._hear(asked[answer])
            else:
                time.sleep(WAIT_SECONDS)
            for attempt in list(self._attempts.values()):
                if attempt.code is not None and time.monotonic() > attempt.deadline:
                    self._forget(attempt)

    # ---- commands -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        for line in sys.stdin:
            self._commands.put(json.loads(line))
        self._commands.put(None)

    def _obey(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._commands.get_nowait()
                if command is None:
                    self._leaving = True
                    for attempt in self._attempts.values():
                        self._end(attempt, PAUSED)
                elif command["do"] == "start":
                    self._start(command["key"], Path(command["job"]))
                elif command["key"] in self._attempts:
                    self._end(self._attempts[command["key"]], PAUSED)

    def _start(self, key: str, job: Path) -> None:
        """Send a job's folder to a node that has room for it, as soon as one has."""
        try:
            base = read_json(job / "job.json")["base"]
            order = {"source": str(read_json(Path(base["folder"]) / "base.json")["source"]), "code": self._code_version}
            weights = sum(path.stat().st_size for path in Path(base["full"]).glob("*.safetensors"))
            files = {name: (job / name).read_bytes() for name in SENT if (job / name).exists()}
            for name in SENT_FOLDERS:
                files |= {f"{name}/{inside}": data for inside, data in pack(job / name).items()}
        except (OSError, ValueError, KeyError) as error:
            gone = not (job / "job.json").exists()  # with its person
            self._attempts.pop(key, None)
            self._say(key=key, code=CANCELLED if gone else REFUSED, lost=refusal(socket.gethostname(), str(error)))
            return
        self._memory = PROCESS_BYTES + int(BASE_SHARE * weights)
        actor = (
            ray.remote(NodeJob)
            .options(
                num_cpus=self._threads,
                memory=self._memory,
                max_restarts=0,  # who goes on, and how often, is the server's to decide
                max_concurrency=2,  # so that it hears `end` while it is asked something
                scheduling_strategy="SPREAD",
            )
            .remote(files, self._threads, self._nice, order)
        )
        self._attempts[key] = Attempt(key, job, actor, actor.poll.remote(""))

    # ---- what comes back ------------------------------------------------------------------------------------------

    def _hear(self, attempt: Attempt) -> None:
        try:
            said = ray.get(attempt.asked)
        except RayError as error:
            self._failed(attempt, what_happened(error))
            return
        attempt.heard = True
        if attempt.code is not None:  # it has cleared up
            self._forget(attempt)
            return
        if not (attempt.job / "job.json").is_file():  # its person was removed
            self._end(attempt, CANCELLED)
            return
        try:
            self._keep(attempt, said)
        except OSError as error:  # a full disk: it is asked again, and nothing of it is lost
            print(f"What {attempt.job.name} has done cannot be written: {error}", file=sys.stderr)
            attempt.asked = attempt.actor.poll.remote(attempt.seen)
            return
        except ValueError as error:
            said = {"code": REFUSED, "lost": refusal("?", str(error))}
        if said["code"] is None:
            attempt.asked = attempt.actor.poll.remote(attempt.seen)
        else:
            attempt.lost = said["lost"]
            self._end(attempt, said["code"])

    def _failed(self, attempt: Attempt, lost: str) -> None:
        """Its actor does not answer. One sent to a node that had died unnoticed has never begun: it is sent anew."""
        if attempt.code is None and not attempt.heard and lost == HAPPENED["node"]:
            self._start(attempt.key, attempt.job)
            return
        if attempt.code is None:
            attempt.code, attempt.lost = LOST, lost
        self._forget(attempt)

    def _keep(self, attempt: Attempt, said: dict[str, Any]) -> None:
        """Lay into the job's folder what came, each part whole: metrics before the checkpoint, which must never be the
        newer of the two, and the verdict last, because with it the job is done."""
        job = attempt.job
        for name in TOLD:
            data = said["files"].get(name)
            if data is not None and (not (job / name).exists() or (job / name).read_bytes() != data):
                write_whole(job / name, data)
        if said["checkpoint"] is not None:
            _replace(job / "checkpoint", said["checkpoint"])
            attempt.seen = said["stamp"]
        if said["code"] == DONE:
            _replace(job / "result", said["result"])
            write_whole(job / "gate.json", said["gate"])

    def _end(self, attempt: Attempt, code: int) -> None:
        """Have its node clear up; what it ended with is told when it has, or after some seconds."""
        if attempt.code is None:
            attempt.code, attempt.deadline = code, time.monotonic() + END_SECONDS
            attempt.asked = attempt.actor.end.remote()

    def _forget(self, attempt: Attempt) -> None:
        """Never listen to it again, and tell how it ended."""
        with contextlib.suppress(RayError):
            ray.kill(attempt.actor)
        del self._attempts[attempt.key]
        self._say(key=attempt.key, code=attempt.code, lost=attempt.lost)

    # ---- the cluster ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """How many updates the nodes that live can take."""
        if time.monotonic() - self._looked < ROOM_SECONDS:
            return
        self._looked = time.monotonic()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(int(min(n.get("CPU", 0) // self._threads, n.get("memory", 0) // self._memory)) for n in nodes)
        if room != self._room:
            self._room = room
            self._say(room=room)

    def _say(self, **said: Any) -> None:
        say(self._said, **said)


def what_happened(error: RayError) -> str:
    """Why an actor does not answer, as the beginning of a sentence for its person."""
    text = str(error)
    if isinstance(error, OutOfMemoryError):
        return HAPPENED["memory"]
    if isinstance(error, ActorDiedError) and "__init__" in text:
        return refusal("?", text.strip().splitlines()[-1])
    if isinstance(error, ActorDiedError) and not re.search(
        "node (died|failed|has died)|NODE_DIED", text, re.IGNORECASE
    ):
        return HAPPENED["process"]
    return HAPPENED["node"]


def lets_anybody_in(address: str) -> bool:
    """Whether a cluster answers to somebody who shows no token."""
    knock = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
    stranger = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", knock, address]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, env=stranger, capture_output=True, timeout=30).returncode == 0
    return False


def _why(error: BaseException | None) -> str:
    """Why there was no connection, in a few words."""
    words = " ".join(str(error).split())[:200]
    while error is not None:
        if "AuthenticationError" in str(error):
            return "it does not know this server's token"
        error = error.__cause__
    return words


def _replace(folder: Path, files: Files) -> None:
    """Put files in the place of a folder that may be there."""
    draft = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    with whole_folder(draft) as inside:
        unpack(inside, files)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(draft, folder)


def say(said: IO[str], **words: Any) -> None:
    """One line to the server; nobody hears it when that has ended."""
    with contextlib.suppress(OSError):
        said.write(json.dumps(words) + "\n")
        said.flush()


def main(address: str, threads: int, nice: int) -> int:
    """Connect, and serve until the input ends."""
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever Ray prints is no answer
    try:
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError) as error:
        say(said, refused=_why(error))
        return 1
    try:
        if lets_anybody_in(ray.get_runtime_context().gcs_address):
            say(said, refused="it lets in whoever has no token; start its head and nodes with RAY_AUTH_MODE=token")
            return 1
        Bridge(threads, nice, said).run()
    finally:
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
