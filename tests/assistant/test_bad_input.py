"""Everything a person can get wrong ends in a clear error, and loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from adapters.base_model import BaseFiles
from adapters.policy import Policy
from assistant.api.app import create_app
from assistant.mynah import Mynah
from feedback.store import Store
from tests.assistant.serving import open_mynah, own_models, settings, teach
from tests.assistant.test_api import HELLO, Person, give_version


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    folder = tmp_path_factory.mktemp("bad")
    opened = open_mynah(settings(own_models(base_files, folder / "models"), folder / "data"), run_updates=False)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def app(mynah: Mynah) -> Any:
    return create_app(mynah, browser=False)


@pytest.fixture(scope="module")
def ada(mynah: Mynah, app: Any) -> Person:
    return Person(mynah, app, "Ada")


@pytest.fixture(scope="module")
def replies(ada: Person) -> list[str]:
    """Three replies to one prompt, and one to another."""
    one = [choice["reply_id"] for choice in ada.ask(n=3, max_tokens=3)["choices"]]
    other = ada.ask(messages=[{"role": "user", "content": "And the hills?"}], max_tokens=3)
    return [*one, other["choices"][0]["reply_id"]]


def refused(answer: Any, status: int, *words: str) -> dict[str, Any]:
    """The error in an answer, in OpenAI's shape, and nothing of the inside."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "code", "param"}
    assert all(word in error["message"] for word in words), error["message"]
    assert "Traceback" not in answer.text and ".py" not in error["message"].replace("app.py", "")
    return dict(error)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"reply_id": "r_unknown", "thumb": 1}, 404, ["r_unknown"]),
        ({"ranking": [["{0}"], ["{0}"]]}, 400, ["twice"]),
        ({"ranking": [["{0}"]]}, 400, ["1 replies"]),
        ({"ranking": [["{0}"], ["r_unknown"]]}, 404, ["r_unknown"]),
        ({"ranking": [["{0}"], ["{3}"]]}, 400, ["different prompts"]),
        ({"ranking": "{0}"}, 400, ["tiers"]),
        ({"ranking": [["{0}"], ["{1}"]], "verdict": "neither"}, 400, ["one tier"]),
        ({"ranking": [["{0}"], ["{1}"]], "thumb": 1}, 400, ["thumb and ranking"]),
        ({"reply_id": "{0}", "thumb": 2}, 400, ["thumb is 2"]),
        ({"reply_id": "{0}", "thumb": True}, 400, ["thumb is True"]),
        ({"reply_id": "{0}", "thumb": 1, "verdict": "neither"}, 400, ["verdict"]),
        ({"reply_id": "{0}", "edit": " "}, 400, ["empty"]),
        ({"reply_id": "{0}", "edit": "x" * 100_000}, 400, ["100,000"]),
        ({"reply_id": "{0}"}, 400, ["none of"]),
        ({"thumb": 1}, 400, ["reply_id is missing"]),
        ({"reply_id": "{0}", "thumbs": 1}, 400, ["thumbs is not a field"]),
        ({"reply_id": 7, "thumb": 1}, 400, ["reply_id is 7"]),
    ],
)
def test_feedback(ada: Person, replies: list[str], body: dict[str, Any], status: int, words: list[str]) -> None:
    before = ada.get("/v1/me")["labels"]
    text = json.dumps(body)
    for number, reply_id in enumerate(replies):
        text = text.replace(f"{{{number}}}", reply_id)
    refused(ada.http.post("/v1/feedback", json=json.loads(text)), status, *words)
    assert ada.get("/v1/me")["labels"] == before


