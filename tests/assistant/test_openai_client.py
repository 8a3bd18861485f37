"""The official OpenAI client against a real server on a port of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import httpx
import openai
import pytest

from adapters.base_model import BaseFiles
from assistant.mynah import Mynah
from tests.assistant.serving import PASSWORD, listening, open_mynah, own_models, settings, wait_for

HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Name a colour."}]


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    folder = tmp_path_factory.mktemp("openai")
    opened = open_mynah(settings(own_models(base_files, folder / "models"), folder / "data"), run_updates=False)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def address(mynah: Mynah) -> Iterator[str]:
    with listening(mynah) as found:
        yield found


@pytest.fixture(scope="module")
def key(mynah: Mynah) -> str:
    return mynah.accounts.create_key(mynah.accounts.add("Ada", PASSWORD))[1]


@pytest.fixture(scope="module")
def client(address: str, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["mynah", "base"]
    assert client.models.retrieve("base").owned_by == "mynah"


def test_a_completion(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="mynah", messages=HELLO, n=2, max_completion_tokens=6, temperature=0.7, top_p=0.9, seed=1, stop=["\n\n"]
    )
    assert len(answer.choices) == 2
    for choice in answer.choices:
        assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
        assert choice.model_extra and choice.model_extra["reply_id"]
    assert answer.usage and answer.usage.completion_tokens <= 12
    assert answer.model_extra and answer.model_extra["mynah"]["arm"] == "base"


def test_a_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="base", messages=HELLO, max_tokens=6, seed=1, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].model_extra and chunks[0].model_extra["mynah"] == {"arm": "base", "version": None}
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    whole = client.chat.completions.create(model="base", messages=HELLO, max_tokens=6, seed=1)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens  # type: ignore[union-attr]
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_the_extension_chooses_the_arm(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="mynah", messages=HELLO, max_tokens=4, extra_body={"mynah": {"arm": "rerank", "learn": False}}
    )
    assert answer.model_extra and answer.model_extra["mynah"]["arm"] == "rerank"


@pytest.mark.parametrize("stream", [True, False])
def test_tools_that_may_be_called_or_not_are_answered_in_text(client: openai.OpenAI, stream: bool) -> None:
    """As Open WebUI sends them with every question."""
    tool: openai.types.chat.ChatCompletionFunctionToolParam = {
        "type": "function",
        "function": {"name": "get_time", "description": "The time now.", "parameters": {"type": "object"}},
    }
    ask = partial(client.chat.completions.create, model="mynah", messages=HELLO, max_tokens=4, seed=1)
    (plain,) = ask().choices
    if stream:
        chunks = [chunk.choices[0] for chunk in ask(tools=[tool], tool_choice="auto", stream=True)]
        text, end = "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason
    else:
        (choice,) = ask(tools=[tool], tool_choice="auto").choices
        text, end = choice.message.content, choice.finish_reason
    assert (text, end) == (plain.message.content, plain.finish_reason)


def test_errors_arrive_as_the_clients_own(client: openai.OpenAI, address: str) -> None:
    with pytest.raises(openai.BadRequestError, match="n is 9"):
        client.chat.completions.create(model="mynah", messages=HELLO, n=9)
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.chat.completions.create(model="gpt-5", messages=HELLO)
    stranger = openai.OpenAI(base_url=f"{address}/v1", api_key="mynah-nobody", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_writing(mynah: Mynah, address: str, key: str, stream: bool) -> None:
    told = [{"role": "user", "content": "Write a very long story about a dog."}]  # greedily, so that it is one
    body = {"model": "base", "messages": told, "max_tokens": 1400, "stream": stream, "temperature": 0}
    headers = {"Authorization": f"Bearer {key}"}
    wait_for(lambda: mynah.engine.busy == 0)
    with httpx.Client(timeout=httpx.Timeout(60, read=60 if stream else 1.0)) as http:
        if stream:
            with http.stream("POST", f"{address}/v1/chat/completions", json=body, headers=headers) as answer:
                next(answer.iter_lines())
                assert mynah.engine.busy == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post(f"{address}/v1/chat/completions", json=body, headers=headers)
    before = mynah.engine.tokens_written
    wait_for(lambda: mynah.engine.busy == 0, seconds=20)
    assert mynah.engine.tokens_written - before < 100, "nobody reads the rest of it"
