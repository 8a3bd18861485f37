"""Every route of the running application × who asks: who may, and that nobody reaches what is another's.

The tables say what is right. A route that is in none of them fails `test_every_route_has_an_entry`, so a new one comes
with its entry.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from assistant.api.app import METHODS
from assistant.api.middleware import PRIVATE
from tests.security.world import ORIGIN, SECRET, STRANGERS, Somebody, Things, Who, World, routes_of

HELLO = [{"role": "user", "content": "Hello!"}]
PASSWORD = "a long enough password"


@dataclass(frozen=True)
class Try:
    """One request to a route. path: with an owner's or a victim's things in braces; status: when it is answered."""

    path: str = ""
    body: dict[str, Any] | None = None
    status: tuple[int, ...] = (200,)
    form: bool = False


def own(path: str = "", body: dict[str, Any] | None = None, *status: int) -> Try:
    """A request in few words."""
    return Try(path, body, status or (200,))


# For everybody, signed in or not.
PUBLIC: dict[str, list[Try]] = {
    "GET /healthz": [own()],
    "HEAD /healthz": [own()],
    "GET /sign-in": [own("", None, 200, 303)],
    "POST /sign-in": [Try(body={"name": "Nobody", "password": "not this one"}, status=(401,), form=True)],
    "GET /sign-up": [own("", None, 404, 303)],
    "POST /sign-up": [Try(body={"name": "Eve", "password": PASSWORD}, status=(404,), form=True)],
    "POST /sign-out": [own("", None, 303)],
    "GET /manifest.json": [own("", None, 200)],
    "GET /worker.js": [own("", None, 200)],
    "GET /icons/{name}.png": [own("/icons/icon-192.png", None, 200), own("/icons/../secrets.png", None, 404)],
    "GET /static/{path:path}": [own("/static/img/logo.svg", None, 200, 404)],
    "GET /assets/{path:path}": [own("/assets/nothing.js", None, 404)],
    "GET /svelte/{path:path}": [own("/svelte/nothing.js", None, 404)],
    "GET /favicon.ico": [own("", None, 200, 404)],
    "GET /theme.css": [own()],
    "GET /robots.txt": [own()],
}

# For people, about nothing but their own: without a person 401, and nothing of Ada's in anybody else's answer.
MINE: dict[str, list[Try]] = {
    "GET /v1/openapi.json": [own()],
    "HEAD /v1/openapi.json": [own()],
    "GET /v1/models": [own()],
    "POST /v1/me/preferences": [
        own("", {"messages": HELLO, "replies": ["Hi!", "Good day."], "ranking": [[0], [1]]}, 201)
    ],
    "POST /v1/me/score": [own("", {"messages": HELLO, "replies": ["Hi!"]})],
    "GET /v1/me": [own()],
    "DELETE /v1/me": [own("", None, 200)],
    "GET /v1/me/profile": [own()],
    "PUT /v1/me/profile": [own("", {"name": "emoji", "weight": 0.5})],
    "GET /v1/me/keys": [own()],
    "POST /v1/me/keys": [own("", None, 201)],
    "PUT /v1/me/password": [own("", {"old": "not this one", "new": PASSWORD}, 400)],
    "GET /v1/me/export": [own()],
    "POST /v1/me/reset": [own()],
    "POST /v1/me/updates": [own("", None, 422)],
    "GET /v1/me/updates": [own()],
    "GET /v1/me/versions": [own()],
    "GET /search": [own(f"/search?q={SECRET[0]}")],
    "GET /config": [own()],
    "GET /config/": [own()],
    "GET /gradio_api/app_id": [own()],
    "GET /gradio_api/app_id/": [own()],
    "GET /gradio_api/login_check": [own()],
    "GET /gradio_api/login_check/": [own()],
    "GET /gradio_api/startup-events": [own()],
    "GET /gradio_api/theme.css": [own()],
}

# They name one of Ada's things: hers to use, and for anybody else, admins too, it does not exist.
OBJECTS: dict[str, list[Try]] = {
    "GET /v1/models/{name:path}": [own("/v1/models/{name}@v1")],
    "POST /v1/chat/completions": [own("", {"model": "{name}@v1", "messages": HELLO, "max_tokens": 1})],
    "POST /v1/feedback": [
        own("", {"reply_id": "{reply}", "thumb": -1, "comment": "Mine now."}, 201),
        own("", {"ranking": [["{reply}"], ["{rival}"]]}, 201),
        own("", {"ranking": [["{rival}", "{reply}"]], "verdict": "neither"}, 201),
        own("", {"reply_id": "{rival}", "edit": "Mine now."}, 201),
    ],
    "DELETE /v1/feedback/{feedback_id}": [own("/v1/feedback/{act}")],
    "DELETE /v1/me/keys/{key_id}": [own("/v1/me/keys/{key}")],
    "GET /v1/me/updates/{update_id}": [own("/v1/me/updates/{update}")],
    "DELETE /v1/me/updates/{update_id}": [own("/v1/me/updates/{update}")],
    "GET /v1/me/versions/{name}": [own("/v1/me/versions/v1")],
    "POST /v1/me/versions/{name}/activate": [own("/v1/me/versions/v1/activate")],
    "GET /conversations/{conversation_id}.{ending}": [
        own("/conversations/{conversation}.md"),
        own("/conversations/{conversation}.json"),
    ],
}

# For admins; to other people they do not exist.
ADMIN: dict[str, list[Try]] = {
    "GET /metrics": [own()],
    "GET /v1/admin/users": [own()],
    "POST /v1/admin/users": [own("", {"name": "New {victim}", "password": PASSWORD}, 201)],
    "PATCH /v1/admin/users/{name}": [own("/v1/admin/users/{victim}", {"disabled": True})],
    "DELETE /v1/admin/users/{name}": [own("/v1/admin/users/{victim}")],
    "GET /v1/admin/users/{name}/versions": [own("/v1/admin/users/{name}/versions")],
    "GET /v1/admin/users/{name}/versions/{version}/export": [own("/v1/admin/users/{name}/versions/v1/export")],
    "POST /v1/admin/invitations": [own("", {"note": "for a test"}, 201)],
    "DELETE /v1/admin/invitations/{invitation_id}": [own("/v1/admin/invitations/{invitation}")],
    "GET /v1/admin/settings": [own()],
    "PUT /v1/admin/settings": [own("", {"name": "labels_per_update", "value": 30})],
    "GET /v1/admin/audit": [own()],
}

# Pages: without a person, the way to the sign-in page.
PAGES = {"GET /", "HEAD /", "GET /my-assistant", "GET /my-assistant/"}
ADMIN_PAGES = {"GET /admin", "GET /admin/"}

# Gradio's door for events is tried event by event in test_events.py; the heartbeat is a stream that never ends.
EVENTS = {"POST /gradio_api/run/{api_name}", "POST /gradio_api/run/{api_name}/"}
STREAMS = {"GET /gradio_api/heartbeat/{session_hash}"}

# Where the API is and nothing answers.
NOWHERE = {
    f"{method} {path}" for path in ("/v1", "/v1/{path:path}", "/healthz", "/metrics") for method in METHODS
} - {"GET /healthz", "HEAD /healthz", "GET /metrics"}  # fmt: skip

# What Gradio has beside these: files, uploads, proxies, its queue, run history and consoles. Nobody gets there.
SHUT = {
    "GET /openapi.json", "HEAD /openapi.json", "POST /login", "POST /login/", "GET /logout", "GET /pwa_icon",
    "GET /pwa_icon/{size}", "GET /monitoring", "GET /monitoring/summary", "GET /monitoring/{key}",
    "GET /gradio_api/deep_link", "GET /gradio_api/user", "GET /gradio_api/user/", "GET /gradio_api/token",
    "GET /gradio_api/token/", "GET /gradio_api/dev/reload", "GET /gradio_api/runs", "GET /gradio_api/runs/",
    "GET /gradio_api/info", "GET /gradio_api/info/", "GET /gradio_api/openapi.json",
    "GET /gradio_api/custom_component/{id}/{environment}/{type}/{file_name}", "GET /gradio_api/proxy={url_path:path}",
    "HEAD /gradio_api/proxy={url_path:path}", "GET /gradio_api/file={path_or_url:path}",
    "HEAD /gradio_api/file={path_or_url:path}", "POST /gradio_api/stream/{event_id}",
    "POST /gradio_api/stream/{event_id}/close",
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file", "GET /gradio_api/file/{path:path}",
    "POST /gradio_api/reset", "POST /gradio_api/reset/", "POST /gradio_api/api/{api_name}",
    "POST /gradio_api/api/{api_name}/", "POST /gradio_api/call/v2/{api_name}", "POST /gradio_api/call/v2/{api_name}/",
    "POST /gradio_api/call/{api_name}", "POST /gradio_api/call/{api_name}/", "POST /gradio_api/queue/join",
    "POST /gradio_api/cancel", "GET /gradio_api/call/{api_name}/{event_id}",
    "GET /gradio_api/call/v2/{api_name}/{event_id}", "GET /gradio_api/queue/data", "POST /gradio_api/component_server",
    "POST /gradio_api/component_server/", "GET /gradio_api/queue/status", "GET /gradio_api/upload_progress",
    "POST /gradio_api/upload", "POST /gradio_api/process_recording", "POST /gradio_api/vibe-edit",
    "POST /gradio_api/vibe-edit/", "POST /gradio_api/undo-vibe-edit", "POST /gradio_api/undo-vibe-edit/",
    "GET /gradio_api/vibe-code", "GET /gradio_api/vibe-code/", "POST /gradio_api/vibe-code",
    "POST /gradio_api/vibe-code/", "POST /gradio_api/vibe-starter-queries", "POST /gradio_api/vibe-starter-queries/",
}  # fmt: skip

TABLES = (PUBLIC, MINE, OBJECTS, ADMIN, PAGES, ADMIN_PAGES, EVENTS, STREAMS, NOWHERE, SHUT)


def test_every_route_has_an_entry(world: World) -> None:
    found = set(routes_of(world.app.routes))
    known = {route for table in TABLES for route in table}
    assert sum(len(table) for table in TABLES) == len(known), "one entry a route"
    assert sorted(found - known) == [], "new routes: say in a table here who may use them"
    assert sorted(known - found) == [], "entries for what is gone"
    documented = {f"{method.upper()} {path}" for path, way in world.app.openapi()["paths"].items() for method in way}
    assert documented <= {route.replace(":path}", "}") for route in found}, "what is listed here is all there is"


def rows(table: dict[str, list[Try]]) -> list[Any]:
    """A table's tries as parameters."""
    return [
        pytest.param(route, replace(each, path=each.path or route.partition(" ")[2]), id=f"{route} {number}")
        for route, tries in table.items()
        for number, each in enumerate(tries)
    ]