def test_somebody_elses_things_do_not_exist(mynah: Mynah, app: Any, ada: Person, replies: list[str]) -> None:
    bob = Person(mynah, app, "Bob")
    own = bob.ask(max_tokens=3)["choices"][0]["reply_id"]
    strange = refused(bob.http.post("/v1/feedback", json={"reply_id": replies[0], "thumb": 1}), 404)
    missing = refused(bob.http.post("/v1/feedback", json={"reply_id": "r_unknown", "thumb": 1}), 404)
    assert strange["message"].replace(replies[0], "r_unknown") == missing["message"]
    refused(bob.http.post("/v1/feedback", json={"ranking": [[own], [replies[0]]]}), 404, replies[0])
    refused(bob.http.post("/v1/feedback", json={"reply_id": replies[0], "edit": "mine"}), 404)
    act = ada.http.post("/v1/feedback", json={"reply_id": replies[0], "thumb": 1}).json()["feedback_id"]
    refused(bob.http.delete(f"/v1/feedback/{act}"), 404)
    key = ada.get("/v1/me/keys")["keys"][0]["id"]
    refused(bob.http.delete(f"/v1/me/keys/{key}"), 404)
    assert ada.get("/v1/me")["labels"] == 1 and bob.get("/v1/me")["labels"] == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"n": 0}, ["n is 0", "1 to 4"]),
        ({"n": 9}, ["n is 9", "1 to 4"]),
        ({"n": "many"}, ["n is 'many'"]),
        ({"messages": []}, ["messages"]),
        ({"messages": [{"role": "user", "content": ""}]}, ["empty"]),
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, ["100,000"]),
        ({"messages": [{"role": "user", "content": "word " * 6000}]}, ["tokens"]),
        ({"messages": [{"role": "tool", "content": "x"}]}, ["tool"]),
        ({"messages": "hello"}, ["messages"]),
        ({"temperature": 3}, ["temperature is 3", "0 to 2"]),
        ({"top_p": 0}, ["top_p is 0"]),
        ({"max_tokens": 0}, ["max_tokens is 0"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"stop": ["a"] * 9}, ["stop"]),
        ({"model": 3}, ["model is 3"]),
        ({"tool_choice": "required", "tools": [{}]}, ["tool_choice is required", "calls no tools"]),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, ["tool_choice", "calls no tools"]),
        ({"function_call": {"name": "f"}}, ["function_call", "calls no tools"]),
        ({"logprobs": True}, ["logprobs"]),
        ({"response_format": {"type": "json_object"}}, ["json_object"]),
        ({"response_format": "json"}, ["response_format"]),
        ({"mynah": {"arm": "best"}}, ["arm", "best", "rerank"]),
        ({"mynah": {"arms": "base"}}, ["arms is not a field"]),
        ({"mynah": {"learn": "no"}}, ["learn is 'no'"]),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_chat(ada: Person, body: dict[str, Any], words: list[str], stream: bool) -> None:
    asked = {"model": "mynah", "messages": HELLO, "max_tokens": 2, "stream": stream, **body}
    refused(ada.http.post("/v1/chat/completions", json=asked), 400, *words)


def test_an_arm_that_needs_a_version_says_so(ada: Person) -> None:
    asked = {"model": "mynah", "messages": HELLO, "mynah": {"arm": "adapter"}}
    refused(ada.http.post("/v1/chat/completions", json=asked), 409, "active version", "update first")


