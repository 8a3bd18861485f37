"""When Mynah asks for a comparison by itself: seldom, and never somebody who does not want to be asked.

Whether an answer would teach anything is the head's business (feedback/pairing.py); here is only how often, and the
person's wish. Turns of all of a person's conversations count, whichever page they come from.
"""

from __future__ import annotations

from feedback.store import Store
from feedback.types import User

EVERY = 5  # at most one turn in so many asks
_WANTED, _SINCE = "asks", "turns_since_asked"


class Asking:
    """The person's wish and the number of turns since Mynah asked last, both kept in the store."""

    def __init__(self, store: Store) -> None:
        self._people = store.people

    def wanted(self, user: User) -> bool:
        """Whether the person lets Mynah ask; so it is until they say otherwise."""
        return self._people.setting(user.id, _WANTED) != "off"

    def want(self, user: User, wanted: bool) -> None:
        """Let Mynah ask, or not."""
        self._people.set(user.id, _WANTED, "on" if wanted else "off")

    def due(self, user: User) -> bool:
        """Whether the next turn may ask."""
        return self.wanted(user) and self._since(user) >= EVERY - 1

    def count(self, user: User, asked: bool) -> None:
        """A turn was kept, and it asked or it did not."""
        self._people.set(user.id, _SINCE, "0" if asked else str(self._since(user) + 1))

    def _since(self, user: User) -> int:
        return int(self._people.setting(user.id, _SINCE) or 0)
