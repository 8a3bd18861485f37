"""What one person may take of the server: requests in a minute, room on the disk, updates in a day.

One model, one disk and one trainer serve everybody; how those who wait for the model take turns is in turns.py. A click
is never refused here: it costs little, and nothing that a person says may be lost. Counts of requests start anew with
the server; the others are read from what is kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from adapters.versions import VersionFiles
from assistant.attempts import Attempts
from assistant.config import Config
from assistant.usage import folder_bytes, size
from feedback.errors import OverQuota
from feedback.store import Store
from feedback.types import User, after, now, seconds_since

MINUTE = 60.0
DAY = 86_400.0
MEASURED_FOR = 60.0  # seconds that a size is believed before everything is added up again
FREED_AFTER = 180  # seconds until the room of a deleted chat is there again (trash.py), with a little to spare


class Limits:
    """Everybody's limits. clock: seconds that only grow."""

    def __init__(
        self,
        store: Store,
        versions: VersionFiles,
        config: Config,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._versions = store, versions
        self._clock = clock
        self._room, self._updates = config.storage_mb * 10**6, config.updates_per_day
        most = config.requests_per_minute
        words = f"You asked {most} times within a minute, as often as one person may here"
        self._asked = Attempts(clock, most, words, window=MINUTE)
        self._lock = threading.Lock()
        self._sizes: dict[str, tuple[float, int]] = {}  # when it was measured, and the bytes

    def ask(self, user: User) -> None:
        """Count a request to the model. Raises Busy after too many, OverQuota without room for what comes of it."""
        self.keep(user)
        self._asked.begin(user.id)

    def keep(self, user: User) -> None:
        """Check that there is room for more. Raises OverQuota."""
        if (used := self._size(user.id)) >= self._room:
            raise OverQuota(
                f"You keep {size(used)} here and may keep {size(self._room)}; delete chats, or ask an admin for more.",
                retry_after=FREED_AFTER,
            )

    def train(self, user: User) -> None:
        """Check that another update may begin today. Raises OverQuota."""
        if wait := self.training_wait(user.id):
            raise OverQuota(
                f"You had {self._updates} updates within a day, as many as one person may have here; "
                f"the next can begin in {math.ceil(wait / 3600)} h.",
                retry_after=math.ceil(wait),
            )

    def training_wait(self, user_id: str) -> float:
        """Seconds until another update may begin, 0 for now. What the clock says will begin (it was put back) does not
        count: nobody waits longer than a day."""
        begun = self._store.versions.begun_between(user_id, after(-DAY), now())
        if len(begun) < self._updates:
            return 0.0
        return max(DAY - seconds_since(begun[-self._updates]), 1.0)

    def forget(self, user_id: str) -> None:
        """What a person keeps has changed a lot."""
        with self._lock:
            self._sizes.pop(user_id, None)

    def _size(self, user_id: str) -> int:
        now = self._clock()
        with self._lock:
            measured, found = self._sizes.get(user_id, (-math.inf, 0))
        if now - measured > MEASURED_FOR:
            found = self._store.people.bytes_kept(user_id) + folder_bytes(self._versions.path(user_id, 1).parent)
            with self._lock:
                self._sizes[user_id] = (now, found)
        return found