@pytest.mark.parametrize(
    "sent", [b"", b"{", b"[]", b'"x"', b"null", b'{"a": NaN}', b"\xff\xfe", b'{"model": "mynah"}', b"[" * 100_000]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback", "/v1/me/preferences", "/v1/me/score"])
def test_a_malformed_body_is_400(ada: Person, path: str, sent: bytes) -> None:
    answer = ada.http.post(path, content=sent, headers={"content-type": "application/json"})
    refused(answer, 400)


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", "/v1/feedback", {"reply_id": "r", "thumb": "\ud800"}),
        ("POST", "/v1/feedback", {"ranking": [["\ud800"], ["x"]]}),
        ("POST", "/v1/feedback", {"reply_id": "\ud800", "thumb": 1}),
        ("PUT", "/v1/me/profile", {"name": "length", "weight": "\ud800"}),
        ("POST", "/v1/chat/completions", {"model": "mynah", "messages": HELLO, "tool_choice": "\ud800"}),
    ],
)
def test_half_a_character_is_400_wherever_it_stands(ada: Person, method: str, path: str, sent: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json"}
    refused(ada.http.request(method, path, content=json.dumps(sent), headers=headers), 400)


def test_a_huge_body_is_refused_before_it_is_read(ada: Person) -> None:
    refused(ada.http.post("/v1/feedback", content=b"x" * (5 * 2**20)), 400, "4 MB")
    pieces = (b"x" * 2**20 for _ in range(5))  # without saying how much is coming
    refused(ada.http.post("/v1/feedback", content=pieces), 400, "4 MB")


def test_without_a_key_there_is_only_401(app: Any) -> None:
    http = TestClient(app)
    for method, path in (
        ("GET", "/v1/me"),
        ("GET", "/v1/nothing"),
        ("POST", "/v1/feedback"),
        ("GET", "/v1/admin/users"),
        ("GET", "/metrics"),
        ("GET", "/v1"),
    ):
        for headers in ({}, {"Authorization": "Bearer mynah-wrong"}, {"Authorization": "Basic YTpi"}):
            answer = http.request(method, path, headers=headers, content=b"{")
            assert refused(answer, 401)["code"] == "invalid_api_key"


def test_what_does_not_exist_is_404(ada: Person) -> None:
    for method, path in (
        ("GET", "/v1/nothing"),
        ("PATCH", "/v1/me"),
        ("GET", "/v1/me/updates/up_x"),
        ("DELETE", "/v1/me/updates/up_x"),
        ("DELETE", "/v1/feedback/f_x"),
        ("POST", "/v1/me/versions/v7/activate"),
    ):
        refused(ada.http.request(method, path), 404)
    refused(ada.http.post("/v1/me/versions/latest/activate"), 400, "latest")


def test_updates_too_early_and_twice(mynah: Mynah, app: Any) -> None:
    eve = Person(mynah, app, "Eve")
    teach(mynah, eve.user, 7)
    error = refused(eve.http.post("/v1/me/updates"), 422, "10 labels", "3 more")
    assert error["needed"] == 3 and error["code"] == "too_few_labels"
    teach(mynah, eve.user, 3)
    first = eve.http.post("/v1/me/updates")
    assert first.status_code == 202
    refused(eve.http.post("/v1/me/updates"), 409, "under way")
    update_id = first.json()["update_id"]
    told = eve.get(f"/v1/me/updates/{update_id}")
    assert told["state"] == "queued" and {"progress", "eta_seconds", "metrics", "gate", "version"} <= set(told)
    assert eve.get("/v1/me")["next_update"]["position"] == 0
    assert eve.http.delete(f"/v1/me/updates/{update_id}").json()["state"] == "cancelled"
    refused(eve.http.delete(f"/v1/me/updates/{update_id}"), 409, "ended already")


def test_a_corrupted_adapter_is_told_and_the_base_still_answers(mynah: Mynah, app: Any, policy: Policy) -> None:
    sam = Person(mynah, app, "Sam")
    version = give_version(mynah, sam.user, policy)
    weights = mynah.versions.path(sam.user.id, version.number) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\x00" * 7 + b"\x01")
    asked = {"model": "mynah", "messages": HELLO, "max_tokens": 3, "mynah": {"arm": "adapter"}}
    answer = sam.http.post("/v1/chat/completions", json=asked)
    assert refused(answer, 503, "v1")["code"] == "corrupt_file"
    streamed = sam.http.post("/v1/chat/completions", json={**asked, "stream": True})
    assert "corrupt_file" in streamed.text and "[DONE]" not in streamed.text
    refused(sam.http.post("/v1/me/versions/v1/activate"), 503, "v1")
    assert sam.ask(model="base", max_tokens=3)["choices"]
    assert sam.http.post("/v1/me/versions/base/activate").status_code == 200
    assert sam.ask(max_tokens=3)["choices"]


def test_a_full_disk_is_told_and_nothing_is_lost(base_files: BaseFiles, tmp_path: Path) -> None:
    """On a file system of 16 MB that is filled to the last byte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    try:
        config = settings(own_models(base_files, tmp_path / "models"), tmp_path / "data")
        mynah = open_mynah(replace(config, data_dir=disk / "data"), run_updates=False)
        try:
            app = create_app(mynah, browser=False)
            ada = Person(mynah, app, "Ada")
            reply = ada.ask(max_tokens=3)["choices"][0]["reply_id"]
            assert ada.http.post("/v1/feedback", json={"reply_id": reply, "thumb": 1}).json()["labels"] == 1
            _fill(disk / "filler")
            answer = _until_refused(ada, reply)
            assert refused(answer, 507, "Not saved")["code"] == "not_saved"
            labels = ada.get("/v1/me")["labels"]
            (disk / "filler").unlink()
            given = ada.http.post("/v1/feedback", json={"reply_id": reply, "thumb": -1})
            assert given.status_code == 201 and given.json()["labels"] == labels == 1
        finally:
            mynah.close()
        store = Store(disk / "data" / "mynah.db")
        assert store.database.check() == "ok" and store.acts.label_count(ada.user.id) == 1
        store.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _fill(path: Path) -> None:
    """Take every byte that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def _until_refused(person: Person, reply: str) -> Any:
    """Acts until the database's own spare room is used up, too."""
    for number in range(200):
        comment = f"{number} " + "x" * 1500
        answer = person.http.post("/v1/feedback", json={"reply_id": reply, "thumb": 1, "comment": comment})
        if answer.status_code != 201:
            return answer
    raise AssertionError("two hundred acts fitted on a full disk")
