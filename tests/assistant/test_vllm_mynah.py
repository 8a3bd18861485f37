"""A model server and the Mynah over it: whether it has our base, and what clients are told while it is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from adapters.base_model import BaseFiles
from adapters.policy import Policy
from adapters.versions import VersionFiles
from assistant.api.app import create_app
from assistant.mynah import Mynah
from assistant.vllm import ModelServer
from assistant.vllm_base import TOLERANCE
from assistant.vllm_http import RETRY_SECONDS
from feedback.errors import BaseModelError, ModelServerError
from tests.assistant.conftest import SEA
from tests.assistant.fake_vllm import FakeVllm
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings

# ---- is it ours ---------------------------------------------------------------------------------------------------


def other_model(base: BaseFiles, folder: Path) -> str:
    """A model folder that differs in one byte."""
    folder.mkdir()
    for path in base.full.iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes()[:-1] + b"\1")
        else:
            (folder / path.name).symlink_to(path)
    return str(folder)


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        ({"context": 1024}, "it reads 1024 tokens"),
        ({"updating": False}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        ({"root": "other"}, "its weights are not those in"),
        ({"tokens": [1, 2, 3]}, "its vocabulary is another"),
        ({"off": TOLERANCE + 0.1}, "nats a token more or less likely"),
        ({"status": {"/v1/models": 404}}, "not as vLLM does"),
        ({"status": {"/v1/completions": 400}}, "does not tell the log-probabilities"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_another_base_is_refused_at_the_start(
    fake: FakeVllm,
    base_files: BaseFiles,
    version_files: VersionFiles,
    loaded_policy: Policy,
    tmp_path: Path,
    turn: dict[str, Any],
    why: str,
) -> None:
    if turn.get("root") == "other":
        turn = {"root": other_model(base_files, tmp_path / "other")}
    fake.__dict__.update(turn)
    with pytest.raises(BaseModelError, match=why):
        ModelServer(fake.url, base_files, version_files, loaded_policy).greet()


def test_a_mynah_that_was_refused_can_be_started_once_the_base_is_right(
    fake: FakeVllm, base_files: BaseFiles, tmp_path: Path
) -> None:
    models = own_models(base_files, tmp_path / "models")
    config = settings(models, tmp_path / "data", engine="vllm", vllm_url=fake.url)
    fake.off = 5.0
    with pytest.raises(BaseModelError, match=f"Start it with {models}"):
        open_mynah(config)
    fake.off = 0.0
    open_mynah(config, run_updates=False).close()


def test_a_base_whose_folder_cannot_be_seen_is_told_by_what_it_finds_likely(
    fake: FakeVllm, base_files: BaseFiles, version_files: VersionFiles, loaded_policy: Policy
) -> None:
    fake.root, fake.off = "some-org/some-name", TOLERANCE - 0.1
    fresh = ModelServer(fake.url, base_files, version_files, loaded_policy)
    assert "some-org/some-name" in fresh.greet()
    fresh.close()


# ---- the HTTP contract while it is away ---------------------------------------------------------------------------


@pytest.fixture
def mynah(fake: FakeVllm, base_files: BaseFiles, tmp_path: Path) -> Iterator[Mynah]:
    models = own_models(base_files, tmp_path / "models")
    opened = open_mynah(settings(models, tmp_path / "data", engine="vllm", vllm_url=fake.url), run_updates=False)
    yield opened
    opened.close()


def test_503_with_a_time_to_come_back_and_nothing_lost(fake: FakeVllm, mynah: Mynah) -> None:
    ada = mynah.accounts.add("Ada", PASSWORD)
    http = TestClient(
        create_app(mynah, browser=False), headers={"Authorization": f"Bearer {mynah.accounts.create_key(ada)[1]}"}
    )
    body = {"model": "mynah", "messages": SEA, "max_tokens": 8}
    reply = http.post("/v1/chat/completions", json=body).json()["choices"][0]["reply_id"]
    chat = mynah.chat.open(ada)
    mynah.chat.send(ada, chat.id, "Hello").replies()
    fake.kill()
    for stream in (False, True):
        answer = http.post("/v1/chat/completions", json={**body, "stream": stream})
        assert answer.status_code == 503 and answer.headers["Retry-After"] == str(RETRY_SECONDS)
        error = answer.json()["error"]
        assert error["code"] == "model_server" and "does not answer" in error["message"]
    with pytest.raises(ModelServerError):
        mynah.chat.send(ada, chat.id, "Are you there?")
    assert [message.content for message in mynah.chat.history(ada, chat.id)][:1] == ["Hello"]
    assert http.post("/v1/feedback", json={"reply_id": reply, "thumb": 1}).status_code == 201, "clicks still count"
    fake.start()
    assert http.post("/v1/chat/completions", json=body).status_code == 200
    assert mynah.chat.send(ada, chat.id, "Are you there?").replies()[0].text


def test_a_start_without_the_server_serves_as_soon_as_it_is_there(
    fake: FakeVllm, base_files: BaseFiles, tmp_path: Path
) -> None:
    fake.kill()
    lines: list[str] = []
    config = settings(own_models(base_files, tmp_path / "models"), tmp_path / "data", engine="vllm", vllm_url=fake.url)
    mynah = Mynah.open(config, lines.append, run_updates=False)
    assert any("does not answer yet" in line for line in lines)
    fake.start()
    ada = mynah.accounts.add("Ada", PASSWORD)
    chat = mynah.chat.open(ada)
    assert mynah.chat.send(ada, chat.id, "Hello", max_tokens=4).replies()[0].text.startswith("my")
    mynah.close()
