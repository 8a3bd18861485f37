"""Open WebUI itself as a client: its server, its pages in Chromium, its ratings. Needs `make test-ecosystem`.

It is started with the settings that docs/CLIENTS.md gives, without the internet.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect, sync_playwright

from adapters.policy import Policy
from assistant.api import chat as chat_api
from assistant.api.chat import Completion
from assistant.cli import main
from assistant.mynah import Mynah
from benchmarks.peers import ENVIRONMENTS
from feedback.types import Reply, User
from tests.assistant.conftest import Maker
from tests.assistant.serving import PASSWORD, listening, wait_for
from tests.browser.site import FLAGS
from tests.ecosystem.documented import block
from tests.ecosystem.program import Program

pytestmark = [pytest.mark.ecosystem, pytest.mark.timeout(1800)]
COMMAND = [str(ENVIRONMENTS / "open-webui" / "bin" / "open-webui"), "serve", "--host", "127.0.0.1", "--port", "{port}"]
# A build of its own without models of its own, and nothing from elsewhere; its log-in needs a secret.
ALONE = {
    "USE_SLIM_DOCKER": "true", "OFFLINE_MODE": "true", "HF_HUB_OFFLINE": "1", "ENABLE_VERSION_UPDATE_CHECK": "false",
    "WEBUI_SECRET_KEY": "for tests alone", "OMP_NUM_THREADS": "1",
}  # fmt: skip
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
REFUSED = "only text is read"
QUESTION = "Name three colours."
TASKS = {"title": "concise title", "follow-ups": "send next", "tags": "broad tags"}


@pytest.fixture(scope="module")
def key(mynah: Mynah, ada: User) -> str:
    return mynah.accounts.create_key(ada)[1]


@pytest.fixture(scope="module")
def address(mynah: Mynah) -> Iterator[str]:
    with listening(mynah) as found:
        yield found


@pytest.fixture(scope="module")
def webui(address: str, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("webui")
    told = block("Open WebUI", "ini").replace("http://127.0.0.1:7860", address).replace("=KEY", f"={key}")
    documented = dict(line.split("=", 1) for line in told.splitlines())
    started = Program(COMMAND, {**ALONE, **documented, "DATA_DIR": str(folder / "data")}, folder / "log", "/health")
    yield started
    started.kill()


@pytest.fixture(scope="module")
def admin(webui: Program) -> Iterator[httpx.Client]:
    """Its first account."""
    with httpx.Client(base_url=webui.url, timeout=120, trust_env=False) as http:
        account = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
        signed_up = http.post("/api/v1/auths/signup", json=account).raise_for_status().json()
        assert signed_up["role"] == "admin"
        http.headers["Authorization"] = f"Bearer {signed_up['token']}"
        http.post("/api/v1/users/user/settings/update", json={"ui": {"showChangelog": False}}).raise_for_status()
        yield http


@pytest.fixture(scope="module")
def page(webui: Program, admin: httpx.Client) -> Iterator[Page]:
    """A browser in which the first account is signed in."""
    token = admin.headers["Authorization"].removeprefix("Bearer ")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        opened = browser.new_page()
        opened.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)
        opened.goto(f"{webui.url}/auth")
        opened.evaluate("token => localStorage.setItem('token', token)", token)
        yield opened
        browser.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Completion]:
    """What comes to Mynah."""
    bodies: list[Completion] = []
    understood: Callable[..., Any] = chat_api._request

    def noted(mynah: Mynah, user: User, body: Completion) -> Any:
        bodies.append(body)
        return understood(mynah, user, body)

    monkeypatch.setattr(chat_api, "_request", noted)
    return bodies


def complete(http: httpx.Client, model: str, content: Any, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 6, **more}
    return http.post("/api/chat/completions", json=body)


def kept(mynah: Mynah, user: User) -> list[Reply]:
    return mynah.store.chats.all_replies(user.id)


def test_its_list_has_mynahs_models(admin: httpx.Client) -> None:
    assert [model["id"] for model in admin.get("/api/models").json()["data"]] == ["mynah", "base"]


def test_a_completion_through_its_own_api(admin: httpx.Client, mynah: Mynah, ada: User) -> None:
    answer = complete(admin, "mynah", QUESTION).raise_for_status().json()
    reply = kept(mynah, ada)[-1]
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["reply_id"]) == (reply.text, reply.id)
    assert answer["usage"]["completion_tokens"] == len(reply.token_ids) // 4 > 0


def test_a_stream_through_its_own_api(admin: httpx.Client, mynah: Mynah, ada: User) -> None:
    answer = complete(admin, "base", QUESTION, stream=True, stream_options={"include_usage": True})
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    reply = kept(mynah, ada)[-1]
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(said) == reply.text
    assert chunks[-1]["usage"]["completion_tokens"] == len(reply.token_ids) // 4 > 0


def test_a_picture_is_refused_in_its_own_words(admin: httpx.Client) -> None:
    url = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    for stream in (False, True):
        answer = complete(admin, "mynah", parts, stream=stream)
        assert answer.status_code == 400 and REFUSED in answer.text


def test_a_chat_in_its_pages_and_a_thumb_that_is_brought(
    page: Page, webui: Program, admin: httpx.Client, mynah: Mynah, ada: User, key: str, address: str,
    asked: list[Completion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    open_chat(page, webui)
    send(page, QUESTION)
    page.get_by_role("button", name="Good Response").click()
    wait_for(lambda: {kind(body) for body in asked} == {"chat", *TASKS} and mynah.engine.busy == 0)
    (chat,) = [body for body in asked if kind(body) == "chat"]
    assert chat.model == "mynah" and chat.stream and chat.mynah.learn and (chat.model_extra or {})["tools"]
    beside = [body for body in asked if body is not chat]  # what it asks by itself: nothing of it is learned from
    assert {(task.model, task.mynah.learn, task.max_tokens) for task in beside} == {("base", False, 200)}
    (reply,) = [each for each in kept(mynah, ada) if each.learn and each.sampling["max_tokens"] == 32]
    assert reply.prompt == [{"role": "user", "content": QUESTION}]
    assert mynah.store.chats.conversations(ada.id) == [], "a chat of hers in Mynah came from it"
    assert mynah.store.chats.own_prompts(ada.id, 10) == [] and mynah.store.acts.label_count(ada.id) == 0

    wait_for(lambda: bool(export(admin)))
    ratings = export(admin)
    assert [each["data"]["rating"] for each in ratings] == [1]
    (listed,) = admin.get("/api/v1/chats/").json()
    assert listed["title"] not in ("", "New Chat")
    path = tmp_path / "feedback.json"
    path.write_text(json.dumps(ratings), "utf-8")
    for _ in range(2):  # twice sent, once taken
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{key}\n"))
        assert main(["import-feedback", str(path), "--server", address]) == 0
    assert mynah.store.acts.label_count(ada.id) == 1
    assert mynah.store.chats.own_prompts(ada.id, 10) == [reply.prompt]
    (brought,) = [each for each in kept(mynah, ada) if each.source == "import"]
    assert brought.text == reply.text.strip()


def test_a_picture_in_its_pages_shows_the_refusal(page: Page, webui: Program) -> None:
    open_chat(page, webui)
    dot: FilePayload = {"name": "dot.png", "mimeType": "image/png", "buffer": PICTURE}
    page.locator("input[type=file]").first.set_input_files(dot)
    page.locator("form img").first.wait_for()
    send(page, "What is this?")
    expect(page.get_by_text(REFUSED).first).to_be_visible()


def test_a_version_of_her_own_is_listed_and_writes(
    admin: httpx.Client, mynah: Mynah, ada: User, policy: Policy
) -> None:
    made = replace(Maker(policy, mynah.versions).version(ada.id), status="active")
    mynah.store.versions.add(made, activate=True, update_state="promoted")
    listed = [model["id"] for model in admin.get("/api/models", params={"refresh": True}).json()["data"]]
    assert listed == ["mynah", "base", "Ada@v1"]
    complete(admin, "Ada@v1", QUESTION).raise_for_status()
    assert kept(mynah, ada)[-1].version == 1


def test_two_people_with_a_key_each(
    admin: httpx.Client, webui: Program, mynah: Mynah, ada: User, key: str, address: str
) -> None:
    bob = mynah.accounts.add("Bob", PASSWORD)
    connections = {
        "ENABLE_OPENAI_API": True,
        "OPENAI_API_BASE_URLS": [f"{address}/v1"] * 2,
        "OPENAI_API_KEYS": [key, mynah.accounts.create_key(bob)[1]],
        "OPENAI_API_CONFIGS": {"0": {"prefix_id": "ada"}, "1": {"prefix_id": "bob"}},
    }
    admin.post("/openai/config/update", json=connections).raise_for_status()
    account = {"name": "Bob", "email": "bob@example.org", "password": PASSWORD, "role": "user"}
    his = admin.post("/api/v1/auths/add", json=account).raise_for_status().json()
    grant = {"principal_type": "user", "principal_id": his["id"], "permission": "read"}
    model = {"id": "bob.mynah", "name": "Mynah", "meta": {}, "params": {}, "access_grants": [grant]}
    admin.post("/api/v1/models/create", json=model).raise_for_status()
    with httpx.Client(base_url=webui.url, timeout=120, trust_env=False) as http:
        signed_in = http.post("/api/v1/auths/signin", json=account).raise_for_status().json()
        http.headers["Authorization"] = f"Bearer {signed_in['token']}"
        assert [each["id"] for each in http.get("/api/models").json()["data"]] == ["bob.mynah"]
        before = len(kept(mynah, ada))
        answer = complete(http, "bob.mynah", QUESTION).raise_for_status().json()
        assert [reply.id for reply in kept(mynah, bob)] == [answer["choices"][0]["reply_id"]]
        assert complete(http, "ada.mynah", QUESTION).is_error
        assert len(kept(mynah, ada)) == before


def test_another_sites_page_may_not_ask(address: str, webui: Program) -> None:
    """Why its direct connections do not work."""
    headers = {"Origin": webui.url, "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{address}/v1/chat/completions", headers=headers, trust_env=False)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def open_chat(page: Page, webui: Program) -> None:
    page.goto(webui.url)
    page.locator("#chat-input").wait_for()


def send(page: Page, text: str) -> None:
    page.locator("#chat-input").click()
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def kind(body: Completion) -> str:
    """ "chat", or what Open WebUI asks by itself."""
    text = str(body.messages[0]["content"])
    return next((task for task, words in TASKS.items() if text.startswith("### Task") and words in text), "chat")


def export(http: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get("/api/v1/evaluations/feedbacks/all/export").raise_for_status().json()
    return found
