"""One conversation to take along: as Markdown to read, as JSON for a program.

The Markdown has what is shown; the JSON has all branches and who wrote each reply, as they lie in the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from feedback.store import Store
from feedback.types import Reply, User, now


def as_markdown(store: Store, user: User, conversation_id: str) -> str:
    """What is shown of a conversation. Raises NotFound."""
    conversation = store.chats.conversation(user.id, conversation_id)
    replies = _replies(store, user, conversation_id)
    parts = [f"# {conversation.title or 'New chat'}", f"*{conversation.created_at[:10]}*"]
    if conversation.system:
        parts.append(f"**How to answer:** {conversation.system}")
    for message in store.chats.messages(conversation_id):
        reply = replies.get(message.reply_id or "")
        parts += [f"## {_speaker(user, message.role, reply)}", message.content.strip()]
    return "\n\n".join(parts) + "\n"


def as_record(store: Store, user: User, conversation_id: str) -> dict[str, Any]:
    """A conversation with the messages of all branches. Raises NotFound.

    shown: ids of the messages of the branch that is shown; each message names the one it follows.
    """
    conversation = store.chats.conversation(user.id, conversation_id)
    replies = _replies(store, user, conversation_id)
    messages = []
    for message in store.chats.every_message(conversation_id):
        record = asdict(message)
        del record["conversation_id"]
        if reply := replies.get(message.reply_id or ""):
            record |= {"arm": reply.arm, "version": reply.version, "base_id": reply.base_id, "at": reply.created_at}
        messages.append(record)
    kept = asdict(conversation)
    for field in ("user_id", "deleted_at"):
        del kept[field]
    shown = [message.id for message in store.chats.messages(conversation_id)]
    return {**kept, "exported_at": now(), "shown": shown, "messages": messages}


def file_name(title: str, ending: str) -> str:
    """A name for the file that every system takes."""
    words = re.sub(r"[^\w\- ]+", " ", title).split()
    return f"{' '.join(words)[:60].strip() or 'chat'}.{ending}"


def _replies(store: Store, user: User, conversation_id: str) -> Mapping[str, Reply]:
    named = [message.reply_id for message in store.chats.every_message(conversation_id) if message.reply_id]
    return {reply.id: reply for reply in store.chats.replies(user.id, list(dict.fromkeys(named)))}


def _speaker(user: User, role: str, reply: Reply | None) -> str:
    if role == "user":
        return user.name
    wrote = f" ({reply.arm}, v{reply.version})" if reply and reply.version else f" ({reply.arm})" if reply else ""
    return f"Mynah{wrote}"
