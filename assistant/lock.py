"""The data folder's lock: one server (or one command that trains) at a time.

The operating system holds the lock, so a killed server leaves none behind. The file tells others who holds it, and
where it answers. Reading the folder and small writes to the database need no lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from feedback.errors import Conflict, NotSaved


class DataLock:
    """Held from construction until `release` or the end of the process. Raises Conflict when another holds it."""

    def __init__(self, data_dir: Path, purpose: str) -> None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = (data_dir / "lock").open("a+")
        except OSError as error:
            raise NotSaved(
                f"The data folder {data_dir} cannot be used: {error.strerror}. Choose another with --data-dir.",
                param="data_dir",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise Conflict(f"{data_dir} is in use by {describe(holder(data_dir))}.", param="data_dir") from error
        try:
            self.tell(purpose=purpose)
        except OSError as error:
            raise NotSaved(
                f"The data folder {data_dir} cannot be written to: {error.strerror}. Free some disk space.",
                param="data_dir",
            ) from error

    def tell(self, **facts: Any) -> None:
        """Replace what others read about the holder."""
        text = json.dumps({"pid": os.getpid(), **facts})
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()

    def release(self) -> None:
        """Let go; calling it twice does no harm."""
        if not self._file.closed:
            self._file.seek(0)
            self._file.truncate()
            self._file.close()


def holder(data_dir: Path) -> dict[str, Any] | None:
    """What the holder tells about itself, None when nobody holds the lock."""
    try:
        file = (data_dir / "lock").open("r")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except OSError:
            try:
                facts: dict[str, Any] = json.loads(file.read())
            except ValueError:  # between taking the lock and writing who took it
                facts = {}
            return facts


def describe(facts: dict[str, Any] | None) -> str:
    """The holder in words."""
    facts = facts or {}
    who = f"another Mynah ({facts.get('purpose', 'starting')}, process {facts.get('pid', 'unknown')})"
    return f"{who} at {facts['address']}" if facts.get("address") else who
