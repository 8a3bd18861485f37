"""Deleted conversations: gone from every page at once, from the disk two minutes later, with a way back in between.

What waits is in the store, so a restart in between changes nothing: what is overdue goes at the start, the rest when
its time has come. The two minutes are measured by a clock that nobody can set; the time that is kept only counts at a
start, and whatever it says, nothing waits longer than two minutes then. Left out on purpose: a trash can to browse;
whoever wants to keep a conversation archives it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from feedback.errors import MynahError
from feedback.store import Store
from feedback.types import Conversation, User, seconds_since

UNDO_SECONDS = 120.0
PAUSE = 5.0  # seconds before the next try after the disk refused, and the least between two

log = logging.getLogger("mynah.trash")


class Trash:
    """Everybody's deleted conversations. Nothing is purged by itself before `start`. clock: seconds that only grow."""

    def __init__(
        self, store: Store, seconds: float = UNDO_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._chats, self.seconds, self._clock = store.chats, seconds, clock
        self._due: dict[str, float] = {}  # by conversation
        self._timer: threading.Timer | None = None
        self._running = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Purge what is overdue, and from now on everything in its time."""
        with self._lock:
            self._running = True
            for conversation_id, deleted_at in self._chats.all_put_away().items():
                left = min(max(self.seconds - seconds_since(deleted_at), 0.0), self.seconds)
                self._due.setdefault(conversation_id, self._clock() + left)
        self.purge()

    def close(self) -> None:
        """No purging any more; waits for the one under way, since the store closes next."""
        with self._lock:
            self._running = False
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            timer.join()

    def put_away(self, user: User, conversation_id: str) -> None:
        """Delete a conversation. Raises NotFound."""
        self._chats.put_away(user.id, conversation_id)
        with self._lock:
            self._due[conversation_id] = self._clock() + self.seconds
        self._wait()

    def bring_back(self, user: User, conversation_id: str) -> None:
        """Undo that. Raises NotFound when it is too late."""
        self._chats.bring_back(user.id, conversation_id)
        with self._lock:
            self._due.pop(conversation_id, None)

    def waiting(self, user: User) -> Sequence[tuple[Conversation, float]]:
        """What a person can still bring back, with the seconds left for it, the newest first."""
        at = self._clock()
        left = [(talk, self._due.get(talk.id, at) - at) for talk in self._chats.put_away_by(user.id)]
        return sorted(((talk, seconds) for talk, seconds in left if seconds > 0), key=lambda pair: -pair[1])

    def purge(self) -> None:
        """Really delete what is due, and wait for what comes next."""
        at = self._clock()
        with self._lock:
            over = [each for each, due in self._due.items() if due <= at]
        try:
            self._chats.purge(over)
            with self._lock:
                for each in over:
                    if self._due.get(each, math.inf) <= at:  # else it was deleted a second time meanwhile
                        del self._due[each]
        except MynahError as error:  # the next try comes by itself
            log.warning("deleted conversations could not be purged: %s", error)
        finally:
            self._wait()

    def _wait(self) -> None:
        """Set the clock for what is next; nothing when nothing waits."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if not self._running or not self._due:
                return
            wait = max(0.0, min(self._due.values()) - self._clock())
            self._timer = threading.Timer(wait + min(PAUSE, self.seconds), self.purge)
            self._timer.daemon = True
            self._timer.start()
