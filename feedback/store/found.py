"""The search index over all messages: what goes in, and what a person finds among their own."""

from __future__ import annotations

from feedback.search import indexed, query, terms
from feedback.store.database import Database, Row
from feedback.types import Conversation, Found

MOST_FOUND = 50

_COLUMNS = (
    "c.id as id, c.user_id as user_id, c.title as title, c.system as system, c.learn as learn, "
    "c.created_at as created_at, c.updated_at as updated_at, c.archived as archived, c.deleted_at as deleted_at"
)


class Search:
    """Table search. A message's row number there is its `seq`; rows go with their messages."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, user_id: str, seq: int, text: str) -> None:
        """Index a message, or index it anew."""
        with self._db.transaction() as db:
            db.execute(
                "insert or replace into search (rowid, owner, text) values (?, ?, ?)", [seq, user_id, indexed(text)]
            )

    def find(self, user_id: str, typed: str, limit: int = MOST_FOUND) -> list[Found]:
        """The person's conversations that hold all that was typed in one message or in the title, newest hit first."""
        wanted = query(typed)
        if not wanted:
            return []
        hits = self._db.rows(
            f"select {_COLUMNS}, m.id as message_id, m.content as content, max(search.rowid) "
            "from search join messages m on m.seq = search.rowid join conversations c on c.id = m.conversation_id "
            "where search match ? and c.user_id = ? and c.deleted_at is null "
            "group by c.id order by max(search.rowid) desc limit ?",
            [f'owner : "{user_id}" AND text : ({wanted})', user_id, limit],
        )
        found = {row["id"]: Found(conversation_of(row), row["message_id"], row["content"]) for row in hits}
        for row in self._titled(user_id, typed, limit):
            found.setdefault(row["id"], Found(conversation_of(row), "", row["title"]))
        return list(found.values())[:limit]

    def shrink(self) -> None:
        """Rewrite the index without what was deleted, so that no word of it is left in the file."""
        with self._db.transaction() as db:
            db.execute("insert into search (search) values ('optimize')")

    def _titled(self, user_id: str, typed: str, limit: int) -> list[Row]:
        wanted = [f"%{_escaped(part)}%" for part in terms(typed)]
        likes = " and ".join(["c.title like ? escape '\\'"] * len(wanted))
        return self._db.rows(
            f"select {_COLUMNS} from conversations c where c.user_id = ? and c.deleted_at is null and {likes} "
            "order by c.rowid desc limit ?",
            [user_id, *wanted, limit],
        )


def conversation_of(row: Row) -> Conversation:
    """A row of the table conversations as what it is."""
    return Conversation(
        id=row["id"],
        user_id=row["user_id"],
        title=row["title"],
        system=row["system"],
        learn=bool(row["learn"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        archived=bool(row["archived"]),
        deleted_at=row["deleted_at"],
    )


def _escaped(part: str) -> str:
    return "".join(f"\\{c}" if c in "\\%_" else c for c in part)
