"""What the chat page shows, read from the services and put into templates. Nothing here changes anything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from assistant.mynah import Mynah
from assistant.ui.live import LiveTurn
from assistant.ui.render import show
from assistant.ui.words import wrote
from feedback.types import Message, Reply, User

MOST_SHOWN = 4


@dataclass(frozen=True)
class Shown:
    """One reply with what the person has said about it; `said` is the quiet line after a click."""

    id: str
    text: str
    by: str
    by_long: str
    thumb: int
    reasons: tuple[str, ...]
    comment: str
    said: str


@dataclass(frozen=True)
class Turn:
    """A question and the reply shown for it. before, after: its neighbours among several replies to the last one."""

    question: str
    reply: Shown | None
    last: bool
    place: int = 0
    of: int = 0
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Draft:
    """One of several replies side by side."""

    id: str
    name: str
    text: str


@dataclass
class ChatView:
    """Templates of the chat page for one person and one conversation ("" before the first message)."""

    mynah: Mynah
    user: User
    here: str
    said: dict[str, str] = field(default_factory=dict)

    def thread(self, *, without_last_reply: bool = False) -> str:
        """The whole conversation. without_last_reply: what answers the last question stands below, on the stage."""
        learn = True
        turns: list[Turn] = []
        if self.here:
            learn = self.mynah.store.chats.conversation(self.user.id, self.here).learn
            turns = self._turns(self.mynah.chat.history(self.user, self.here), without_last_reply)
        return show("thread.html", user=self.user, learn=learn, turns=turns, new=not self.here)

    def side(self) -> str:
        """The conversation list and the way to the other pages."""
        return side(self.mynah, self.user, "chat", self.here)

    def title(self) -> str:
        """The title of the open conversation."""
        return self.mynah.store.chats.conversation(self.user.id, self.here).title if self.here else ""

    def writing(self, live: LiveTurn) -> str:
        """Replies as they grow."""
        drafts = [Draft(reply_id, name, text) for reply_id, name, text in self._named(live.reply_ids, live.texts)]
        return show("stage.html", question=live.question, drafts=drafts, percent=live.percent)

    def choice(self) -> str:
        """The replies to the last question side by side, at random places and without saying who wrote them."""
        replies = list(self.mynah.chat.candidates(self.user, self.here))[-MOST_SHOWN:]
        if len(replies) < 2:
            return ""
        random.SystemRandom().shuffle(replies)
        named = self._named([reply.id for reply in replies], [reply.text for reply in replies])
        drafts = [Draft(reply_id, name, text) for reply_id, name, text in named]
        return show("choice.html", drafts=drafts, order=",".join(draft.id for draft in drafts))

    def _named(self, reply_ids: list[str], texts: list[str]) -> list[tuple[str, str, str]]:
        return list(zip(reply_ids, draft_names(len(texts)), texts, strict=True))

    def _turns(self, messages: Sequence[Message], without_last_reply: bool) -> list[Turn]:
        written = [message.reply_id for message in messages if message.reply_id]
        replies = {reply.id: reply for reply in self.mynah.store.chats.replies(self.user.id, written)}
        turns: list[Turn] = []
        for message in messages:
            if message.role == "user":
                turns.append(Turn(message.content, None, last=False))
            elif turns:
                reply = replies.get(message.reply_id or "")
                turns[-1] = Turn(turns[-1].question, self._shown(message, reply), last=False)
        if turns:
            turns[-1] = self._last(turns[-1], without_last_reply)
        return turns

    def _last(self, turn: Turn, without_reply: bool) -> Turn:
        if without_reply or turn.reply is None:
            return Turn(turn.question, None, last=True)
        ids = [reply.id for reply in self.mynah.chat.candidates(self.user, self.here)]
        if len(ids) < 2 or turn.reply.id not in ids:
            return Turn(turn.question, turn.reply, last=True)
        at = ids.index(turn.reply.id)
        before, after = ids[at - 1] if at else "", ids[at + 1] if at + 1 < len(ids) else ""
        return Turn(turn.question, turn.reply, True, at + 1, len(ids), before, after)

    def _shown(self, message: Message, reply: Reply | None) -> Shown:
        if reply is None:
            return Shown("", message.content, "", "", 0, (), "", "")
        given = thumb_given(self.mynah, reply.id)
        by, by_long = wrote(reply.arm, reply.version)
        return Shown(
            id=reply.id,
            text=message.content,
            by=by,
            by_long=by_long,
            thumb=int(given.get("thumb", 0)),
            reasons=tuple(given.get("reasons", ())),
            comment=str(given.get("comment", "")),
            said=self.said.get(reply.id, ""),
        )


def draft_names(count: int) -> Sequence[str]:
    """What replies side by side are called."""
    return ("Left", "Right") if count == 2 else "ABCD"[:count]


def thumb_given(mynah: Mynah, reply_id: str) -> dict[str, Any]:
    """The live thumb about a reply as it was given: thumb, reasons, comment; empty without one."""
    given = mynah.store.acts.live_for_reply(reply_id, "thumb")
    return given[-1].payload if given else {}


def side(mynah: Mynah, user: User, page: str, here: str = "") -> str:
    """The left column of every page."""
    return show("side.html", user=user, conversations=mynah.chat.list(user), page=page, here=here)
