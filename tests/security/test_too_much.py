"""Whatever there is too much of, the answer is 429 and says when to come again; clicks are taken all the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from assistant.accounts import FAILURES
from assistant.attempts import Attempts
from assistant.joining import PER_ADDRESS
from tests.assistant.serving import teach
from tests.security.test_sessions import browser, typed
from tests.security.world import Somebody, World

CHAT = {"model": "mynah", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
PREFERENCE = {"messages": CHAT["messages"], "replies": ["Good day!", "Hm."], "ranking": [[0], [1]]}
SCORED = {"messages": CHAT["messages"], "replies": ["Good day!"]}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "a chat": ("/v1/chat/completions", CHAT),
    "a stream": ("/v1/chat/completions", CHAT | {"stream": True}),
    "several": ("/v1/chat/completions", CHAT | {"n": 4}),
    "an import": ("/v1/me/preferences", PREFERENCE),
    "scores": ("/v1/me/score", SCORED),
    "an edit": ("/v1/feedback", {"reply_id": "{reply}", "edit": "As I would have it."}),
    "an update": ("/v1/me/updates", {}),
}


def one_a_minute(world: World, person: Somebody, patch: pytest.MonkeyPatch) -> None:
    once = Attempts(time.monotonic, 1, "You asked once", window=60)
    patch.setattr(world.mynah.limits, "_asked", once)
    assert person.user is not None
    once.begin(person.user.id)


def no_room(world: World, person: Somebody, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(world.mynah.limits, "_room", 0)


def full_line(world: World, person: Somebody, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(world.mynah.engine._turns, "max_waiting", 0)


def one_a_day(world: World, person: Somebody, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(world.mynah.limits, "_updates", 1)
    assert person.user is not None
    update = world.mynah.store.versions.live_updates(person.user.id)[0]
    world.mynah.store.versions.set_state(update.id, "running")
    world.mynah.store.versions.set_state(update.id, "failed", "It was only a test.")


TOO_MUCH: dict[Callable[[World, Somebody, pytest.MonkeyPatch], None], tuple[str, ...]] = {
    one_a_minute: ("a chat", "a stream", "several"),
    no_room: ("a chat", "a stream", "several", "an import"),
    full_line: ("a chat", "a stream", "several", "an import", "scores", "an edit"),
    one_a_day: ("an update",),
}


def refused(answer: httpx.Response, most: int) -> None:
    """429, with the seconds to wait in the header and words for people."""
    assert answer.status_code == 429, answer.text
    assert 1 <= int(answer.headers["Retry-After"]) <= most


@pytest.mark.parametrize(
    ("limit", "what"), [(limit, what) for limit, names in TOO_MUCH.items() for what in names],
    ids=lambda each: getattr(each, "__name__", each),
)  # fmt: skip
def test_of_the_model_the_disk_and_the_trainer(
    world: World, monkeypatch: pytest.MonkeyPatch, limit: Callable[..., None], what: str
) -> None:
    person = world.somebody("other")
    assert person.user is not None
    teach(world.mynah, person.user, 17)
    things = world.things(person.user, words=("weather",))
    path, body = ASKED[what]
    with monkeypatch.context() as patch:
        limit(world, person, patch)
        answer = person.program.post(path, json=things.into(body))
        refused(answer, 86_400)
        assert set(answer.json()["error"]) >= {"message", "type", "code", "param"}
        click = {"reply_id": things.rival, "thumb": 1}
        assert person.program.post("/v1/feedback", json=click).status_code == 201, "a click is never refused"
    if what == "an update":
        return
    assert person.program.post(path, json=things.into(body)).status_code < 300, "there is room again"


def test_of_passwords_and_of_new_accounts(world: World) -> None:
    here = browser(world, "198.51.100.77")
    for _ in range(FAILURES):
        assert here.post("/sign-in", **typed("Nobody here", "wrong")).status_code == 401
    refused(here.post("/sign-in", **typed("Nobody here", "wrong")), 15 * 60 + 1)
    new = {"name": "Somebody new", "password": "a long enough password", "invitation": "x"}
    for _ in range(PER_ADDRESS):
        assert here.post("/sign-up", data=new).status_code == 404
    refused(here.post("/sign-up", data=new), 15 * 60 + 1)
