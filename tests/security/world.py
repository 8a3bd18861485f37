"""People and their things, made in the store in milliseconds, so that every try can have fresh ones."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute

from adapters.policy import Policy
from adapters.rendering import ChatMessage
from assistant.accounts import name_key
from assistant.engine import Draft
from assistant.mynah import Mynah
from assistant.ui.session import COOKIE
from feedback.types import User
from tests.assistant.serving import teach
from tests.assistant.test_api import give_version

ORIGIN = "http://testserver"
Who = Literal["anonymous", "other", "admin", "disabled"]
STRANGERS: tuple[Who, ...] = ("anonymous", "other", "admin", "disabled")
SECRET = ("quagga", "marmalade")  # both words stand in all that is Ada's; a search for one must not give the other
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Somebody:
    """A person at a browser and with a program; anonymous without a user."""

    user: User | None
    browser: TestClient
    program: TestClient


@dataclass(frozen=True)
class Things:
    """What somebody owns, by the names that the tables of tries use."""

    name: str
    conversation: str
    message: str
    reply: str
    rival: str
    act: str
    key: str
    update: str
    invitation: str = ""
    victim: str = ""
    own: str = ""
    own_reply: str = ""
    removed: str = ""
    owner: str = ""

    def into(self, value: Any) -> Any:
        """A try with the ids in place of {reply}, {key}, …"""
        text = json.dumps(value)
        return json.loads(re.sub(r"\{(\w+)\}", lambda found: getattr(self, found[1]), text))


class World:
    """A server and who is there."""

    def __init__(self, mynah: Mynah, app: FastAPI, policy: Policy) -> None:
        self.mynah, self.app, self.policy = mynah, app, policy
        self._read: dict[str, list[Draft]] = {}
        self.boss = self.somebody("admin", "Boss")
        self.ada = self.somebody("other", "Ada")
        teach(mynah, self.owner, 17)  # enough for an update; so many that only named traits are read
        give_version(mynah, self.owner, policy)

    @property
    def owner(self) -> User:
        """Ada."""
        assert self.ada.user is not None
        return self.ada.user

    def somebody(self, who: Who, name: str = "") -> Somebody:
        """A new person; a disabled one has the key and the session from before."""
        mynah = self.mynah
        if who == "anonymous":
            return Somebody(None, self._client(), self._client())
        name = name or f"{who.capitalize()} {next(_numbers)}"
        user = mynah.store.people.add(name, name_key(name), "no password opens this", admin=who == "admin")
        key, token = mynah.accounts.create_key(user)[1], mynah.accounts.open_session(user)
        if who == "disabled":
            mynah.admins.disable("a test", user)
        return Somebody(user, self._client(cookies={COOKIE: token}), self._client(bearer=key))

    def _client(self, *, bearer: str = "", cookies: dict[str, str] | None = None) -> TestClient:
        headers = {"Origin": ORIGIN} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        return TestClient(self.app, base_url=ORIGIN, headers=headers, cookies=cookies, follow_redirects=False)

    @cached_property
    def shown(self) -> Things:
        """Some of Ada's things, for tries that change none of them."""
        return self.things(self.owner)

    # ---- things ---------------------------------------------------------------------------------------------------

    def things(self, user: User, *, words: Sequence[str] = SECRET) -> Things:
        """Fresh things of a person, with the words in each of them."""
        mynah, said = self.mynah, " ".join(words)
        conversation, message, reply, rival = self.chat(user, said)
        act = mynah.learning.thumb(user, reply, 1, comment=f"I like the {said}.").feedback_id
        live = mynah.store.versions.live_updates(user.id)
        update = live[0] if live else mynah.updates.request(user)
        key = mynah.accounts.create_key(user)[0].id
        return Things(user.name, conversation, message, reply, rival, act, key, update.id)

    def chat(self, user: User, said: str) -> tuple[str, str, str, str]:
        """A chat with one question and two replies to it: ids of the chat, the question and the replies."""
        mynah = self.mynah
        question = f"What about the {said}?"
        prompt: list[ChatMessage] = [{"role": "user", "content": question}]
        if said not in self._read:  # by the model, once
            self._read[said] = mynah.engine.read(prompt, [f"The {said} is fine.", f"No {said} for me."])
        conversation = mynah.chat.open(user, system=f"Speak of {said}.")
        base = mynah.engine.base_id
        replies = [
            draft.as_reply(user.id, prompt, base, source="chat", conversation_id=conversation.id, arm="base")
            for draft in self._read[said]
        ]
        mynah.store.chats.add_replies(replies)
        mynah.store.chats.add_turn(conversation.id, question, replies[0])
        mynah.chat.rename(user, conversation.id, f"About {said}")
        first = mynah.chat.history(user, conversation.id)[0]
        return conversation.id, first.id, replies[0].id, replies[1].id

    def state(self, user: User) -> str:
        """All that is held about a person, to see whether anything changed. The trash empties itself meanwhile."""
        mynah = self.mynah
        records = mynah._records(user)
        del records["person"]["exported_at"]
        gone = {talk["id"] for talk in records["conversations"] if talk["deleted_at"]}
        records["conversations"] = [talk for talk in records["conversations"] if talk["id"] not in gone]
        records["replies"] = [reply for reply in records["replies"] if reply["conversation_id"] not in gone]
        live = mynah.active(user)
        return json.dumps([records, live.name if live else "base"], sort_keys=True, default=str)


def routes_of(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[str]:
    """Every "METHOD /path" of an application, included routers and mounted applications too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_of(inner.routes, prefix + route.include_context.prefix)
        elif hasattr(route, "methods"):
            yield from (f"{method} {prefix}{route.path}" for method in route.methods or ("ANY",))
        elif isinstance(inside := getattr(route, "app", None), FastAPI):
            yield from routes_of(inside.routes, prefix + route.path)
        else:
            yield f"{type(route).__name__} {prefix}{getattr(route, 'path', '?')}"
