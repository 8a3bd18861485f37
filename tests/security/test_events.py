"""Every Gradio event of the running application × who asks. Events are called by number, as a browser's console could.

The table says for each event what can be tried with another's ids. An event that is not in it fails
`test_every_event_has_an_entry`, so a new one comes with its entry.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import httpx
import pytest

from tests.assistant.serving import wait_for
from tests.security.world import SECRET, Somebody, Things, World

REFUSED = "That did not work"  # the notice that an error becomes
ABOUT = [False, ""]  # private, and how to answer


@dataclass(frozen=True)
class Try:
    """One call. data: the inputs; event: what the press carries; query: of the page's address.

    hers: it names something of Ada's, so that nobody else may do it; otherwise it is about whoever asks.
    """

    data: tuple[Any, ...] = ()
    event: dict[str, str] | None = None
    query: str = ""
    hers: bool = True


def press(*data: Any, hers: bool = True, **event: str) -> Try:
    """A press with what it carries."""
    return Try(data, event, hers=hers)


def plain(*data: Any, hers: bool = True) -> Try:
    """An event that carries nothing but its inputs."""
    return Try(data, hers=hers)


WRITE = ("Hello!", 1, *ABOUT)  # what is sent beside the chat's id

# For people: with their own things it works, with Ada's it does not.
PEOPLE: dict[str, list[Try]] = {
    "ChatPage.open": [
        Try(query="?c={conversation}&m={message}", hers=False),  # another's address opens a new chat
        Try(query="?c={own}&m={message}", hers=False),
    ],
    "ChatPage.ask": [plain("{conversation}", *WRITE)],
    "ChatPage.write_more": [
        press("{conversation}", *WRITE, act="go-on"),
        press("{conversation}", *WRITE, act="again"),
        press("{conversation}", *WRITE, act="revise", message="{message}", text="Something else"),
        press("{own}", *WRITE, act="revise", message="{message}", text="Something else"),
    ],
    "ChatPage.look": [plain("{conversation}", "")],
    "ChatPage.choose_chat": [
        press("", hers=False, act="new"),
        press("", act="open", id="{conversation}"),
        press("", act="open", id="{conversation}", message="{message}"),
        press("{own}", act="open", id="{own}", message="{message}"),
    ],
    "ChatPage.tidy": [
        press("{own}", hers=False, act="all"),
        press("{own}", act="rename", id="{conversation}", title="Mine now"),
        press("{own}", act="archive", id="{conversation}"),
        press("{own}", act="unarchive", id="{conversation}"),
        press("{own}", act="remove", id="{conversation}"),
        press("", act="undo", id="{removed}"),
    ],
    "ChatPage.reopen": [plain("{conversation}")],
    "ChatPage.act": [
        press("{conversation}", act="compare"),
        press("{conversation}", act="branch", message="{message}"),
        press("{own}", act="branch", message="{message}"),
        press("{conversation}", act="show", reply="{rival}"),
        press("{own}", act="show", reply="{rival}"),
        press("{conversation}", act="edit", reply="{reply}", text="Mine now"),
        press("{own}", act="edit", reply="{reply}", text="Mine now"),
        press("{own}", act="thumb", reply="{reply}", thumb="-1"),
        press("{own}", act="reason", reply="{reply}", reason="Too long"),
        press("{own}", act="comment", reply="{reply}", comment="Mine now"),
    ],
    "ChatPage.decide": [
        press("{conversation}", act="skip"),
        press("{conversation}", act="vote", order="{reply},{rival}", pick="right"),
        press("{own}", act="vote", order="{reply},{rival}", pick="left"),
        press("{own}", act="vote", order="{reply},{rival}", pick="neither"),
        press("{own}", act="rank", order="{own_reply},{rival}", **{"{own_reply}": "1", "{rival}": "2"}),
    ],
    "ChatPage.stop_writing": [plain("{conversation}", hers=False)],
    "ChatPage.set_private": [plain("{conversation}", True)],
    "ChatPage.set_system": [plain("{conversation}", "Speak like a pirate.")],
    "ChatPage.set_asks": [plain(True, hers=False)],
    "MyAssistantPage.open": [plain(hers=False)],
    "MyAssistantPage.look": [plain("", "", hers=False)],
    "MyAssistantPage.ask": [
        press(hers=False, act="begin"),
        press(hers=False, act="vote", question="e01", left="0", right="1", pick="left"),
        press(hers=False, act="pass", question="e02"),
        press(hers=False, act="enough"),
    ],
    "MyAssistantPage.correct": [
        press(act="retract", name="emoji", id="{act}"),
        press(hers=False, act="correct", name="emoji", value="0.5"),
    ],
    "MyAssistantPage.train": [press(act="cancel", id="{update}")],
    "MyAssistantPage.act_on_version": [
        press(act="use", version="v1"),
        press(act="example", version="v1"),
    ],
    "MyAssistantPage.try_two": [press(prompt="Hello!", left="base", right="v1")],
    "MyAssistantPage.stop_preview": [press(hers=False, act="stop")],
    "MyAssistantPage.watch": [plain(hers=False)],
    "MyAssistantPage.manage": [
        press(act="revoke", id="{key}"),
        press(hers=False, act="key"),
        press(hers=False, act="reset"),
    ],
}

# For admins; to other people there is nothing.
ADMIN: dict[str, list[Try]] = {
    "AdminPage.open": [plain()],
    "AdminPage.look": [plain("")],
    "AdminPage.act": [
        press(act="invite", note="for a test"),
        press(act="add", name="Made {victim}", password="a long enough password"),
        press(act="password", name="{victim}", password="another long password"),
        press(act="disable", name="{victim}"),
        press(act="enable", name="{victim}"),
        press(act="remove", name="{victim}"),
    ],
    "AdminPage.set": [press(name="labels_per_update", value="31")],
    "AdminPage.cancel": [press(user="{owner}", id="{update}")],
    "AdminPage.older": [press(entries="50")],
}


def events_of(world: World) -> dict[str, int]:
    """The number of one event for each handler that runs on the server."""
    blocks = next(app.blocks for route in world.app.routes if hasattr(app := getattr(route, "app", None), "blocks"))
    assert isinstance(blocks, gr.Blocks)
    return {block.fn.__qualname__: number for number, block in blocks.fns.items() if block.fn is not None}


def test_every_event_has_an_entry(world: World) -> None:
    assert sorted(events_of(world)) == sorted([*PEOPLE, *ADMIN]), "say in a table here what may be done with it"


def tries(table: dict[str, list[Try]]) -> list[Any]:
    """A table's tries as parameters."""
    return [
        pytest.param(name, each, id=f"{name} {number}")
        for name, each_of in table.items()
        for number, each in enumerate(each_of)
    ]