def ask(person: Somebody, route: str, each: Try, things: Things) -> httpx.Response:
    """Send a try: to /v1 and /metrics with the key, else from the browser."""
    path = things.into(each.path)
    client = person.program if path.startswith(("/v1", "/metrics")) else person.browser
    body = things.into(each.body)
    sent: dict[str, Any] = {} if body is None else {"data": body} if each.form else {"json": body}
    return client.request(route.partition(" ")[0], path, **sent)


def text_of(answer: httpx.Response) -> str:
    """All that an answer says, also what is packed in a zip."""
    if answer.headers.get("content-type") != "application/zip":
        return answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return "\n".join(archive.read(name).decode("utf-8", "replace") for name in archive.namelist())


def closed_to_nobody(who: Who, answer: httpx.Response) -> bool:
    """Whether somebody without a person behind them was told to sign in, and that was all."""
    if who in ("other", "admin"):
        return False
    assert answer.status_code == 401, (who, answer.status_code, answer.text[:200])
    return True


@pytest.mark.parametrize(("route", "each"), rows(PUBLIC))
def test_public(world: World, route: str, each: Try) -> None:
    for who in STRANGERS:
        answer = ask(world.somebody(who), route, each, world.shown)
        assert answer.status_code in each.status, (who, answer.text[:200])
        assert SECRET[1] not in answer.text


