"""A vLLM server that finds the tokens of replies instead of the policy here (`serve --engine vllm`).

Prompts go there as token ids and token ids come back, one stream a draft, so that rendering, texts and choices stay
here. A version is loaded there when it is first asked for, under a name that stands for its person, number and hash and
is never used again; vLLM may keep what it has read under that name. No reply is believed without proof of where it
comes from: the server must list the adapter with our folder, and name it in every chunk.

Before the first reply, and again whenever the server was away, its base is compared with the one here: the weights
themselves where their folder can be seen from here, the tokens of a text, and how likely it finds each of them. While
it is away requests are refused (ModelServerError); when it is back, adapters are loaded again as they are asked for.

One thread with an event loop of its own does all talking; methods without `_` may be called from any thread. Left out
on purpose: more than one server, and keys for it: whoever can reach it can load adapters, so nobody else should.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

from adapters.base_model import BaseFiles
from adapters.decoding import Sampling
from adapters.files import sha256_json
from adapters.policy import Policy
from adapters.versions import VersionFiles
from assistant.vllm_base import Card, OwnBase
from feedback.errors import BaseModelError, ModelServerError, MynahError
from feedback.types import AdapterVersion

ROOM = 16  # adapters loaded there at once by us
RETRY_SECONDS = 10
PATIENCE = httpx.Timeout(10.0, read=120.0)  # a token may wait for others' prompts
QUICK = httpx.Timeout(10.0)
KEPT_OPEN = 2.0  # seconds that an idle connection lives: vLLM closes it after five, perhaps just as we use it
SEED_STEP = 104_729  # between the seeds of drafts

log = logging.getLogger("mynah.vllm")
T = TypeVar("T")


class Sink(Protocol):
    """Who takes what comes in; called on the loop's thread."""

    def take(self, row: int, tokens: Sequence[int], finish: str | None) -> None:
        """More tokens of a draft; finish: why there are no more."""
        ...

    def fail(self, error: Exception) -> None:
        """Nothing more comes."""
        ...


class Request:
    """The drafts of one request at the server; tasks: by draft, once they are under way."""

    def __init__(self, server: ModelServer, running: Future[None]) -> None:
        self._server, self._running = server, running
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def drop(self, rows: Collection[int]) -> None:
        """Let the server stop writing some drafts."""

        def cancel() -> None:
            for row in rows:
                if row in self.tasks:
                    self.tasks[row].cancel()

        if rows:
            self._server.soon(cancel)

    def close(self) -> None:
        """Let it stop with all of them."""
        self._running.cancel()


