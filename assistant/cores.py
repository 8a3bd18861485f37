"""How many cores other programs leave free.

Threads of a matrix product wait for each other at every operation. One more of them than there are free cores and all
wait for the one that has none: two threads beside a program that takes one of two cores are a fourth as fast as on an
idle machine, slower than one thread. So who computes looks now and then, and takes what is left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil

LOOK_SECONDS = 5.0  # over which the use of the processor is taken


class Cores:
    """What is left for one's own. most: as many as one wants; own_seconds: processor time of one's own so far."""

    def __init__(self, most: int, own_seconds: Callable[[], float], machine: int | None = None) -> None:
        """machine: how many cores it has, None to ask."""
        self._most, self._own_seconds = most, own_seconds
        self._machine = machine or os.cpu_count() or most
        self._looked = (time.monotonic(), busy_seconds(), own_seconds())
        self._free = most

    def free(self) -> int:
        """Cores that nobody else used over the last seconds (for the first seconds: all one wants), at least 1."""
        now, (since, busy_then, own_then) = time.monotonic(), self._looked
        if now - since >= LOOK_SECONDS:
            busy, own = busy_seconds(), self._own_seconds()
            self._looked = (now, busy, own)
            others = ((busy - busy_then) - (own - own_then)) / (now - since)
            self._free = max(1, min(self._most, round(self._machine - others)))
        return self._free


def busy_seconds() -> float:
    """Processor time of all processes together since the machine started, on every core."""
    times = psutil.cpu_times()._asdict()
    return float(sum(spent for name, spent in times.items() if name not in ("idle", "iowait", "guest", "guest_nice")))


def own_seconds() -> float:
    """Processor time of this process and its children (an update's worker gives way by itself)."""
    total = 0.0
    try:
        here = psutil.Process()
        for process in (here, *here.children(recursive=True)):
            used = process.cpu_times()
            total += used.user + used.system
    except psutil.Error:  # a child ended in this moment: the next look is right again
        pass
    return total
