"""Chat: requests, and the conversations of the browser with their branches.

    turn = chat.start(user, ChatRequest(messages))     # all that is wrong with a request is said here
    for choice, text in turn.pieces(): ...             # or turn.replies(), which waits
    turn = chat.send(user, conversation_id, "Hello")   # the same within a conversation

Left out on purpose: who writes (requests.py), HTTP (api/) and pixels (ui/); the last two only call this.
"""

from __future__ import annotations

import builtins
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate, dropwhile
from time import monotonic

from adapters.rendering import ChatMessage
from assistant.asking import Asking
from assistant.engine import Engine
from assistant.learning import Learning
from assistant.limits import Limits
from assistant.messages import MAX_CONVERSATION, check_messages, check_text
from assistant.requests import ChatRequest, Requests
from assistant.trash import Trash
from assistant.turn import Keep, Turn
from feedback.errors import Conflict, MynahError, NotFound
from feedback.store import Store
from feedback.types import ArmName, Conversation, Found, Message, Reply, User

MAX_TITLE, TITLE_CHARACTERS = 200, 48
NEWEST = 200  # messages of a conversation that are looked at; far more than the context holds
MAX_SEARCH = 200  # characters looked for

__all__ = ["Chat", "ChatRequest", "title_of"]

log = logging.getLogger(__name__)