@pytest.mark.parametrize(("route", "each"), rows(MINE))
def test_of_ones_own(world: World, route: str, each: Try) -> None:
    before = world.state(world.owner)
    for who in STRANGERS:
        answer = ask(world.somebody(who), route, each, world.shown)
        assert SECRET[1] not in text_of(answer), who
        if not closed_to_nobody(who, answer):
            assert answer.status_code in each.status, (who, answer.text[:200])
    assert world.state(world.owner) == before


@pytest.mark.parametrize(("route", "each"), rows(OBJECTS))
def test_of_somebody_else(world: World, route: str, each: Try) -> None:
    things = world.things(world.owner)
    before = world.state(world.owner)
    nothing = Things("Nobody", *["c_0", "m_0", "r_0", "r_1", "f_0", "k_0", "up_0"])
    for who in STRANGERS:
        person = world.somebody(who)
        answer = ask(person, route, each, things)
        assert SECRET[1] not in text_of(answer), who
        if not closed_to_nobody(who, answer):
            missing = ask(person, route, each, nothing)
            assert answer.status_code == missing.status_code == 404, (who, answer.status_code, answer.text[:200])
            assert unnamed(answer.text, things) == unnamed(missing.text, nothing), "the two can be told apart"
    assert world.state(world.owner) == before
    mine = ask(world.ada, route, each, things)
    assert mine.status_code in each.status, f"the owner's own try must work: {mine.text[:200]}"


