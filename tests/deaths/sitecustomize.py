"""Ends the process it is loaded into with SIGKILL, at a given line of a part of its code.

Python imports a module of this name at every start, if it finds one: a process whose PYTHONPATH holds this folder is
the real one in all else. tests/deaths/moments.py sets what it reads:

    DIE_IN      the files whose lines count, by the ends of their paths, with colons between
    DIE_THREAD  the thread whose lines count
    DIE_AFTER   they count from the first call of this function on; "" for from the start
    DIE_AT      at which of them to end, 0 for none
    DIE_COUNT   a file that always holds how many there were
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


def watch() -> None:
    """Count lines from now on."""
    files, thread = tuple(os.environ["DIE_IN"].split(":")), os.environ["DIE_THREAD"]
    after, last = os.environ["DIE_AFTER"], int(os.environ["DIE_AT"])
    told = os.open(os.environ["DIE_COUNT"], os.O_WRONLY | os.O_CREAT)
    count, begun = 0, not after

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if event == "line" and begun:
            count += 1
            os.pwrite(told, str(count).encode(), 0)
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    def call(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal begun
        if not frame.f_code.co_filename.endswith(files):
            return None
        begun = begun or frame.f_code.co_qualname == after
        return line

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        wanted = threading.current_thread().name == thread
        sys.settrace(call if wanted else None)
        return call(frame, event, argument) if wanted else None

    if thread == "MainThread":
        sys.settrace(call)
    else:
        threading.settrace(enter)


if "DIE_IN" in os.environ:
    watch()