class Chat:
    """Everybody's requests and conversations."""

    def __init__(
        self, store: Store, engine: Engine, learning: Learning, limits: Limits, *, max_tokens: int = 256
    ) -> None:
        """max_tokens: of a reply, when a request does not say."""
        self._store = store
        self._requests = Requests(store, engine, learning, limits, max_tokens=max_tokens)
        self.asking = Asking(store)
        self.trash = Trash(store)
        self._under_way: dict[str, Turn] = {}  # by conversation
        self._guard = threading.Lock()

    # ---- requests -------------------------------------------------------------------------------------------------

    def start(self, user: User, request: ChatRequest) -> Turn:
        """Begin to answer outside any conversation. Raises InvalidInput, NotFound (a version), Conflict and Busy."""
        return self._requests.start(user, request, lambda replies, asked: self._store.chats.add_replies(replies))

    def served(self, user: User) -> tuple[ArmName, int | None]:
        """The arm that `auto` serves now, and its version."""
        return self._requests.served(user)

    # ---- conversations --------------------------------------------------------------------------------------------

    def open(self, user: User, system: str = "", learn: bool = True) -> Conversation:
        """Begin a conversation; it gets its title from the first message."""
        _check_system(system)
        return self._store.chats.start(user.id, "", system=system, learn=learn)

    def conversation(self, user: User, conversation_id: str) -> Conversation:
        """One of the person's conversations. Raises NotFound."""
        return self._store.chats.conversation(user.id, conversation_id)

    def list(self, user: User, most: int | None = None, *, archived: bool = False) -> Sequence[Conversation]:
        """The person's conversations, or those in the archive, the newest activity first; at most so many."""
        return self._store.chats.conversations(user.id, most, archived=archived)

    def search(self, user: User, typed: object) -> Sequence[Found]:
        """The person's conversations in which something was said, the newest first."""
        return self._store.search.find(user.id, check_text(typed, "The search", "q", limit=MAX_SEARCH))

    def rename(self, user: User, conversation_id: str, title: object) -> None:
        """Give a conversation another title."""
        self._store.chats.rename(
            user.id, conversation_id, check_text(title, "The title", "title", limit=MAX_TITLE).strip()
        )

    def archive(self, user: User, conversation_id: str, archived: bool = True) -> None:
        """Put a conversation out of sight, or back; nothing else changes."""
        self._store.chats.archive(user.id, conversation_id, archived)

    def set_system(self, user: User, conversation_id: str, system: str) -> None:
        """How to answer in this conversation from now on."""
        _check_system(system)
        self._store.chats.set_system(user.id, conversation_id, system.strip())

    def set_learn(self, user: User, conversation_id: str, learn: bool) -> None:
        """Whether anything is learned from this conversation; see `Chats.set_learn`."""
        self._store.chats.conversation(user.id, conversation_id)
        with self._alone(conversation_id):
            self._store.chats.set_learn(user.id, conversation_id, learn)

    def remove(self, user: User, conversation_id: str) -> None:
        """Delete a conversation, ending what is being written in it; `trash` can bring it back for a while."""
        self._end(user, conversation_id)
        self.trash.put_away(user, conversation_id)

    def discard(self, user: User, conversation_id: str) -> None:
        """Delete a conversation for good and at once."""
        self._end(user, conversation_id)
        self._store.chats.remove(user.id, conversation_id)

    def _end(self, user: User, conversation_id: str) -> None:
        self._store.chats.conversation(user.id, conversation_id)
        if (turn := self._under_way.get(conversation_id)) is not None:
            turn.stop()
            _settle(turn)

    def history(self, user: User, conversation_id: str) -> Sequence[Message]:
        """The turns that are shown and finished, in order."""
        self._store.chats.conversation(user.id, conversation_id)
        return self._store.chats.messages(conversation_id)

    def versions(self, user: User, conversation_id: str) -> dict[str, Sequence[Message]]:
        """Messages of the person that stand at the same place, oldest first, by the id of each of them."""
        self._store.chats.conversation(user.id, conversation_id)
        places: dict[str | None, builtins.list[Message]] = {}
        for message in self._store.chats.every_message(conversation_id):
            if message.role == "user":
                places.setdefault(message.parent_id, []).append(message)
        return {message.id: versions for versions in places.values() for message in versions}

    def turn_to(self, user: User, conversation_id: str, message_id: str) -> None:
        """Show the branch with a message, as it was left. Raises NotFound."""
        self._store.chats.conversation(user.id, conversation_id)
        if all(message.id != message_id for message in self._store.chats.messages(conversation_id)):
            with self._alone(conversation_id):
                self._store.chats.turn_to(conversation_id, message_id)

    def send(
        self,
        user: User,
        conversation_id: str,
        text: object,
        *,
        n: int = 1,
        arm: str = "auto",
        seed: int | None = None,
        max_tokens: int | None = None,
        ask: bool = False,
    ) -> Turn:
        """Say something. The turn is in the history once it is finished, showing the first choice.

        ask: now and then, two replies may come instead of one, to be compared (asking.py).
        """
        conversation = self._store.chats.conversation(user.id, conversation_id)
        said = check_text(text, "The message", "text")

        def keep(replies: Sequence[Reply], asked: bool) -> None:
            with self._store.database.transaction():
                self._store.chats.add_replies(replies)
                self._store.chats.add_turn(conversation_id, said, replies[0])
                self.asking.count(user, asked)
                if not conversation.title:
                    self._store.chats.rename(user.id, conversation_id, title_of(said))

        with self._alone(conversation_id):
            prompt = _prompt(conversation, self._store.chats.messages(conversation_id), said)
            may_ask = ask and n == 1 and conversation.learn and self._may_ask(user)
            request = ChatRequest(prompt, arm, n=n, max_tokens=max_tokens, seed=seed, ask=may_ask)
            return self._begin(user, conversation, request, keep)

    def revise(
        self,
        user: User,
        conversation_id: str,
        message_id: str,
        text: object,
        *,
        n: int = 1,
        arm: str = "auto",
        seed: int | None = None,
        max_tokens: int | None = None,
    ) -> Turn:
        """Say something else in place of an earlier message; what followed that stays as a branch of its own."""
        conversation = self._store.chats.conversation(user.id, conversation_id)
        said = check_text(text, "The message", "text")

        def keep(replies: Sequence[Reply], asked: bool) -> None:
            with self._store.database.transaction():
                self._store.chats.add_replies(replies)
                self._store.chats.add_turn(conversation_id, said, replies[0], beside=earlier)
                self.asking.count(user, asked)

        with self._alone(conversation_id):
            before, earlier = self._until(conversation_id, message_id)
            request = ChatRequest(_prompt(conversation, before, said), arm, n=n, max_tokens=max_tokens, seed=seed)
            return self._begin(user, conversation, request, keep)

    def _until(self, conversation_id: str, message_id: str) -> tuple[Sequence[Message], Message]:
        """What comes before a message of the person on its branch, and the message. Raises NotFound."""
        known = {message.id: message for message in self._store.chats.every_message(conversation_id)}
        message = known.get(message_id)
        if message is None or message.role != "user":
            raise NotFound(f"{message_id} is no message of yours in this conversation.", param="message_id")
        before: builtins.list[Message] = []
        above = message.parent_id
        while above is not None:
            before.insert(0, known[above])
            above = known[above].parent_id
        return before, message

    def _may_ask(self, user: User) -> bool:
        """Called within `_alone`."""
        asking = (turn for turn in self._under_way.values() if turn.may_ask and not turn.kept)
        return self.asking.due(user) and all(turn.about.user.id != user.id for turn in asking)

    def again(
        self,
        user: User,
        conversation_id: str,
        *,
        n: int = 1,
        arm: str = "auto",
        seed: int | None = None,
        max_tokens: int | None = None,
    ) -> Turn:
        """Another reply to the last message, shown instead of the last one, which stays a candidate."""
        conversation = self._store.chats.conversation(user.id, conversation_id)

        def keep(replies: Sequence[Reply], asked: bool) -> None:
            with self._store.database.transaction():
                self._store.chats.add_replies(replies)
                self._store.chats.show_instead(conversation_id, replies[0])

        with self._alone(conversation_id):
            messages = self._store.chats.messages(conversation_id)
            if not messages:
                raise Conflict("There is nothing to answer again: the conversation is empty.")
            prompt = _prompt(conversation, messages[:-2], messages[-2].content)
            request = ChatRequest(prompt, arm, n=n, max_tokens=max_tokens, seed=seed)
            return self._begin(user, conversation, request, keep)

    def candidates(self, user: User, conversation_id: str) -> Sequence[Reply]:
        """All replies to the last message, oldest first, edited ones too: to compare, and to go back to."""
        messages = self.history(user, conversation_id)
        shown = messages[-1].reply_id if messages else None
        if shown is None:
            return []
        group = self._store.chats.replies(user.id, [shown])[0].group_id
        return self._store.chats.replies_to(user.id, conversation_id, group)

    def show(self, user: User, conversation_id: str, reply_id: str) -> None:
        """Let the last turn show another of its candidates. Raises NotFound when it is none."""
        for reply in self.candidates(user, conversation_id):
            if reply.id == reply_id:
                self._store.chats.show_instead(conversation_id, reply)
                return
        raise NotFound(f"{reply_id} is no reply to the last message of this conversation.", param="reply_id")

    def settle(self, seconds: float) -> None:
        """Keep what is being written once the engine leaves off, whoever reads it; waits at most so many seconds."""
        until = monotonic() + seconds
        with self._guard:
            turns = list(self._under_way.values())
        for turn in turns:
            if all(part.writing.wait(max(until - monotonic(), 0.0)) for part in turn.parts):
                _settle(turn)

    @contextmanager
    def _alone(self, conversation_id: str) -> Iterator[None]:
        """Within the block nobody else begins a turn. Raises Conflict while one is being written."""
        with self._guard:
            turn = self._under_way.get(conversation_id)
            if turn is not None:
                if not turn.done:
                    raise Conflict("A reply is still being written in this conversation; wait for it or stop it.")
                _settle(turn)
            self._under_way = {key: other for key, other in self._under_way.items() if not (other.kept or other.failed)}
            yield

    def _begin(self, user: User, conversation: Conversation, request: ChatRequest, keep: Keep) -> Turn:
        request = replace(request, learn=conversation.learn, conversation_id=conversation.id)
        turn = self._requests.start(user, request, keep)
        self._under_way[conversation.id] = turn
        return turn


