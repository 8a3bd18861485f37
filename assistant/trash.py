"""Deleted conversations: gone from every page at once, from the disk two minutes later, with a way back in between.

What waits is in the store, so a restart in between changes nothing: what is overdue goes at the start, the rest when
its time has come. Left out on purpose: a trash can to browse; whoever wants to keep a conversation archives it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from feedback.errors import MynahError
from feedback.store import Store
from feedback.types import Conversation, User

UNDO_SECONDS = 120.0
PAUSE = 5.0  # seconds before the next try after the disk refused, and the least between two

log = logging.getLogger("mynah.trash")


class Trash:
    """Everybody's deleted conversations. Nothing is purged by itself before `start`."""

    def __init__(self, store: Store, seconds: float = UNDO_SECONDS) -> None:
        self._chats, self.seconds = store.chats, seconds
        self._timer: threading.Timer | None = None
        self._running = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Purge what is overdue, and from now on everything in its time."""
        self._running = True
        self._purge()

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
        self._wait()

    def bring_back(self, user: User, conversation_id: str) -> None:
        """Undo that. Raises NotFound when it is too late."""
        self._chats.bring_back(user.id, conversation_id)

    def waiting(self, user: User) -> Sequence[tuple[Conversation, float]]:
        """What a person can still bring back, with the seconds left for it, the newest first."""
        kept = self._chats.put_away_since(user.id, _ago(self.seconds))
        return [(conversation, self._left(str(conversation.deleted_at))) for conversation in kept]

    def _left(self, deleted_at: str) -> float:
        gone = datetime.now(UTC) - datetime.fromisoformat(deleted_at.replace("Z", "+00:00"))
        return max(0.0, self.seconds - gone.total_seconds())

    def _wait(self) -> None:
        """Set the clock for what is next; nothing when nothing waits."""
        with self._lock:
            oldest = self._chats.oldest_put_away() if self._running else None
            if self._timer is not None:
                self._timer.cancel()
            if oldest is None:
                return
            self._timer = threading.Timer(self._left(oldest) + min(PAUSE, self.seconds), self._purge)
            self._timer.daemon = True
            self._timer.start()

    def _purge(self) -> None:
        try:
            self._chats.purge(_ago(self.seconds))
        except MynahError as error:  # the next try comes by itself
            log.warning("deleted conversations could not be purged: %s", error)
        self._wait()


def _ago(seconds: float) -> str:
    """A moment in the past as the store writes it."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
