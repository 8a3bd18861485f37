"""Conversations, their messages, and every reply that was ever shown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from feedback.errors import NotFound
from feedback.store.database import Database, Row
from feedback.types import Conversation, Message, Reply, new_id, now


class Chats:
    """Tables conversations, messages and replies."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # ---- conversations --------------------------------------------------------------------------------------------

    def start(self, user_id: str, title: str, *, system: str = "", learn: bool = True) -> Conversation:
        """Open a conversation."""
        at = now()
        conversation = Conversation(new_id("c"), user_id, title, system, learn, at, at)
        with self._db.transaction() as db:
            db.execute(
                "insert into conversations values (?, ?, ?, ?, ?, ?, ?)",
                [conversation.id, user_id, title, system, int(learn), at, at],
            )
        return conversation

    def conversation(self, user_id: str, conversation_id: str) -> Conversation:
        """One of the person's conversations. Raises NotFound, also for somebody else's."""
        row = self._db.row("select * from conversations where id = ? and user_id = ?", [conversation_id, user_id])
        if row is None:
            raise NotFound(f"There is no conversation {conversation_id}.")
        return _conversation(row)

    def conversations(self, user_id: str, limit: int = 200) -> list[Conversation]:
        """A person's conversations, the newest activity first."""
        rows = self._db.rows(
            "select * from conversations where user_id = ? order by updated_at desc, id limit ?", [user_id, limit]
        )
        return [_conversation(row) for row in rows]

    def rename(self, user_id: str, conversation_id: str, title: str) -> None:
        """Give a conversation another title. Raises NotFound."""
        with self._db.transaction() as db:
            self.conversation(user_id, conversation_id)
            db.execute("update conversations set title = ? where id = ?", [title, conversation_id])

    def remove(self, user_id: str, conversation_id: str) -> None:
        """Delete a conversation and its messages. What was learned from its replies stays until the feedback goes."""
        with self._db.transaction() as db:
            self.conversation(user_id, conversation_id)
            db.execute("delete from conversations where id = ?", [conversation_id])

    def messages(self, conversation_id: str) -> list[Message]:
        """All turns, in order."""
        rows = self._db.rows("select * from messages where conversation_id = ? order by position", [conversation_id])
        return [
            Message(r["id"], r["conversation_id"], r["position"], r["role"], r["content"], r["reply_id"]) for r in rows
        ]

    def add_turn(self, conversation_id: str, question: str, reply: Reply) -> None:
        """Append a person's message and the reply shown for it."""
        with self._db.transaction() as db:
            place = int(
                self._db.value(
                    "select coalesce(max(position) + 1, 0) from messages where conversation_id = ?", [conversation_id]
                )
            )
            insert = "insert into messages values (?, ?, ?, ?, ?, ?)"
            db.execute(insert, [new_id("m"), conversation_id, place, "user", question, None])
            db.execute(insert, [new_id("m"), conversation_id, place + 1, "assistant", reply.text, reply.id])
            db.execute("update conversations set updated_at = ? where id = ?", [now(), conversation_id])

    def show_instead(self, conversation_id: str, reply: Reply) -> None:
        """Let the conversation's last assistant turn show another reply (a regenerated or preferred one)."""
        with self._db.transaction() as db:
            db.execute(
                "update messages set content = ?, reply_id = ? where conversation_id = ? and role = 'assistant' and "
                "position = (select max(position) from messages where conversation_id = ?)",
                [reply.text, reply.id, conversation_id, conversation_id],
            )

    # ---- replies --------------------------------------------------------------------------------------------------

    def add_replies(self, replies: Sequence[Reply]) -> None:
        """Keep replies with all they were made with."""
        with self._db.transaction() as db:
            for reply in replies:
                db.execute(
                    f"insert into replies values ({', '.join('?' * 17)})",
                    [
                        reply.id, reply.user_id, reply.conversation_id, reply.group_id, json.dumps(reply.prompt),
                        reply.text, reply.arm, reply.version, reply.base_id, json.dumps(reply.sampling), reply.seed,
                        reply.token_ids, int(reply.ended), int(reply.learn), reply.source, reply.latent,
                        reply.created_at,
                    ],
                )  # fmt: skip

    def replies(self, user_id: str, reply_ids: Sequence[str]) -> list[Reply]:
        """The person's replies with these ids, in the order asked. Raises NotFound for one that is not theirs."""
        marks = ", ".join("?" * len(reply_ids))
        rows = self._db.rows(f"select * from replies where user_id = ? and id in ({marks})", [user_id, *reply_ids])
        found = {row["id"]: _reply(row) for row in rows}
        for reply_id in reply_ids:
            if reply_id not in found:
                raise NotFound(
                    f"There is no reply {reply_id}. Use a reply_id from one of your own replies.", param="reply_id"
                )
        return [found[reply_id] for reply_id in reply_ids]

    def replies_to(self, user_id: str, conversation_id: str, group_id: str) -> list[Reply]:
        """All replies to one prompt within a conversation, oldest first."""
        rows = self._db.rows(
            "select * from replies where user_id = ? and conversation_id = ? and group_id = ? "
            "order by created_at, rowid",
            [user_id, conversation_id, group_id],
        )
        return [_reply(row) for row in rows]

    def all_replies(self, user_id: str) -> list[Reply]:
        """Every reply of a person, oldest first."""
        return [
            _reply(r)
            for r in self._db.rows("select * from replies where user_id = ? order by created_at, rowid", [user_id])
        ]

    def own_prompts(self, user_id: str, limit: int) -> list[list[dict[str, str]]]:
        """Prompts of the person's newest learnable replies, each once, newest first."""
        rows = self._db.rows(
            "select prompt from replies where user_id = ? and learn = 1 and source != 'edit' "
            "group by prompt order by max(created_at) desc limit ?",
            [user_id, limit],
        )
        return [json.loads(row["prompt"]) for row in rows]


def _conversation(row: Row) -> Conversation:
    return Conversation(
        row["id"], row["user_id"], row["title"], row["system"], bool(row["learn"]), row["created_at"], row["updated_at"]
    )


def _reply(row: Row) -> Reply:
    return Reply(
        id=row["id"],
        user_id=row["user_id"],
        conversation_id=row["conversation_id"],
        group_id=row["group_id"],
        prompt=json.loads(row["prompt"]),
        text=row["text"],
        arm=row["arm"],
        version=row["version"],
        base_id=row["base_id"],
        sampling=json.loads(row["sampling"]),
        seed=row["seed"],
        token_ids=row["token_ids"],
        ended=bool(row["ended"]),
        learn=bool(row["learn"]),
        source=row["source"],
        latent=row["latent"],
        created_at=row["created_at"],
    )
