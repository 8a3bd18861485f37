"""Chat: from a request to replies that are kept, and the conversations of the browser.

    turn = chat.start(user, ChatRequest(messages))     # all that is wrong with a request is said here
    for choice, text in turn.pieces(): ...             # or turn.replies(), which waits

The version in use is read once a request, so a reply is never half old and half new, and a version that was promoted
meanwhile is picked up by the next. Left out on purpose: HTTP (api/) and pixels (ui/); both only call this.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

from jinja2 import TemplateError

from adapters.decoding import Sampling
from adapters.rendering import DEFAULT_SYSTEM, ChatMessage
from assistant.arms import ADAPTED, RERANKED, check_arm, context_system, draft_count, rival, served_arm
from assistant.engine import Ask, Engine
from assistant.learning import Learning
from assistant.messages import check_messages, check_text
from assistant.streaming import check_stops
from assistant.turn import About, Judge, Keep, Part, Turn
from feedback.errors import Conflict, InvalidInput, MynahError, NotFound
from feedback.store import Store
from feedback.types import AdapterVersion, ArmName, Conversation, Message, Reply, User

MAX_CHOICES = 4
MAX_TOKENS = 2048  # a reply
MAX_TITLE, TITLE_CHARACTERS = 200, 48
NEWEST = 200  # messages of a conversation that are looked at; far more than the context holds


@dataclass(frozen=True)
class ChatRequest:
    """What is asked for. version: the active one, a number, or None for the base; seed: None draws one."""

    messages: object
    arm: str = "auto"
    version: int | Literal["active"] | None = "active"
    n: int = 1
    max_tokens: int | None = None
    temperature: float = 0.8
    top_p: float = 1.0
    seed: int | None = None
    stop: object = ()
    learn: bool = True
    conversation_id: str | None = None


class Chat:
    """Everybody's requests and conversations."""

    def __init__(self, store: Store, engine: Engine, learning: Learning, *, max_tokens: int = 256) -> None:
        """max_tokens: of a reply, when a request does not say."""
        self._store, self._engine, self._learning = store, engine, learning
        self._max_tokens = max_tokens
        self._under_way: dict[str, Turn] = {}  # by conversation
        self._guard = threading.Lock()

    # ---- requests -------------------------------------------------------------------------------------------------

    def start(self, user: User, request: ChatRequest) -> Turn:
        """Begin to answer. Raises InvalidInput, NotFound (a version), Conflict and Busy."""
        return self._start(user, request, self._store.chats.add_replies)

    def served(self, user: User) -> tuple[ArmName, int | None]:
        """The arm that `auto` serves now, and its version."""
        version = self._store.versions.active(user.id, self._engine.base_id)
        arm = self._served(user, version)
        return arm, version.number if version and arm in ADAPTED else None

    def _start(self, user: User, request: ChatRequest, keep: Keep) -> Turn:
        messages = check_messages(request.messages)
        wanted = check_arm(request.arm)
        _check_numbers(request)
        if request.conversation_id is not None:
            self._store.chats.conversation(user.id, request.conversation_id)
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        sampling = Sampling(request.temperature, request.top_p, request.max_tokens or self._max_tokens, seed)
        version = self._version(user, request.version, wanted)
        parts = []
        try:
            for place, (arm, count) in enumerate(self._arms(user, request, wanted, version)):
                ask = Ask(
                    self._told(user, messages) if arm == "context" else messages,
                    version if arm in ADAPTED else None,
                    self._copies(arm, count, request),
                    replace(sampling, seed=(seed + place * 7919) % 2**63),
                    check_stops(request.stop),
                    user.id,
                    arm not in RERANKED,
                )
                number = version.number if version and arm in ADAPTED else None
                parts.append(Part(arm, number, count, self._engine.write(ask)))
        except Exception as error:
            for part in parts:
                part.writing.stop()
            if isinstance(error, TemplateError):
                raise InvalidInput(f"The base model's chat template refuses these turns: {error}.") from error
            raise
        engine = self._engine
        judge = Judge(self._learning.head(user.id), engine.population, engine.safety, engine.latents.subject_floor)
        about = About(user, messages, engine.base_id, request.conversation_id, request.learn)
        return Turn(about, parts, judge, keep, shuffle=seed)

    def _version(
        self, user: User, wanted: int | Literal["active"] | None, arm: ArmName | None
    ) -> AdapterVersion | None:
        """The adapter a request may use. Raises InvalidInput for a version and an arm that contradict each other."""
        if wanted == "active":
            active = self._store.versions.active(user.id, self._engine.base_id)
            if active is None and arm in ADAPTED:
                raise Conflict(f"The arm {arm} needs an active version, and you have none yet; update first.")
            return active
        if wanted is None:
            if arm in ADAPTED:
                raise InvalidInput(
                    f"The model is the base, but the arm {arm} needs a version; leave one out.", param="arm"
                )
            return None
        if arm is not None and arm not in ADAPTED:
            raise InvalidInput(
                f"The model names v{wanted}, but the arm {arm} uses no version; leave one out.", param="arm"
            )
        version = self._store.versions.version(user.id, wanted)
        if version.status == "rejected":
            raise Conflict(f"v{wanted} did not pass the gate and is never served.")
        if version.base_id != self._engine.base_id:
            raise Conflict(f"v{wanted} belongs to the base {version.base_id}; now serving {self._engine.base_id}.")
        return version

    def _arms(
        self, user: User, request: ChatRequest, wanted: ArmName | None, version: AdapterVersion | None
    ) -> list[tuple[ArmName, int]]:
        """(arm, replies) that take part. With `auto`, choices to compare also come from the next arm down."""
        if wanted is not None:
            return [(wanted, request.n)]
        if request.version is None:
            return [("base", request.n)]
        learned = self._learning.has_learned(user)
        if request.version != "active":
            return [("adapter+rerank" if learned else "adapter", request.n)]
        served = self._served(user, version)
        other = rival(served, learned, version is not None) if request.n > 1 else None
        return [(served, request.n)] if other is None else [(served, request.n - 1), (other, 1)]

    def _served(self, user: User, version: AdapterVersion | None) -> ArmName:
        record = self._learning.record(user, version.number if version else None)
        return served_arm(self._learning.has_learned(user), version is not None, record)

    def _copies(self, arm: ArmName, count: int, request: ChatRequest) -> int:
        if arm not in RERANKED:
            return count
        drafts = draft_count(self._engine.busy > 0, request.seed is not None, request.temperature == 0)
        return max(drafts, count)

    def _told(self, user: User, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The conversation with what is known of the person's taste in its system prompt."""
        system, rest = DEFAULT_SYSTEM, list(messages)
        if rest[0]["role"] == "system":
            system = rest.pop(0)["content"]
        told = context_system(system, self._learning.profile(user), self._engine.token_count)
        return [{"role": "system", "content": told}, *rest]

    # ---- conversations --------------------------------------------------------------------------------------------

    def open(self, user: User, system: str = "", learn: bool = True) -> Conversation:
        """Begin a conversation; it gets its title from the first message."""
        if system.strip():
            check_messages([{"role": "system", "content": system}, {"role": "user", "content": "?"}])
        return self._store.chats.start(user.id, "", system=system, learn=learn)

    def list(self, user: User) -> Sequence[Conversation]:
        """The person's conversations, the newest activity first."""
        return self._store.chats.conversations(user.id)

    def rename(self, user: User, conversation_id: str, title: object) -> None:
        """Give a conversation another title."""
        self._store.chats.rename(
            user.id, conversation_id, check_text(title, "The title", "title", limit=MAX_TITLE).strip()
        )

    def remove(self, user: User, conversation_id: str) -> None:
        """Delete a conversation, ending what is being written in it."""
        self._store.chats.conversation(user.id, conversation_id)
        if (turn := self._under_way.get(conversation_id)) is not None:
            turn.stop()
            _settle(turn)
        self._store.chats.remove(user.id, conversation_id)

    def history(self, user: User, conversation_id: str) -> Sequence[Message]:
        """All turns that are finished, in order."""
        self._store.chats.conversation(user.id, conversation_id)
        return self._store.chats.messages(conversation_id)

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
    ) -> Turn:
        """Say something. The turn is in the history once it is finished, showing the first choice."""
        conversation = self._store.chats.conversation(user.id, conversation_id)
        said = check_text(text, "The message", "text")

        def keep(replies: Sequence[Reply]) -> None:
            with self._store.database.transaction():
                self._store.chats.add_replies(replies)
                self._store.chats.add_turn(conversation_id, said, replies[0])
                if not conversation.title:
                    self._store.chats.rename(user.id, conversation_id, title_of(said))

        with self._alone(conversation_id):
            prompt = _prompt(conversation, self._store.chats.messages(conversation_id), said)
            request = ChatRequest(prompt, arm, n=n, max_tokens=max_tokens, seed=seed)
            return self._begin(user, conversation, request, keep)

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

        def keep(replies: Sequence[Reply]) -> None:
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

    @contextmanager
    def _alone(self, conversation_id: str) -> Iterator[None]:
        """Within the block nobody else begins a turn. Raises Conflict while one is being written."""
        with self._guard:
            turn = self._under_way.get(conversation_id)
            if turn is not None:
                if not turn.done:
                    raise Conflict("A reply is still being written in this conversation; wait for it or stop it.")
                _settle(turn)
            yield

    def _begin(self, user: User, conversation: Conversation, request: ChatRequest, keep: Keep) -> Turn:
        request = replace(request, learn=conversation.learn, conversation_id=conversation.id)
        turn = self._start(user, request, keep)
        self._under_way = {key: other for key, other in self._under_way.items() if not other.kept}
        self._under_way[conversation.id] = turn
        return turn