def _settle(turn: Turn) -> None:
    """Keep a turn whose reader went away; one that failed, whatever of, has nothing to keep."""
    try:
        turn.replies()
    except MynahError:
        pass  # whoever reads it is told
    except Exception:  # a defect must not end the conversation
        log.exception("A turn met a defect; it is over")


def title_of(text: str) -> str:
    """A conversation's title: the start of its first message."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARACTERS else line[:TITLE_CHARACTERS].rsplit(" ", 1)[0] + "…"


def _prompt(conversation: Conversation, messages: Sequence[Message], said: str) -> list[ChatMessage]:
    """The newest messages that a prompt has room for with the conversation's system prompt, ending with what was said
    now; they begin with one of the person's."""
    system: list[ChatMessage] = []
    if conversation.system.strip():
        system = [{"role": "system", "content": conversation.system}]
    room = MAX_CONVERSATION - len(conversation.system) - len(said)
    sizes = accumulate(len(message.content) for message in reversed(messages[-NEWEST:]))
    fitting = sum(size <= room for size in sizes)
    newest = list(dropwhile(lambda message: message.role != "user", messages[len(messages) - fitting :]))
    turns: list[ChatMessage] = [{"role": message.role, "content": message.content} for message in newest]
    return [*system, *turns, {"role": "user", "content": said}]


def _check_system(system: str) -> None:
    if system.strip():
        check_messages([{"role": "system", "content": system}, {"role": "user", "content": "?"}])
