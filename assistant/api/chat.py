"""POST /v1/chat/completions: OpenAI's request and answer, whole or as a stream of server-sent events.

What is asked goes to `assistant.chat`; here is only the form. A client that leaves ends the writing within a token.
Refused by name rather than ignored: log-probabilities, JSON schemas, and a call of a tool where one is demanded. Tools
that a model may call or not are never called: that is an answer which the protocol knows, and many clients always send
some.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

import anyio
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from assistant.api.deps import Caller, Served
from assistant.api.errors import describe
from assistant.api.models import version_of
from assistant.chat import ChatRequest
from assistant.mynah import Mynah
from assistant.turn import Turn
from feedback.errors import InvalidInput
from feedback.types import Reply, User, new_id, wall

router = APIRouter(tags=["Chat"])
MAX_CHOICES = 4
LOOK_SECONDS = 0.25  # how often a waiting request looks whether its client is still there
T = TypeVar("T")
_threads: CapacityLimiter | None = None


class Extension(BaseModel):
    """What only Mynah knows."""

    model_config = ConfigDict(extra="forbid")
    arm: str | None = Field(None, description="`auto` when left out, or one of the arms above")
    learn: StrictBool | None = Field(None, description="`false` keeps the exchange out of all learning")


class StreamOptions(BaseModel):
    """OpenAI's."""

    include_usage: bool | None = Field(None, description="a last chunk with the numbers of tokens")


class Completion(BaseModel):
    """The request. Fields of OpenAI's that change nothing here (user, metadata, …) are let through."""

    model_config = ConfigDict(extra="allow")
    model: str = Field(description="`mynah`, `base`, or one of your versions, as `GET /v1/models` lists them")
    messages: Any = Field(
        description='`[{"role": "system" | "user" | "assistant", "content": "…"}, …]`, a user\'s last'
    )
    n: int | None = Field(None, description=f"1 to {MAX_CHOICES} choices; more than one come unranked, to be compared")
    max_tokens: int | None = Field(None, description="of the reply; the server's `--max-tokens` when left out")
    max_completion_tokens: int | None = Field(
        None, description="the same under OpenAI's newer name, which counts first"
    )
    temperature: float | None = Field(None, description="0.8 when left out")
    top_p: float | None = Field(None, description="1 when left out")
    seed: int | None = Field(None, description="the same seed, version, head and explicit arm write the same text")
    stop: Any = Field(None, description="a text, or up to four, before which a reply ends")
    stream: bool | None = Field(None, description="server-sent events, OpenAI's chunks, as it is written")
    stream_options: StreamOptions | None = None
    mynah: Extension | None = Field(None, description="what only Mynah knows")


@router.post("/v1/chat/completions")
async def complete(body: Completion, request: Request, mynah: Served, user: Caller) -> Response:
    """Reply to a conversation, in OpenAI's form.

    Every choice carries a `reply_id`, which feedback names. `mynah` in the answer, and in the first chunk of a stream,
    says which arm and version wrote; with `dropped` and `notice` where the oldest turns did not fit. Of several choices
    that `auto` made, one may be by another arm, and which is not told: they are to be compared blind. Fields of
    OpenAI's that change nothing here are let through, `tools` too; a demanded call, log-probabilities and JSON schemas
    are refused.
    """
    turn = await _aside(lambda: mynah.chat.start(user, _request(mynah, user, body)))
    head = {"id": new_id("chatcmpl"), "created": int(wall().timestamp()), "model": body.model}
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return StreamingResponse(
            _events(turn, head, usage), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
    try:
        replies = await _while_there(request, turn)
    except _Gone:
        return Response(status_code=499)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": reply.text, "refusal": None},
            "finish_reason": finish_reason(reply),
            "logprobs": None,
            "reply_id": reply.id,
        }
        for index, reply in enumerate(replies)
    ]
    return JSONResponse(
        {**head, "object": "chat.completion", "choices": choices, "usage": turn.usage, "mynah": extension(turn)}
    )


