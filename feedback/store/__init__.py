"""The store: the only SQL in Mynah. One module a group of tables; one public method, one transaction.

store = Store(path)          # opens, migrates
store.people.add("ada", …)
store.chats.add_replies([...])
store.acts.add(...)
store.versions.promote(...)
"""

from __future__ import annotations

from pathlib import Path

from feedback.store.acts import Acts
from feedback.store.chats import Chats
from feedback.store.commons import Commons
from feedback.store.database import Database
from feedback.store.found import Search
from feedback.store.people import People
from feedback.store.server import Server
from feedback.store.trials import VersionTrials
from feedback.store.versions import Versions


class Store:
    """All groups of tables over one database."""

    def __init__(self, path: Path | None = None) -> None:
        """path: the database file; None keeps everything in memory (tests)."""
        self.database = Database(path)
        self.people = People(self.database)
        self.chats = Chats(self.database)
        self.search = Search(self.database)
        self.acts = Acts(self.database)
        self.commons = Commons(self.database)
        self.versions = Versions(self.database)
        self.trials = VersionTrials(self.database)
        self.server = Server(self.database)

    def counts(self) -> dict[str, int]:
        """How much there is of everything, for the metrics page."""
        tables = ("users", "sessions", "conversations", "replies", "preferences", "versions")
        counted = {table: int(self.database.value(f"select count(*) from {table}")) for table in tables}
        for row in self.database.rows("select state, count(*) as number from updates group by state"):
            counted[f"updates.{row['state']}"] = int(row["number"])
        return counted

    def close(self) -> None:
        """Fold the log into the file and close."""
        self.database.checkpoint()
        self.database.close()


__all__ = ["Store"]
