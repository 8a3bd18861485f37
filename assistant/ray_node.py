"""One update on a node of a Ray cluster: the worker process, and what it writes for whoever asks.

Here nothing knows of a database, an account or a decision. The job lies in a folder of its own below the node's data
folder, which goes with the job; what a killed one leaves is swept away when the next comes to this node. Torch is not
imported: this process only watches.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from adapters.files import TEMPORARY, alone, sha256_json, write_json
from assistant.config import default_data_dir, default_models_dir
from assistant.worker_process import DONE, LOST, REFUSED, WorkerProcess

POLL_SECONDS = 1.0
SILENCE_SECONDS = 60.0  # without a question, after which a job ends by itself
MAX_CHECKPOINT = 256 * 2**20  # bytes; a larger one stays on its node, and the job begins anew when that is lost
TOLD = ("status.json", "metrics.jsonl")

Files = dict[str, bytes]


class NodeJob:
    """Runs one job. files: the job's folder; threads: cores; nice: priority; order: what `settle` needs to know."""

    def __init__(self, files: Files, threads: int, nice: int, order: dict[str, str]) -> None:
        self._over, self._left = threading.Event(), threading.Event()
        self._asked = time.monotonic()
        self._code, self._lost = LOST, ""
        self._process: WorkerProcess | None = None
        self._leave = contextlib.ExitStack()
        self.folder = self._leave.enter_context(_own_folder(default_data_dir() / "node"))
        try:
            unpack(self.folder, files)
            write_json(self.folder / "elsewhere.json", {**order, "models": str(default_models_dir())})
        except BaseException:
            self._leave.close()
            raise
        threading.Thread(target=self._work, args=(threads, nice), daemon=True).start()
        threading.Thread(target=self._expect, daemon=True).start()

    def poll(self, seen: str) -> dict[str, Any]:
        """What there is to know, within a second or so; all of it bytes and plain data.

        seen: "stamp" of the last answer. "files": status and metrics; "checkpoint": the whole of it if it is another
        than that one; "code": the worker's exit code once it has ended, "lost" what it was with LOST and REFUSED;
        "result" and "gate": the candidate and its verdict.
        """
        self._asked = time.monotonic()
        self._over.wait(POLL_SECONDS)
        over = self._over.is_set()  # asked before the files, so that what was written last is among them
        done = over and self._code == DONE
        checkpoint, stamp = self._checkpoint(seen)  # before the metrics: those may be newer than it, never older
        return {
            "stamp": stamp,
            "checkpoint": checkpoint,
            "files": {name: data for name in TOLD if (data := _read(self.folder / name)) is not None},
            "code": self._code if over else None,
            "lost": self._lost,
            "result": pack(self.folder / "result") if done else None,
            "gate": _read(self.folder / "gate.json") if done else None,
        }

    def end(self) -> None:
        """End the worker at once and remove its folder."""
        self._left.set()
        if self._process is not None:
            self._process.cancel(0.0)
        self._leave.close()

    def _work(self, threads: int, nice: int) -> None:
        try:
            self._process = process = WorkerProcess(self.folder, threads, nice, tied=True)
            while (code := process.wait(3600.0)) is None:
                pass
            if code == REFUSED:
                status = json.loads((self.folder / "status.json").read_text("utf-8"))
                self._lost = refusal(socket.gethostname(), status["reason"])
            self._code = code
        except Exception as error:
            self._lost = refusal(socket.gethostname(), f"{type(error).__name__}: {error}")
        finally:
            self._over.set()

    def _expect(self) -> None:
        """Nobody has asked for long: the server is gone, or has given this one up and does the job elsewhere."""
        while not self._left.wait(1.0):
            if time.monotonic() - self._asked > SILENCE_SECONDS:
                self.end()

    def _checkpoint(self, seen: str) -> tuple[Files | None, str]:
        """The checkpoint if it is whole and another than the one with this stamp, and its stamp."""
        folder = self.folder / "checkpoint"
        stamp, size = _stamp(folder)
        if stamp == seen or size > MAX_CHECKPOINT:
            return None, seen
        files = pack(folder)
        if _stamp(folder)[0] != stamp:  # it was written to meanwhile: the next time
            return None, seen
        return files, stamp


def refusal(node: str, reason: str) -> str:
    """What a person is told when a node does not do what was asked of it."""
    return f"The node {node} cannot do it: {reason}"


def pack(folder: Path) -> Files:
    """All files below a folder by their names in it, without what is only half written."""
    return {path.relative_to(folder).as_posix(): data for path in _files(folder) if (data := _read(path)) is not None}


def unpack(folder: Path, files: Files) -> None:
    """Write what `pack` gave below a folder. Raises ValueError for a name that leads out of it."""
    for name, data in files.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or not place.parts:
            raise ValueError(f"a job holds no file called {name!r}")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(data)


@contextlib.contextmanager
def _own_folder(root: Path) -> Iterator[Path]:
    """A new folder below `root`, removed in the end. Those of dead processes are removed now."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.ExitStack() as held:
        with alone(root / "lock", wait=True):
            for old in [path for path in root.iterdir() if path.is_dir()]:
                with alone(old / "alive") as dead:
                    if dead:
                        shutil.rmtree(old, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(dir=root))
            held.enter_context(alone(folder / "alive"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """What is whole below a folder that others write into: a folder that vanishes meanwhile holds nothing."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        found += [Path(place, name) for name in names if not name.startswith(TEMPORARY)]
    return sorted(found)


def _stamp(folder: Path) -> tuple[str, int]:
    """What changes when a file below a folder does, "" without any; and the size of all of them."""
    found: list[tuple[str, int, int]] = []
    for path in _files(folder):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            found.append((str(path), about.st_size, about.st_mtime_ns))
    return sha256_json(found) if found else "", sum(size for _, size, _ in found)


def _read(path: Path) -> bytes | None:
    """A file's bytes, None if it is not there (any more)."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
