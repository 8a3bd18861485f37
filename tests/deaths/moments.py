"""Moments at which a process is killed: after so many seconds, or at a line of what it does with files and rows."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lines:
    """Lines of real code that count. files: ends of paths; thread: whose; after: from this function's first call on."""

    files: tuple[str, ...]
    thread: str = "MainThread"
    after: str = ""

    def environment(self, count: Path, at: int = 0) -> dict[str, str]:
        """What a process is started with so that it ends at line number `at`, 0 for never; the number reached stands
        in the file `count`."""
        count.unlink(missing_ok=True)
        return {
            "PYTHONPATH": str(Path(__file__).parent),
            "DIE_IN": ":".join(self.files),
            "DIE_THREAD": self.thread,
            "DIE_AFTER": self.after,
            "DIE_AT": str(at),
            "DIE_COUNT": str(count),
        }


def reached(count: Path) -> int:
    """How many lines there were so far."""
    text = count.read_text() if count.exists() else ""
    return int(text or 0)


def wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code: its own, if it ends within this time, else that of SIGKILL."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def drafts(*folders: Path) -> Sequence[Path]:
    """What killed writers left below folders."""
    return [path for folder in folders for path in folder.rglob(".tmp-*")]