def _request(mynah: Mynah, user: User, body: Completion) -> ChatRequest:
    """The body in the product's own terms. Raises InvalidInput and NotFound."""
    n, ours = 1 if body.n is None else body.n, body.mynah or Extension(arm=None, learn=None)
    if not 1 <= n <= MAX_CHOICES:
        raise InvalidInput(f"n is {n}; it can be 1 to {MAX_CHOICES}.", param="n")
    extra = body.model_extra or {}
    if extra.get("logprobs"):
        raise InvalidInput("logprobs was given; Mynah has no log-probabilities. Leave it out.", param="logprobs")
    for name in ("tool_choice", "function_call"):
        if extra.get(name) not in (None, "auto", "none"):
            wanted = str(extra[name])[:80]
            raise InvalidInput(
                f"{name} is {wanted}; Mynah calls no tools and answers in text. Leave it out, or say auto.", param=name
            )
    if extra.get("response_format") not in (None, {"type": "text"}):
        wanted = str(extra["response_format"])[:80]
        raise InvalidInput(f"response_format is {wanted}; only text is written here.", param="response_format")
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    return ChatRequest(
        messages=body.messages,
        arm="auto" if ours.arm is None else ours.arm,
        version=version_of(mynah, user, body.model),
        n=n,
        max_tokens=limit,
        seed=body.seed,
        stop=body.stop,
        learn=ours.learn is not False,
        **{name: value for name in ("temperature", "top_p") if (value := getattr(body, name)) is not None},
    )


def extension(turn: Turn) -> dict[str, Any]:
    """What `mynah` says in an answer; `notice` only where part of the conversation was left out."""
    said: dict[str, Any] = {"arm": turn.arm, "version": f"v{turn.version}" if turn.version else None}
    if turn.dropped:
        said["dropped"] = turn.dropped
        said["notice"] = f"The conversation was too long: its {turn.dropped} oldest turns were left out."
    return said


def finish_reason(reply: Reply) -> str:
    """ "stop" when the model or a stop string ended the reply, "length" when the limit did."""
    return str(reply.sampling["finish"])


async def _events(turn: Turn, head: dict[str, Any], usage: bool) -> AsyncIterator[str]:
    """The answer as server-sent events; whatever ends this generator early stops the writing."""
    base: dict[str, Any] = {**head, "object": "chat.completion.chunk"}
    if usage:
        base["usage"] = None
    pieces, reading = cast(Generator[tuple[int, str]], turn.pieces()), threading.Lock()

    def following() -> tuple[int, str] | None:
        with reading:
            return next(pieces, None)

    def close() -> None:
        with reading:  # whoever was cancelled may have left a thread in there
            pieces.close()

    try:
        first = {**base, "mynah": extension(turn)}
        for index in range(len(turn.reply_ids)):
            yield _event({**first, "choices": [_chunk(turn, index, {"role": "assistant", "content": ""})]})
            first = base
        while (piece := await _aside(following)) is not None:
            if piece[1]:
                yield _event({**base, "choices": [_chunk(turn, piece[0], {"content": piece[1]})]})
        replies = await _aside(turn.replies)  # on disk now: the reply_ids can be used
        for index, reply in enumerate(replies):
            yield _event({**base, "choices": [_chunk(turn, index, {}, finish_reason(reply))]})
        if usage:
            yield _event({**base, "choices": [], "usage": turn.usage})
        yield "data: [DONE]\n\n"
    except Exception as error:  # the status line is long sent, so the stream itself must say it
        yield _event(describe(error)[1])
    finally:
        turn.stop()
        with anyio.CancelScope(shield=True):
            await _aside(close)  # keeps what was written so far, once it was begun to be shown


def _chunk(turn: Turn, index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "index": index,
        "delta": delta,
        "finish_reason": finish,
        "logprobs": None,
        "reply_id": turn.reply_ids[index],
    }


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


class _Gone(Exception):
    """The client left before its answer."""


async def _while_there(request: Request, turn: Turn) -> list[Reply]:
    """Wait for the replies; stop the writing when the client leaves."""
    done: list[Reply] = []

    async def watch(scope: anyio.CancelScope) -> None:
        while not await request.is_disconnected():
            await anyio.sleep(LOOK_SECONDS)
        turn.stop()
        scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope)
            done = await _aside(turn.replies)
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        turn.stop()
    if not done:
        raise _Gone
    return done


def _aside(work: Callable[[], T]) -> Awaitable[T]:
    """Run something that waits in a thread of chat's own, so that many long replies leave room for clicks."""
    global _threads
    if _threads is None:
        _threads = CapacityLimiter(256)
    return to_thread.run_sync(work, limiter=_threads)