def call(world: World, person: Somebody, name: str, each: Try, things: Things) -> httpx.Response:
    """Call an event as a page does."""
    body = {
        "fn_index": events_of(world)[name],
        "data": things.into(list(each.data)),
        "event_data": things.into(each.event),
        "session_hash": "a-test",
        "trigger_id": None,
    }
    return person.browser.post(f"/gradio_api/run/predict{things.into(each.query)}", json=body)


def refused(answer: httpx.Response) -> bool:
    """Whether the page was told an error and nothing else."""
    assert answer.status_code == 200, answer.text[:300]
    *shown, told = answer.json()["data"]
    is_refused = isinstance(told, str) and REFUSED in told
    assert not is_refused or not any(isinstance(value, str) and SECRET[1] in value for value in shown)
    return is_refused


def hers(world: World) -> Things:
    """Fresh things of Ada, one chat of them deleted and still to be brought back."""
    things, removed = world.things(world.owner), world.chat(world.owner, " ".join(SECRET))[0]
    world.mynah.chat.remove(world.owner, removed)
    return replace(things, removed=removed, owner=world.owner.id)


def with_own(world: World, things: Things, person: Somebody) -> Things:
    """The same with a chat of the person who asks."""
    assert person.user is not None
    own, _, own_reply, _ = world.chat(person.user, "weather")
    return replace(things, own=own, own_reply=own_reply)


@pytest.mark.parametrize(("name", "each"), tries(PEOPLE))
def test_of_people(world: World, name: str, each: Try) -> None:
    things = hers(world)
    before = world.state(world.owner)
    for who in ("anonymous", "disabled"):
        assert call(world, world.somebody(who), name, each, things).status_code == 401
    for who in ("other", "admin"):
        person = world.somebody(who)
        answer = call(world, person, name, each, with_own(world, things, person))
        assert SECRET[1] not in answer.text, who
        assert refused(answer) == each.hers, (who, answer.text[-300:])
    assert world.state(world.owner) == before
    if each.hers and "own" not in json.dumps([each.data, each.event]):
        assert not refused(answer := call(world, world.ada, name, each, things)), answer.text[-300:]
        settle(world, things)


def settle(world: World, things: Things) -> None:
    """Wait until what Ada's own try began is over."""
    turn = world.mynah.chat._under_way.get(things.conversation)
    wait_for(lambda: turn is None or turn.kept)
    preview = world.mynah.previews.of(world.owner)
    wait_for(lambda: preview is None or preview.done)


@pytest.mark.parametrize(("name", "each"), tries(ADMIN))
def test_of_admins(world: World, name: str, each: Try) -> None:
    things = hers(world)
    for who in ("anonymous", "disabled", "other", "admin"):
        victim = world.somebody("other").user
        assert victim is not None
        these = replace(things, victim=victim.name)
        person = world.somebody(who)
        before, people = (world.state(victim), world.state(world.owner)), len(world.mynah.accounts.people())
        answer = call(world, person, name, each, these)
        if who == "admin":
            assert SECRET[1] not in answer.text, "admins are shown nobody's words"
            assert not refused(answer), answer.text[-300:]
            continue
        assert refused(answer) and "nothing here" in answer.text if who == "other" else answer.status_code == 401
        assert (world.state(victim), world.state(world.owner)) == before
        assert len(world.mynah.accounts.people()) == people, "nobody was added"


def test_a_role_is_looked_up_at_every_call(world: World) -> None:
    """Somebody disabled between two calls is not served the second one."""
    person, things = world.somebody("other"), world.shown
    each = Try(hers=False)
    assert call(world, person, "MyAssistantPage.open", each, things).status_code == 200
    assert person.user is not None
    world.mynah.admins.disable("a test", person.user)
    assert call(world, person, "MyAssistantPage.open", each, things).status_code == 401
