"""The adapters that are loaded now: verified when they come, dropped when they were not used for longest.

A name is a person's id and a version's number, both never used twice, so what a name stands for never changes and a
loaded adapter cannot be stale. Belongs to the engine's thread, like the policy itself.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from adapters.policy import Policy
from adapters.versions import VersionFiles
from feedback.types import AdapterVersion

ROOM = 16  # adapters kept; some megabytes each


class Shelf:
    """Loads on demand; whoever takes an adapter gives it back."""

    def __init__(self, policy: Policy, versions: VersionFiles, room: int = ROOM) -> None:
        self._policy, self._versions, self.room = policy, versions, room
        self._owners: OrderedDict[str, str] = OrderedDict()  # name → user_id, least recently used first
        self._taken: Counter[str] = Counter()
        self._doomed: set[str] = set()

    @property
    def names(self) -> list[str]:
        """What is loaded, least recently used first."""
        return list(self._owners)

    def take(self, version: AdapterVersion) -> str:
        """The name under which a version is loaded; it stays so until `give`. Raises CorruptFile, loading nothing."""
        name = f"{version.user_id}-v{version.number}"
        if name not in self._owners:
            self._policy.load_adapter(name, self._versions.check(version))
            self._owners[name] = version.user_id
        self._owners.move_to_end(name)
        self._taken[name] += 1
        self._tidy()
        return name

    def give(self, name: str) -> None:
        """One user less."""
        self._taken[name] -= 1
        if name in self._doomed and not self._taken[name]:
            self._drop(name)
        self._tidy()

    def forget(self, user_id: str) -> None:
        """Drop a person's adapters; one that is in use goes as soon as it is given back."""
        for name in [name for name, owner in self._owners.items() if owner == user_id]:
            if self._taken[name]:
                self._doomed.add(name)
            else:
                self._drop(name)

    def _tidy(self) -> None:
        for name in list(self._owners):
            if len(self._owners) <= self.room:
                return
            if not self._taken[name]:
                self._drop(name)

    def _drop(self, name: str) -> None:
        self._policy.drop_adapter(name)
        del self._owners[name], self._taken[name]
        self._doomed.discard(name)
