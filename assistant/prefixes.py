"""How recent chats begin, already read: the next turn of a chat reads only what is new.

Kept by person and adapter, never shared between two of either. What is kept is bounded, the longest unused goes first.
Left out on purpose: disk; after a restart the first turn of each chat is read whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from adapters.prefill import Prefix

ROOM = 4096  # tokens; 96 MB on the embedded base


class Prefixes:
    """Beginnings of prompts. Not thread-safe: the engine's thread alone uses it."""

    def __init__(self, room: int = ROOM) -> None:
        """room: tokens kept at once."""
        self.room = room
        self._kept: OrderedDict[tuple[str, str | None, tuple[int, ...]], Prefix] = OrderedDict()

    @property
    def tokens(self) -> int:
        """Tokens kept."""
        return sum(len(prefix.ids) for prefix in self._kept.values())

    def find(self, user_id: str, adapter: str | None, ids: Sequence[int]) -> Prefix | None:
        """The longest beginning of a prompt that this person's adapter has read."""
        found = [
            (key, alike)
            for key, prefix in self._kept.items()
            if key[:2] == (user_id, adapter) and (alike := prefix.shared(ids)) is not None
        ]
        if not found:
            return None
        key, longest = max(found, key=lambda each: len(each[1].ids))
        self._kept.move_to_end(key)
        return longest

    def keep(self, user_id: str, adapter: str | None, prefix: Prefix | None) -> None:
        """Keep a beginning, instead of those that it goes on from."""
        if prefix is None or len(prefix.ids) > self.room:
            return
        mine = [key for key in self._kept if key[:2] == (user_id, adapter)]
        if any(key[2][: len(prefix.ids)] == prefix.ids for key in mine):
            return
        for key in mine:
            if prefix.ids[: len(key[2])] == key[2]:
                del self._kept[key]
        self._kept[user_id, adapter, prefix.ids] = prefix
        while self.tokens > self.room:
            self._kept.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """Drop everything of a person."""
        for key in [key for key in self._kept if key[0] == user_id]:
            del self._kept[key]
