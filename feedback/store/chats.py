"""Conversations, their messages, and every reply that was ever shown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from feedback.errors import NotFound
from feedback.store.database import Database, Row
from feedback.store.found import Search, conversation_of
from feedback.types import Conversation, Message, Reply, new_id, now

# By the numbers of messages, not by times: after a clock was put back, a new chat must not stand below all others.
_NEWEST_MESSAGE = "(select max(seq) from messages where conversation_id = conversations.id)"
_NEWEST_FIRST = f"{_NEWEST_MESSAGE} desc nulls first, conversations.rowid desc"
# Replies that an act teaches something about: a thumb that was only taken back (0) says nothing.
TAUGHT = "select reply_id from feedback_replies join preferences using (feedback_id)"


class Chats:
    """Tables conversations, messages and replies."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._search = Search(database)

    # ---- conversations --------------------------------------------------------------------------------------------

    def start(self, user_id: str, title: str, *, system: str = "", learn: bool = True) -> Conversation:
        """Open a conversation."""
        at = now()
        conversation = Conversation(new_id("c"), user_id, title, system, learn, at, at)
        with self._db.transaction() as db:
            db.execute(
                "insert into conversations (id, user_id, title, system, learn, created_at, updated_at) "
                "values (?, ?, ?, ?, ?, ?, ?)",
                [conversation.id, user_id, title, system, int(learn), at, at],
            )
        return conversation

    def conversation(self, user_id: str, conversation_id: str) -> Conversation:
        """One of the person's conversations. Raises NotFound, also for a deleted one and for somebody else's."""
        row = self._db.row(
            "select * from conversations where id = ? and user_id = ? and deleted_at is null",
            [conversation_id, user_id],
        )
        if row is None:
            raise NotFound(f"There is no conversation {conversation_id}.")
        return conversation_of(row)

    def conversations(self, user_id: str, most: int | None = None, *, archived: bool = False) -> list[Conversation]:
        """A person's conversations (or those put into the archive), the newest activity first; at most so many."""
        rows = self._db.rows(
            "select * from conversations where user_id = ? and archived = ? and deleted_at is null "
            f"order by {_NEWEST_FIRST} limit ?",
            [user_id, int(archived), -1 if most is None else most],
        )
        return [conversation_of(row) for row in rows]

    def count(self, user_id: str) -> tuple[int, int]:
        """How many conversations a person has outside the archive, and in it."""
        rows = self._db.rows(
            "select archived, count(*) as talks from conversations where user_id = ? and deleted_at is null "
            "group by archived",
            [user_id],
        )
        found = {row["archived"]: row["talks"] for row in rows}
        return found.get(0, 0), found.get(1, 0)

    def every_conversation(self, user_id: str) -> list[Conversation]:
        """All that is held, archived ones and those that can still be brought back too, the newest activity first."""
        rows = self._db.rows(f"select * from conversations where user_id = ? order by {_NEWEST_FIRST}", [user_id])
        return [conversation_of(row) for row in rows]

    def rename(self, user_id: str, conversation_id: str, title: str) -> None:
        """Give a conversation another title. Raises NotFound."""
        with self._db.transaction() as db:
            self.conversation(user_id, conversation_id)
            db.execute("update conversations set title = ? where id = ?", [title, conversation_id])

    def archive(self, user_id: str, conversation_id: str, archived: bool) -> None:
        """Put a conversation into the archive, or take it out. Raises NotFound."""
        with self._db.transaction() as db:
            self.conversation(user_id, conversation_id)
            db.execute("update conversations set archived = ? where id = ?", [int(archived), conversation_id])

    def set_system(self, user_id: str, conversation_id: str, system: str) -> None:
        """Another system prompt, for what is written from now on. Raises NotFound."""
        with self._db.transaction() as db:
            self.conversation(user_id, conversation_id)
            db.execute("update conversations set system = ? where id = ?", [system, conversation_id])

    def set_learn(self, user_id: str, conversation_id: str, learn: bool) -> None:
        """Whether anything is learned from what is written from now on; off also keeps out what was written before.

        What was clicked before stays clicked. Raises NotFound.
        """
        with self._db.transaction() as db:
            self.conversation(user_id, conversation_id)
            db.execute("update conversations set learn = ? where id = ?", [int(learn), conversation_id])
            if not learn:
                db.execute("update replies set learn = 0 where conversation_id = ?", [conversation_id])

    # ---- deleting, with a way back --------------------------------------------------------------------------------

    def put_away(self, user_id: str, conversation_id: str) -> None:
        """Delete a conversation so that it can be brought back until `purge`. Raises NotFound."""
        with self._db.transaction() as db:
            self.conversation(user_id, conversation_id)
            db.execute("update conversations set deleted_at = ? where id = ?", [now(), conversation_id])

    def bring_back(self, user_id: str, conversation_id: str) -> None:
        """Undo `put_away`. Raises NotFound when it is really gone."""
        with self._db.transaction() as db:
            back = db.execute(
                "update conversations set deleted_at = null where id = ? and user_id = ? and deleted_at is not null",
                [conversation_id, user_id],
            )
            if not back.rowcount:
                raise NotFound(f"There is no deleted conversation {conversation_id} to bring back: it is gone.")

    def put_away_by(self, user_id: str) -> list[Conversation]:
        """What a person deleted and can still bring back."""
        rows = self._db.rows("select * from conversations where user_id = ? and deleted_at is not null", [user_id])
        return [conversation_of(row) for row in rows]

    def all_put_away(self) -> dict[str, str]:
        """When each conversation of anybody that waits for `purge` was deleted, by id."""
        rows = self._db.rows("select id, deleted_at from conversations where deleted_at is not null")
        return {row["id"]: row["deleted_at"] for row in rows}

    def purge(self, conversation_ids: Sequence[str]) -> int:
        """Really delete conversations, of those that are put away; how many those were."""
        with self._db.transaction():
            waiting = self.all_put_away()
            gone = [each for each in conversation_ids if each in waiting]
            for each in gone:
                self._erase(each)
            if gone:
                self._search.shrink()
        if gone:
            self._db.leave_no_trace()
        return len(gone)

    def remove(self, user_id: str, conversation_id: str) -> None:
        """Delete a conversation for good. Raises NotFound.

        Its replies go with it, except those about which the person has said something: what was learned from them
        stays until the feedback goes.
        """
        with self._db.transaction():
            self.conversation(user_id, conversation_id)
            self._erase(conversation_id)

    def _erase(self, conversation_id: str) -> None:
        with self._db.transaction() as db:
            db.execute(
                f"delete from replies where conversation_id = ? and id not in ({TAUGHT})",
                [conversation_id],
            )
            db.execute(
                "update replies set source = 'kept' where conversation_id = ? and source = 'chat'", [conversation_id]
            )
            db.execute("delete from conversations where id = ?", [conversation_id])

    # ---- messages -------------------------------------------------------------------------------------------------

    def messages(self, conversation_id: str) -> list[Message]:
        """The turns that are shown, in order: the branch that ends with the conversation's last message."""
        rows = self._db.rows(
            "with recursive shown as ("
            "select * from messages where id = (select leaf_id from conversations where id = ?) "
            "union all select messages.* from messages join shown on messages.id = shown.parent_id) "
            "select * from shown order by position",
            [conversation_id],
        )
        return [_message(row) for row in rows]

    def every_message(self, conversation_id: str) -> list[Message]:
        """The turns of all branches, in the order they were written."""
        rows = self._db.rows("select * from messages where conversation_id = ? order by seq", [conversation_id])
        return [_message(row) for row in rows]

    def add_turn(self, conversation_id: str, question: str, reply: Reply, *, beside: Message | None = None) -> None:
        """Append a person's message and the reply shown for it.

        beside: an earlier message; the new one takes its place, and what followed it stays as another branch.
        """
        with self._db.transaction() as db:
            last = self.messages(conversation_id)[-1:] if beside is None else []
            parent = beside.parent_id if beside else (last[0].id if last else None)
            place = beside.position if beside else (last[0].position + 1 if last else 0)
            asked = self._add(conversation_id, reply.user_id, parent, place, "user", question, None)
            shown = self._add(conversation_id, reply.user_id, asked, place + 1, "assistant", reply.text, reply.id)
            db.execute(
                "update conversations set updated_at = ?, leaf_id = ? where id = ?", [now(), shown, conversation_id]
            )

    def turn_to(self, conversation_id: str, message_id: str) -> None:
        """Show the branch with this message, as it was left last. Raises NotFound when it is not in there."""
        with self._db.transaction() as db:
            leaf = self._db.value(
                "with recursive below as (select * from messages where id = ? and conversation_id = ? "
                "union all select messages.* from messages join below on messages.parent_id = below.id) "
                "select id from below order by seq desc limit 1",
                [message_id, conversation_id],
            )
            if leaf is None:
                raise NotFound(f"There is no message {message_id} in this conversation.")
            db.execute("update conversations set leaf_id = ? where id = ?", [leaf, conversation_id])

    def show_instead(self, conversation_id: str, reply: Reply) -> None:
        """Let the conversation's last assistant turn show another reply (a regenerated or preferred one)."""
        with self._db.transaction() as db:
            row = self._db.row(
                "select seq from messages where role = 'assistant' and "
                "id = (select leaf_id from conversations where id = ?)",
                [conversation_id],
            )
            if row is not None:
                db.execute(
                    "update messages set content = ?, reply_id = ? where seq = ?", [reply.text, reply.id, row["seq"]]
                )
                self._search.put(reply.user_id, row["seq"], reply.text)

    def _add(
        self,
        conversation_id: str,
        user_id: str,
        parent: str | None,
        place: int,
        role: str,
        content: str,
        reply_id: str | None,
    ) -> str:
        name = new_id("m")
        with self._db.transaction() as db:
            db.execute(
                "insert into messages (id, conversation_id, parent_id, position, role, content, reply_id) "
                "values (?, ?, ?, ?, ?, ?, ?)",
                [name, conversation_id, parent, place, role, content, reply_id],
            )
            seq = int(self._db.value("select seq from messages where id = ?", [name]))
            self._search.put(user_id, seq, content)
        return name

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
            "select * from replies where user_id = ? and conversation_id = ? and group_id = ? order by rowid",
            [user_id, conversation_id, group_id],
        )
        return [_reply(row) for row in rows]

    def all_replies(self, user_id: str) -> list[Reply]:
        """Every reply of a person, oldest first."""
        return [_reply(r) for r in self._db.rows("select * from replies where user_id = ? order by rowid", [user_id])]

    def own_prompts(self, user_id: str, limit: int) -> list[list[dict[str, str]]]:
        """Prompts of the person's newest learnable replies, each once, newest first.

        Of those outside a chat only the ones that the person has said something about: other programs also ask for what
        nobody reads, a title or tags.
        """
        rows = self._db.rows(
            "select prompt from replies where user_id = ? and learn = 1 and source != 'edit' "
            f"and (conversation_id is not null or id in ({TAUGHT})) "
            "group by prompt order by max(rowid) desc limit ?",
            [user_id, limit],
        )
        return [json.loads(row["prompt"]) for row in rows]


def _message(row: Row) -> Message:
    return Message(
        row["id"],
        row["conversation_id"],
        row["position"],
        row["role"],
        row["content"],
        row["reply_id"],
        row["parent_id"],
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