def _settle(turn: Turn) -> None:
    """Keep a turn whose reader went away; one that failed has nothing to keep."""
    with suppress(MynahError):
        turn.replies()


def title_of(text: str) -> str:
    """A conversation's title: the start of its first message."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARACTERS else line[:TITLE_CHARACTERS].rsplit(" ", 1)[0] + "…"


def _prompt(conversation: Conversation, messages: Sequence[Message], said: str) -> list[ChatMessage]:
    """The newest messages with the conversation's system prompt, ending with what was said now."""
    system: list[ChatMessage] = []
    if conversation.system.strip():
        system = [{"role": "system", "content": conversation.system}]
    turns: list[ChatMessage] = [{"role": m.role, "content": m.content} for m in messages[-NEWEST:]]
    return [*system, *turns, {"role": "user", "content": said}]


def _check_numbers(request: ChatRequest) -> None:
    """What Sampling does not check itself."""
    if isinstance(request.n, bool) or not isinstance(request.n, int) or not 1 <= request.n <= MAX_CHOICES:
        raise InvalidInput(f"n is {request.n}; it can be 1 to {MAX_CHOICES}.", param="n")
    if request.max_tokens is not None and not 1 <= request.max_tokens <= MAX_TOKENS:
        raise InvalidInput(f"max_tokens is {request.max_tokens}; it can be 1 to {MAX_TOKENS}.", param="max_tokens")
    if request.seed is not None and not 0 <= request.seed < 2**63:
        raise InvalidInput(f"seed is {request.seed}; it can be 0 to 2**63 - 1.", param="seed")
