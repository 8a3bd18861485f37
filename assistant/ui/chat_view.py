"""What the chat page shows, read from the services and put into templates. Nothing here changes anything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from assistant.mynah import Mynah
from assistant.ui.language import say
from assistant.ui.live import LiveTurn
from assistant.ui.render import show
from assistant.ui.words import wrote
from feedback.types import Message, Reply, User

MOST_SHOWN = 4  # replies side by side
MOST_LISTED = 200  # chats in the left column, the newest; all of them where somebody asks for that
MOST_UNDONE = 3  # deleted chats that are offered back


@dataclass(frozen=True)
class Shown:
    """One reply with what the person has said about it; `said` is the quiet line after a click.

    learn: whether it takes feedback; cost: the versions that would go with its thumb; cut: it ended at its limit of so
    many tokens, 0 when it did not.
    """

    id: str
    text: str
    by: str
    by_long: str
    thumb: int
    reasons: tuple[str, ...]
    comment: str
    said: str
    learn: bool = False
    cost: str = ""
    cut: int = 0


@dataclass(frozen=True)
class Place:
    """Where something stands among its siblings: number `at` of `of`, between before and after ("" at the ends)."""

    at: int
    of: int
    before: str
    after: str


@dataclass(frozen=True)
class Turn:
    """A question and the reply shown for it; each with its place, where there are several. comparable: several replies
    to it take feedback."""

    id: str
    question: str
    asked: Place | None
    reply_message: str = ""
    reply: Shown | None = None
    replied: Place | None = None
    comparable: bool = False
    last: bool = False


@dataclass(frozen=True)
class Draft:
    """One of several replies side by side."""

    id: str
    name: str
    text: str


@dataclass
class ChatView:
    """Templates of the chat page for one person and one conversation ("" before the first message). all_listed: the
    left column holds all chats, not the newest only."""

    mynah: Mynah
    user: User
    here: str
    said: dict[str, str] = field(default_factory=dict)
    all_listed: bool = False

    def thread(self, *, without_last_reply: bool = False, until: str = "") -> str:
        """The whole conversation. without_last_reply: what answers the last question stands below, on the stage.

        until: only what stands before this message, in whose place another is being answered.
        """
        turns: list[Turn] = []
        learn = True
        if self.here:
            learn = self.mynah.chat.conversation(self.user, self.here).learn
            messages = list(self.mynah.chat.history(self.user, self.here))
            ids = [message.id for message in messages]
            if until in ids:
                messages = messages[: ids.index(until)]
            turns = self._turns(messages)
            if turns and until not in ids:
                turns[-1] = self._last(turns[-1], without_last_reply)
        unknown = not (self.here or self.mynah.learning.has_learned(self.user))
        return show(
            "thread.html",
            user=self.user,
            learn=learn,
            turns=turns,
            new=not self.here,
            unknown=unknown and self.mynah.questions.left(self.user) > 0,
            title=self.title(),
        )

    def live_thread(self, live: LiveTurn | None) -> str:
        """The conversation as it stands above a reply that is being written."""
        if live is None:
            return self.thread()
        return self.thread(without_last_reply=not live.question, until=live.instead_of)

    def side(self) -> str:
        """The conversation list and the way to the other pages."""
        return side(self.mynah, self.user, "chat", self.here, MOST_LISTED if not self.all_listed else None)

    def title(self) -> str:
        """The title of the open conversation."""
        return self.mynah.store.chats.conversation(self.user.id, self.here).title if self.here else ""

    def writing(self, live: LiveTurn) -> str:
        """Replies as they grow."""
        drafts = [Draft(reply_id, name, text) for reply_id, name, text in self._named(live.reply_ids, live.texts)]
        return show("stage.html", question=live.question, drafts=drafts, percent=live.percent)

    def choice(self, ids: Sequence[str] = (), *, in_order: bool = False, asked: bool = False) -> str:
        """Replies to the last question side by side, without saying who wrote them, at random places.

        ids: which ones, else the newest. in_order: the person has seen them at their places. asked: Mynah wants to know
        by itself. "" where there is nothing to choose from that may be learned from.
        """
        replies = [reply for reply in self.mynah.chat.candidates(self.user, self.here) if reply.learn]
        chosen = [reply for name in ids for reply in replies if reply.id == name] or replies[-MOST_SHOWN:]
        if len(chosen) < 2:
            return ""
        if not in_order:
            random.SystemRandom().shuffle(chosen)
        named = self._named([reply.id for reply in chosen], [reply.text for reply in chosen])
        drafts = [Draft(reply_id, name, text) for reply_id, name, text in named]
        return show("choice.html", drafts=drafts, order=",".join(draft.id for draft in drafts), asked=asked)

    def _named(self, reply_ids: list[str], texts: list[str]) -> list[tuple[str, str, str]]:
        return list(zip(reply_ids, draft_names(len(texts)), texts, strict=True))

    def _turns(self, messages: Sequence[Message]) -> list[Turn]:
        written = [message.reply_id for message in messages if message.reply_id]
        replies = {reply.id: reply for reply in self.mynah.store.chats.replies(self.user.id, written)}
        versions = self.mynah.chat.versions(self.user, self.here)
        turns: list[Turn] = []
        for message in messages:
            if message.role == "user":
                siblings = [version.id for version in versions[message.id]]
                turns.append(Turn(message.id, message.content, place(siblings, message.id)))
            elif turns:
                shown = self._shown(message, replies.get(message.reply_id or ""))
                turns[-1] = replace(turns[-1], reply=shown, reply_message=message.id)
        return turns

    def _last(self, turn: Turn, without_reply: bool) -> Turn:
        if without_reply or turn.reply is None:
            return replace(turn, reply=None, last=True)
        replies = self.mynah.chat.candidates(self.user, self.here)
        replied = place([reply.id for reply in replies], turn.reply.id)
        return replace(turn, replied=replied, comparable=sum(reply.learn for reply in replies) > 1, last=True)

    def _shown(self, message: Message, reply: Reply | None) -> Shown:
        if reply is None:
            return Shown("", message.content, "", "", 0, (), "", "")
        thumbs = self.mynah.store.acts.live_for_reply(reply.id, "thumb")
        given = thumbs[-1].payload if thumbs else {}
        by, by_long = wrote(reply.arm, reply.version)
        limit = int(reply.sampling.get("max_tokens", 0))
        return Shown(
            id=reply.id,
            text=message.content,
            by=by,
            by_long=by_long,
            thumb=int(given.get("thumb", 0)),
            reasons=tuple(given.get("reasons", ())),
            comment=str(given.get("comment", "")),
            said=self.said.get(reply.id, ""),
            learn=reply.learn,
            cost=self.mynah.learning.cost_of_retracting(self.user, thumbs[-1].id) if thumbs else "",
            cut=limit if limit and not reply.ended and len(reply.token_ids) // 4 >= limit else 0,
        )


def place(ids: Sequence[str], one: str) -> Place | None:
    """Where one stands among several; None when it is alone."""
    if len(ids) < 2 or one not in ids:
        return None
    at = ids.index(one)
    return Place(at + 1, len(ids), ids[at - 1] if at else "", ids[at + 1] if at + 1 < len(ids) else "")


def draft_names(count: int) -> Sequence[str]:
    """What replies side by side are called."""
    return (say("Left"), say("Right")) if count == 2 else "ABCD"[:count]


def thumb_given(mynah: Mynah, reply_id: str) -> dict[str, Any]:
    """The live thumb about a reply as it was given: thumb, reasons, comment; empty without one."""
    given = mynah.store.acts.live_for_reply(reply_id, "thumb")
    return given[-1].payload if given else {}


def side(mynah: Mynah, user: User, page: str, here: str = "", most: int | None = MOST_LISTED) -> str:
    """The left column of every page, with at most so many of the newest chats."""
    counts = mynah.store.chats.count(user.id)
    return show(
        "side.html",
        user=user,
        conversations=mynah.chat.list(user, most),
        archived=mynah.chat.list(user, most, archived=True),
        talks=counts[0],
        put_away=counts[1],
        waiting=mynah.chat.trash.waiting(user)[:MOST_UNDONE],
        page=page,
        here=here,
    )
