"""Replies while they are being written. A reply belongs to the server, not to the page that asked for it.

Each turn gets a thread that gathers its pieces; pages look at what there is. So closing or reloading a page neither
loses the reply nor stops it, two pages of one person show the same text, and no page holds a thread while it waits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from threading import Lock, Thread
from typing import Protocol

from feedback.errors import MynahError
from feedback.types import User

MOST_UNSEEN = 256

log = logging.getLogger(__name__)


class Turn(Protocol):
    """What is needed of `assistant.chat.Turn`."""

    @property
    def reply_ids(self) -> Sequence[str]:
        """One id a draft."""

    @property
    def streams(self) -> bool:
        """Whether its text comes as it is written."""

    @property
    def asked(self) -> bool:
        """At its end: whether its replies are to be compared, because that would teach something."""

    @property
    def may_ask(self) -> bool:
        """Whether it may ask at all; if not, several replies were asked for by the person."""

    @property
    def progress(self) -> float:
        """Share of what may be written, 0 to 1."""

    def pieces(self) -> Iterator[tuple[int, str]]:
        """(draft, new text) as it is written; the replies are kept before it ends."""

    def stop(self) -> None:
        """End the writing within a token."""


class LiveTurn:
    """One turn under way. `texts` grows; `done` comes last; `error` is what went wrong, if anything did.

    question: what it answers, "" for another reply to the last one; instead_of: the message whose place that takes.
    """

    def __init__(self, turn: Turn, question: str, instead_of: str = "") -> None:
        self.question, self.instead_of = question, instead_of
        self.reply_ids = list(turn.reply_ids)
        self.texts = [""] * len(self.reply_ids)
        self.error: MynahError | None = None
        self.done = False
        self._turn = turn

    def gather(self) -> None:
        """Read the turn to its end."""
        try:
            for draft, text in self._turn.pieces():
                if draft < len(self.texts):  # a rival that was found in the end has its place in the comparison
                    self.texts[draft] += text
        except MynahError as error:
            self.error = error
        except Exception:
            log.exception("A reply ended with an unexpected error.")
            self.error = MynahError("The reply could not be finished. Your message is back in the box: send it again.")
        finally:
            self.done = True

    @property
    def to_compare(self) -> list[str]:
        """At the end: the replies to show side by side, in the order they were seen in; empty without a choice."""
        ids = list(self._turn.reply_ids)
        return ids if len(ids) > 1 and (self._turn.asked or not self._turn.may_ask) else []

    @property
    def seen_growing(self) -> bool:
        """Whether the person has read along, and so knows the places."""
        return self._turn.streams and len(self.texts) > 1

    @property
    def asked(self) -> bool:
        """Whether Mynah wants to know by itself."""
        return self._turn.asked

    @property
    def percent(self) -> int:
        """How far drafts are that cannot be shown before one is chosen; 0 once there is something to read."""
        return 0 if any(self.texts) else round(20 * self._turn.progress) * 5

    def stop(self) -> None:
        """Let the model stop within a token."""
        self._turn.stop()


class LiveTurns:
    """The turns under way, and those that ended with no page looking: the newest one a conversation."""

    def __init__(self) -> None:
        self._turns: dict[tuple[str, str], LiveTurn] = {}
        self._lock = Lock()

    def begin(self, user: User, conversation_id: str, turn: Turn, question: str, instead_of: str = "") -> LiveTurn:
        """Start gathering a turn."""
        live = LiveTurn(turn, question, instead_of)
        with self._lock:
            self._turns.pop((user.id, conversation_id), None)
            self._turns[user.id, conversation_id] = live
            for key in [key for key, other in self._turns.items() if other.done][:-MOST_UNSEEN]:
                del self._turns[key]
        Thread(target=live.gather, name="turn", daemon=True).start()
        return live

    def of(self, user: User, conversation_id: str) -> LiveTurn | None:
        """The turn under way in a conversation, or one whose end nobody has seen."""
        return self._turns.get((user.id, conversation_id))

    def seen(self, user: User, conversation_id: str, live: LiveTurn) -> None:
        """A page shows the end of a turn; from now on it is like any other."""
        with self._lock:
            if self._turns.get((user.id, conversation_id)) is live:
                del self._turns[user.id, conversation_id]
