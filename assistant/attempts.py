"""How often something may be tried: counts by name, address or person within the last minutes.

Left out on purpose: keeping the counts over a restart, and telling a proxy's visitors apart, which is the HTTP server's
business (it believes X-Forwarded-For from this machine only).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address, ip_network

from feedback.errors import Busy

WINDOW_SECONDS = 15 * 60
REMEMBERED = 10_000  # names or addresses whose attempts are counted at once: bounds the memory of an attack


class Attempts:
    """Attempts by key within the last `window` seconds, and no more than `limit` of them. words: what there were."""

    def __init__(self, clock: Callable[[], float], limit: int, words: str, window: float = WINDOW_SECONDS) -> None:
        self._clock, self._limit, self._words, self._window = clock, limit, words, window
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}

    def begin(self, key: str) -> None:
        """Count an attempt until it is forgiven or all are forgotten. Raises Busy when there were too many."""
        with self._lock:
            at = self._clock()
            times = self._times.setdefault(key, deque())
            while times and times[0] <= at - self._window:
                times.popleft()
            if len(times) >= self._limit:
                wait = int(times[0] + self._window - at) + 1
                if self._window <= 60:
                    raise Busy(f"{self._words}; try again in {wait} s.", retry_after=wait)
                raise Busy(f"{self._words}; try again in {-(-wait // 60)} minutes.", retry_after=wait)
            times.append(at)
            if len(self._times) > REMEMBERED:
                self._times = {k: t for k, t in self._times.items() if t and t[-1] > at - self._window}
                while len(self._times) > REMEMBERED:
                    self._times.pop(next(iter(self._times)))

    def forgive(self, key: str) -> None:
        """Take the newest attempt back: it was no failure. Those before it still count."""
        with self._lock, suppress(KeyError, IndexError):
            self._times[key].pop()

    def clear(self, key: str) -> None:
        """Forget all attempts of a key."""
        with self._lock:
            self._times.pop(key, None)


def place_of(address: str) -> str:
    """What counts as one place: an address; of IPv6 the whole /64, since that is what one visitor is given."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ip_network((int(parsed) >> 64 << 64, 64)))