def unnamed(text: str, things: Things) -> str:
    """An answer without the ids it repeats."""
    for value in sorted(filter(None, vars(things).values()), key=len, reverse=True):
        text = text.replace(value, "…")
    return text


@pytest.mark.parametrize(("route", "each"), rows(ADMIN))
def test_of_admins(world: World, route: str, each: Try) -> None:
    for who in (*STRANGERS[:2], STRANGERS[3], STRANGERS[2]):
        victim = world.somebody("other")
        assert victim.user is not None and world.boss.user is not None
        invited = world.mynah.joining.invite(world.boss.user)[0].id
        things = replace(world.shown, victim=victim.user.name, invitation=invited)
        before = world.state(victim.user)
        answer = ask(world.somebody(who), route, each, things)
        assert SECRET[1] not in text_of(answer), "an admin's own routes show nobody's words"
        if who == "admin":
            assert answer.status_code in each.status, answer.text[:200]
        elif not closed_to_nobody(who, answer):
            assert answer.status_code == 404, (who, answer.status_code)
        if who != "admin":
            assert world.state(victim.user) == before and world.mynah.store.people.get(victim.user.id)
            assert any(open_.id == invited for open_ in world.mynah.store.server.invitations())


@pytest.mark.parametrize("route", sorted(PAGES | ADMIN_PAGES))
def test_pages(world: World, route: str) -> None:
    assert world.shown.conversation, "there is something that could be shown"
    for who in STRANGERS:
        method, _, path = route.partition(" ")
        answer = world.somebody(who).browser.request(method, path)
        assert SECRET[1] not in answer.text
        if who in ("anonymous", "disabled"):
            assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), who
        else:
            open_to = route not in ADMIN_PAGES or who == "admin"
            assert answer.status_code in ((200, 301) if open_to else (404,)), who
            assert answer.headers.get("location", ORIGIN + path).startswith((ORIGIN, "/"))


@pytest.mark.parametrize("route", sorted(SHUT | NOWHERE))
def test_shut(world: World, route: str) -> None:
    """Nothing for anybody; under /v1, without a key not even that is told."""
    method, _, pattern = route.partition(" ")
    path = pattern.replace("{path:path}", "nothing") if "/v1/" in pattern else filled(pattern)
    secret = (path + "/").startswith(PRIVATE)
    for who in STRANGERS:
        person = world.somebody(who)
        answer = (person.program if route in NOWHERE else person.browser).request(method, path)
        hidden = secret and who in ("anonymous", "disabled")
        assert answer.status_code == (401 if hidden else 404), (who, answer.text[:200])


def filled(pattern: str) -> str:
    """A path of Gradio's that names a file everybody's machine has."""
    for name in ("path", "path_or_url", "url_path"):
        pattern = pattern.replace(f"{{{name}:path}}", "/etc/passwd")
    while "{" in pattern:
        pattern = pattern[: pattern.index("{")] + "x1" + pattern[pattern.index("}") + 1 :]
    return pattern


@pytest.mark.parametrize("route", sorted(STREAMS | EVENTS))
def test_gradios_open_doors_are_for_people(world: World, route: str) -> None:
    method, _, pattern = route.partition(" ")
    for who in ("anonymous", "disabled"):
        assert world.somebody(who).browser.request(method, filled(pattern), json={}).status_code == 401


@pytest.mark.parametrize("folder", ["/static/", "/assets/", "/svelte/"])
def test_the_ways_to_files_lead_nowhere_else(world: World, folder: str) -> None:
    database = world.mynah.config.database
    for steps in ("..", "%2e%2e", "..%2f..", "%2e%2e%2f%2e%2e", "....//..", "..%5c.."):
        for target in ("etc/passwd", str(database), f"/{database}"):
            for depth in (1, 4, 12):
                answer = world.boss.browser.get(folder + "/".join([steps] * depth) + "/" + target)
                assert answer.status_code in (400, 403, 404) and "root:" not in answer.text, answer.url
                assert b"SQLite format" not in answer.content
