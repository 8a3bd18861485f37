"""Units of work that are done once: a long run that was stopped goes on where it was.

    benchmarks/results/work/<name>-<key>/<unit>.json      one finished unit; the key is a hash of the run's settings

Each unit remembers the hash of the code that made it; a report whose units come from different code says so. Here is
also what every report says of itself: commit, machine, and the peak memory of a process tree.
"""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from adapters.files import read_json, sha256_file, sha256_json, write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
Unit = dict[str, Any]


class Work:
    """The units of one run."""

    def __init__(self, name: str, settings: Any, folder: Path = RESULTS / "work", *, code: str | None = None) -> None:
        """settings: JSON-able; other settings make another run. code: hash of the sources, found when None."""
        self.folder = folder / f"{name}-{sha256_json(settings)[:10]}"
        self.code = code if code is not None else code_hash()
        self._mixed: set[str] = set()

    def unit(self, name: str, make: Callable[[], Unit]) -> Unit:
        """The unit's result: read if it was finished before, else made and kept.

        A file that cannot be read counts as not there. `make` may raise; nothing is kept then.
        """
        path = self.folder / f"{name}.json"
        try:
            kept = read_json(path)
        except (OSError, ValueError):
            started = time.monotonic()
            result = make()
            kept = {"code": self.code, "seconds": round(time.monotonic() - started, 1), "result": result}
            write_json(path, kept)
        if kept["code"] != self.code:
            self._mixed.add(name)
        result = kept["result"] | {"unit_seconds": kept["seconds"]}
        return result

    def has(self, name: str) -> bool:
        """Whether the unit was finished."""
        return (self.folder / f"{name}.json").exists()

    @property
    def mixed(self) -> list[str]:
        """Units used so far that other code made."""
        return sorted(self._mixed)

    def forget(self) -> None:
        """Remove all finished units of this run."""
        for path in self.folder.glob("*.json"):
            path.unlink()


def code_hash(root: Path = ROOT) -> str:
    """One hash over the sources and data that decide the figures."""
    chosen = ("assistant/arms.py", "assistant/turn.py", "assistant/writing.py")  # what a chat shows
    patterns = (
        *chosen,
        "adapters/*.py",
        "feedback/**/*.py",
        "benchmarks/*.py",
        "data/*.json*",
        "data/safety/*.safetensors",
    )
    paths = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return sha256_json([[path.name, sha256_file(path)] for path in paths])[:12]


def commit(root: Path = ROOT) -> str:
    """The commit the figures belong to, with "+" when other files than results differ from it; "unknown" outside a
    repository."""
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        others = ("--", ".", ":!benchmarks/results")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no", *others) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """What ran this, without names or paths."""
    import torch
    import transformers

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


class PeakMemory:
    """Peak memory of a process and its children while the block runs, in bytes.

    Sampled once a second, since a look takes some 30 ms for every GB.
    """

    def __init__(self, pid: int, every: float = 1.0) -> None:
        self.peak = 0
        self._root, self._every = pid, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, tree_memory(self._root))
            if self._stop.wait(self._every):
                return


def tree_memory(pid: int) -> int:
    """Bytes of memory that a process and all below it occupy now; 0 when it is gone."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in tree:
        try:
            total += _occupied(process)
        except psutil.NoSuchProcess:
            continue
    return total


def _occupied(process: psutil.Process) -> int:
    """Its proportional set size, in which a page (of torch's libraries, of the pool) that two processes map counts half
    in each; the resident size where the system does not tell it."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return int(process.memory_info().rss)
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")]
    return sizes[0] if sizes else int(process.memory_info().rss)
