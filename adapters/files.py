"""Files that are either whole or absent.

A folder is written beside its place, every file and the folder itself are fsynced, then it is renamed. What is left
of a killed writer is a `.tmp-…` sibling that `sweep` removes. Hashes are sha256, in lower-case hex.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from feedback.types import wall

TEMPORARY = ".tmp-"


def sha256_file(path: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hash of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def code_version() -> str:
    """Hash of all source that decides what a worker makes of a job; it is the same on two machines, or they differ."""
    root = Path(__file__).resolve().parent.parent
    sources = sorted(path for name in ("adapters", "feedback") for path in (root / name).rglob("*.py"))
    return sha256_json([[str(path.relative_to(root)), sha256_file(path)] for path in sources])


def fsync(path: Path) -> None:
    """Push a file's or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Yield a fresh sibling folder that becomes `final` only if the block ends well.

    Raises FileExistsError when `final` is there already: what is published is never overwritten.
    """
    if final.exists():
        raise FileExistsError(f"{final} exists already and is never overwritten")
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = final.parent / f"{TEMPORARY}{final.name}-{uuid4().hex[:8]}"
    draft.mkdir()
    try:
        yield draft
        for path in sorted(draft.rglob("*")):
            fsync(path)
        fsync(draft)
        os.rename(draft, final)
        fsync(final.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content in one step: the old bytes or the new ones, never a mixture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f"{TEMPORARY}{path.name}-{uuid4().hex[:8]}"
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        fsync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_whole` of readable JSON."""
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value of a file; FileNotFoundError and ValueError pass through."""
    return json.loads(path.read_text("utf-8"))


@contextmanager
def alone(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this is the only one in here, among all processes; the lock goes with the process, however it ends.

    path: the lock file. wait: until it is free.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def sweep(folder: Path, older: float = 0.0) -> list[str]:
    """Remove what killed writers left below a folder; the names of what went. older: only what nobody has touched for
    so many seconds, where others may be writing."""
    newest = wall().timestamp() - older if older else math.inf
    debris = [path for path in folder.rglob(f"{TEMPORARY}*") if _touched(path) <= newest]
    for path in debris:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return [str(path.relative_to(folder)) for path in debris]


def _touched(path: Path) -> float:
    """When a file or folder was changed last, in seconds since 1970; inf when it has just gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return math.inf
