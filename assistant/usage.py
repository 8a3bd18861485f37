"""How much disk and memory Mynah uses: for the admin page."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from assistant.config import Config


@dataclass(frozen=True)
class Usage:
    """Bytes. data, models: the two folders; free: on the disk of the data folder; memory: of this process, resident;
    workers: of the processes it started, an update's for instance; total: the machine's memory."""

    data: int
    models: int
    free: int
    memory: int
    workers: int
    total: int


def usage_of(config: Config) -> Usage:
    """As it is now."""
    process = psutil.Process()
    workers = 0
    for child in process.children(recursive=True):
        try:
            workers += int(child.memory_info().rss)
        except psutil.Error:  # it ended just now
            continue
    return Usage(
        data=folder_bytes(config.data_dir),
        models=folder_bytes(config.models_dir),
        free=shutil.disk_usage(config.data_dir).free,
        memory=int(process.memory_info().rss),
        workers=workers,
        total=int(psutil.virtual_memory().total),
    )


def size(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{round(count / 1e6)} MB"


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder; links are not followed, and what vanishes meanwhile counts for nothing."""
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return size