class ModelServer:
    """The server, and which adapters it has loaded for us."""

    def __init__(self, url: str, files: BaseFiles, versions: VersionFiles, policy: Policy) -> None:
        """policy: the same base, here; used only now."""
        self.url, self._versions, self._own = url.rstrip("/"), versions, OwnBase(files, policy)
        self._end_ids = sorted(policy.renderer.end_ids)
        self._salt = secrets.token_hex(16)
        self._checked = False  # whether the base was compared since the server was last away
        self._base, self._root, self._context = "", "", 0
        self._loaded: OrderedDict[str, str] = OrderedDict()  # name → user_id, least recently used first
        self._used: Counter[str] = Counter()  # by requests under way
        self._loop = asyncio.new_event_loop()
        self._changing, self._comparing = asyncio.Lock(), asyncio.Lock()
        self._http = httpx.AsyncClient(
            base_url=self.url,
            trust_env=False,  # no proxy stands between
            timeout=QUICK,
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEPT_OPEN),
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()

    # ---- from any thread --------------------------------------------------------------------------------------------

    def greet(self) -> str:
        """Compare the bases, if it answers; what to tell whoever starts Mynah. Raises BaseModelError."""
        try:
            self._run(self._listed()).result()
        except BaseModelError:
            self.close()
            raise
        except ModelServerError:
            return f"The model server at {self.url} does not answer yet; chat begins when it does."
        return f"Model server: {self.url} with {self._root}"

    def require(self) -> None:
        """Raises ModelServerError when it does not answer, or serves another base."""
        try:
            self._run(self._listed()).result()
        except BaseModelError as error:
            raise _other_base(error) from error

    def write(
        self,
        version: AdapterVersion | None,
        user_id: str,
        prompt: Sequence[int],
        copies: int,
        how: Sampling,
        sink: Sink,
    ) -> Request:
        """Begin to write drafts; errors come to the sink."""
        bodies = [
            {
                "prompt": list(prompt),
                "stream": True,
                "return_token_ids": True,
                "max_tokens": how.max_tokens,
                "temperature": how.temperature,
                "top_p": how.top_p,
                # Left out, these would be what the model's own generation_config.json says.
                "top_k": 0,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
                "seed": (how.seed + row * SEED_STEP) % 2**63,
                "stop_token_ids": self._end_ids,
                # What was read for one person is not used for another, whose waiting would tell of it.
                "cache_salt": sha256_json([self._salt, user_id]),
            }
            for row in range(copies)
        ]
        started: Future[Request] = Future()

        async def serve() -> None:
            await self._serve(await asyncio.wrap_future(started), version, bodies, sink)

        request = Request(self, self._run(serve()))
        started.set_result(request)
        return request

    def forget(self, user_id: str) -> None:
        """Unload a person's adapters; waits a little for it. What is left is unloaded when the server is back."""
        with suppress(TimeoutError):
            self._run(self._forget(user_id)).result(timeout=5)

    def soon(self, call: Any) -> None:
        """Call something on the loop's thread."""
        with suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(call)

    def close(self) -> None:
        """Break off all requests. Adapters stay loaded there until the next start unloads them."""
        if self._loop.is_closed():
            return

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._http.aclose()

        with suppress(TimeoutError):
            self._run(end()).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def _serve(
        self, request: Request, version: AdapterVersion | None, bodies: Sequence[dict[str, Any]], sink: Sink
    ) -> None:
        """All drafts of a request."""
        name = None
        try:
            await self._listed()
            if version is None:
                model = self._base
            else:
                model = name = await self._taken(version)
            for row, body in enumerate(bodies):
                room = self._context - len(body["prompt"])
                body |= {"model": model, "max_tokens": min(body["max_tokens"], room)}
                request.tasks[row] = asyncio.ensure_future(self._stream(row, body, sink))
            await asyncio.wait(request.tasks.values())
        except Exception as error:
            sink.fail(_named(error))
        finally:
            for task in request.tasks.values():
                task.cancel()
            if name is not None:
                self._used[name] -= 1

    async def _stream(self, row: int, body: dict[str, Any], sink: Sink) -> None:
        """One draft."""
        try:
            async with self._http.stream("POST", "/v1/completions", json=body, timeout=PATIENCE) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise self._refused(answer)
                finish = None
                async for line in answer.aiter_lines():
                    if finish is not None or not line.startswith("data: {"):
                        continue
                    finish = self._chunk(row, json.loads(line.removeprefix("data: ")), body["model"], sink)
            if finish is None:
                raise self._away("a reply broke off")
        except httpx.TransportError as error:
            sink.fail(self._away(f"{type(error).__name__}: {error}"))
        except Exception as error:
            sink.fail(_named(error))

    def _chunk(self, row: int, chunk: dict[str, Any], model: str, sink: Sink) -> str | None:
        """Pass on what came; why it was the last, None if it was not. Raises ModelServerError."""
        if "error" in chunk:
            raise self._away(f"it reports {str(chunk['error'])[:500]}")
        if chunk.get("model") != model:
            raise _mixed_up(f"asked for {model}, answered by {chunk.get('model')}")
        for choice in chunk["choices"]:
            finish: str | None = choice.get("finish_reason")
            if finish not in (None, "stop", "length"):
                raise self._away(f"a reply ended with {finish}")
            sink.take(row, choice["token_ids"], finish)
            return finish
        return None

    # ---- adapters ---------------------------------------------------------------------------------------------------

    async def _taken(self, version: AdapterVersion) -> str:
        """The name under which a version is loaded there; it stays so until the request under way is over."""
        name = f"{version.user_id}-v{version.number}-{version.manifest_sha256[:12]}"
        folder = str(self._versions.path(version.user_id, version.number).resolve())
        async with self._changing:
            cards = await self._listed()
            if name in self._loaded and name not in cards:
                self._checked = False  # it was started anew, perhaps with another base
                self._loaded.clear()
                cards = await self._listed()
            if name not in cards:
                await asyncio.to_thread(self._versions.check, version)
                await self._load(name, folder)
                self._loaded[name] = version.user_id
                cards = await self._listed()
            card = cards.get(name, {})
            if card.get("root") != folder or card.get("parent") != self._base:
                raise _mixed_up(f"{name} should be {folder} on {self._base}, and is listed as {card}")
            self._loaded[name] = version.user_id
            self._loaded.move_to_end(name)
            idle = [other for other in self._loaded if other != name and not self._used[other]]
            for other in idle[: max(0, len(self._loaded) - ROOM)]:
                await self._unload(other)
            self._used[name] += 1
        return name

    async def _load(self, name: str, folder: str) -> None:
        answer = await self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}, PATIENCE)
        if answer.status_code != 200:
            raise self._refused(answer)

    async def _unload(self, name: str) -> None:
        """What cannot be unloaded is harmless: its name is never used again."""
        self._loaded.pop(name, None)
        del self._used[name]
        with suppress(ModelServerError):
            answer = await self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name}, PATIENCE)
            if answer.status_code not in (200, 404):
                log.warning("adapter %s was not unloaded: %s", name, answer.text[:300])

    async def _forget(self, user_id: str) -> None:
        while any(owner == user_id and self._used[name] for name, owner in self._loaded.items()):
            await asyncio.sleep(0.02)
        async with self._changing:
            for name in [name for name, owner in self._loaded.items() if owner == user_id]:
                await self._unload(name)

    # ---- is it there, and is it ours --------------------------------------------------------------------------------

    async def _listed(self) -> dict[str, Card]:
        """What it serves, by name. Raises ModelServerError, and BaseModelError when its base is another."""
        cards = await self._cards()
        base = next((card for card in cards.values() if not card.get("parent")), {})
        if not self._checked or (base.get("id"), base.get("root")) != (self._base, self._root):
            async with self._comparing:
                if not self._checked or (base.get("id"), base.get("root")) != (self._base, self._root):
                    await self._compare(base)
                    await self._tidy(cards)
        return cards

    async def _cards(self) -> dict[str, Card]:
        answer = await self._ask("GET", "/v1/models")
        try:
            answer.raise_for_status()
            return {str(card["id"]): card for card in answer.json()["data"]}
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
            if answer.status_code >= 500:
                raise self._away(f"GET /v1/models: {answer.status_code}") from error
            raise BaseModelError(
                f"{self.url} answered {answer.status_code} to GET /v1/models, not as vLLM does; --vllm-url must be "
                "where a vLLM server is."
            ) from error

    async def _compare(self, base: Card) -> None:
        """Raises BaseModelError unless the server can write for our base."""
        name, root, files = str(base.get("id")), str(base.get("root")), self._own.files
        if why := await self._own.difference(base, self._post):
            raise BaseModelError(
                f"The model server at {self.url} serves {root}, which cannot write for {files.base_id}: {why}. "
                f"Start it with {files.full} (docs/OPERATING.md has the command), or start Mynah with its base."
            )
        self._base, self._root, self._context, self._checked = name, root, int(base["max_model_len"]), True
        log.info("the model server at %s serves %s as %s", self.url, root, name)

    async def _tidy(self, cards: dict[str, Card]) -> None:
        """Unload what an earlier run of ours left there, perhaps of people who are gone."""
        ours = self._versions.root.resolve()
        for name, card in cards.items():
            if name not in self._loaded and card.get("parent") and Path(str(card.get("root"))).is_relative_to(ours):
                await self._unload(name)

    # ---- HTTP -------------------------------------------------------------------------------------------------------

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout: httpx.Timeout = QUICK
    ) -> httpx.Response:
        try:
            return await self._http.request(method, path, json=body, timeout=timeout)
        except httpx.TransportError as error:
            raise self._away(f"{method} {path}: {type(error).__name__}: {error}") from error

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The status, and the object that came with it, {} for anything else."""
        answer = await self._ask("POST", path, body, PATIENCE)
        if answer.status_code >= 500:
            raise self._away(f"POST {path}: {answer.status_code}")
        try:
            found = answer.json()
        except ValueError:
            found = {}
        return answer.status_code, found if isinstance(found, dict) else {}

    def _away(self, what: str) -> ModelServerError:
        """It does not answer, or is about to end; whoever comes next looks anew."""
        self._checked = False
        log.warning("the model server at %s: %s", self.url, what)
        return ModelServerError(
            f"The model server does not answer; chat goes on by itself when it does. Try again in {RETRY_SECONDS} s.",
            retry_after=RETRY_SECONDS,
        )

    def _refused(self, answer: httpx.Response) -> ModelServerError:
        """It answered, but does not do what it was asked."""
        self._checked = False
        log.error("the model server at %s: %s %s", self.url, answer.status_code, answer.text[:1000])
        return ModelServerError(
            f"The model server refused what it was asked ({answer.status_code}); Mynah's log says why. "
            f"Try again in {RETRY_SECONDS} s.",
            retry_after=RETRY_SECONDS,
        )


def _mixed_up(what: str) -> ModelServerError:
    """It answered for something else than what was asked for."""
    log.error("a reply is not shown: %s", what)
    return ModelServerError(
        "The model server answered with another version than yours, so its reply is not shown. Try again; "
        "if it happens again, tell an admin.",
        retry_after=RETRY_SECONDS,
    )


def _other_base(error: BaseModelError) -> ModelServerError:
    """What people who chat are told; the reason is for whoever runs the server."""
    log.error("%s", error.message)
    return ModelServerError(
        "The model server serves another base model than Mynah; an admin finds the reason in the log. "
        f"Try again in {RETRY_SECONDS} s.",
        retry_after=RETRY_SECONDS,
    )


def _named(error: Exception) -> MynahError:
    """An error as it goes to who asked."""
    if isinstance(error, BaseModelError):
        return _other_base(error)
    if isinstance(error, MynahError):
        return error
    log.error("the model server answered otherwise than vLLM does", exc_info=error)
    return ModelServerError(
        f"The model server gave an answer that Mynah does not understand. Try again in {RETRY_SECONDS} s.",
        retry_after=RETRY_SECONDS,
    )
