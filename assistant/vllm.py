"""A vLLM server that finds the tokens of replies instead of the policy here (`serve --engine vllm`).

Prompts go there as token ids and token ids come back, each draft by a stream of its own, so that rendering, texts and
choices stay here. A version is loaded there when it is first asked for, under a name that stands for its person, number
and hash and is never used again; vLLM may keep what it has read under that name. No reply is believed without proof of
where it comes from: the server must list the adapter with our folder, and name it in every chunk.

Before the first reply, and again whenever the server was away, its base is compared with the one here (vllm_base.py).
While it is away requests are refused (ModelServerError); when it is back, adapters are loaded again when asked for.

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
from assistant.vllm_base import OwnBase
from assistant.vllm_http import PATIENCE, Card, Wire, mixed_up, named, other_base
from feedback.errors import BaseModelError, ModelServerError
from feedback.types import AdapterVersion

ROOM = 16  # adapters loaded there at once by us
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
    """The drafts of one request at the server. tasks: by draft, once they are under way; model: under which name the
    version is loaded, while it is held for this request."""

    def __init__(self, server: ModelServer, running: Future[None]) -> None:
        self._server, self._running = server, running
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.model: str | None = None

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
        self._wire, self._versions, self._own = Wire(url), versions, OwnBase(files, policy)
        self._end_ids = sorted(policy.renderer.end_ids)
        self._salt = secrets.token_hex(16)
        self._base, self._root, self._context = "", "", 0
        self._loaded: OrderedDict[str, str] = OrderedDict()  # name → user_id, least recently used first
        self._used: Counter[str] = Counter()  # by requests under way
        self._loop = asyncio.new_event_loop()
        self._changing, self._comparing = asyncio.Lock(), asyncio.Lock()
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
            return f"The model server at {self._wire.url} does not answer yet; chat begins when it does."
        return f"Model server: {self._wire.url} with {self._root}"

    def require(self) -> None:
        """Raises ModelServerError when it does not answer, or serves another base."""
        try:
            self._run(self._listed()).result()
        except BaseModelError as error:
            raise other_base(error) from error

    def write(
        self,
        version: AdapterVersion | None,
        user_id: str,
        prompts: Sequence[Sequence[int]],
        how: Sampling,
        sink: Sink,
        first: int = 0,
        after: Request | None = None,
    ) -> Request:
        """Begin to write a draft for each prompt, numbered from `first` on; errors come to the sink.

        after: a request for the same version, whose hold on it is shared while it lasts: nothing is asked before.
        """
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
            for row, prompt in enumerate(prompts, first)
        ]
        started: Future[Request] = Future()

        async def serve() -> None:
            await self._serve(await asyncio.wrap_future(started), version, dict(enumerate(bodies, first)), sink, after)

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
            await self._wire.http.aclose()

        with suppress(TimeoutError):
            self._run(end()).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def _serve(
        self,
        request: Request,
        version: AdapterVersion | None,
        bodies: dict[int, dict[str, Any]],
        sink: Sink,
        after: Request | None,
    ) -> None:
        """All drafts of a request. after: another one for the same version, which may still hold it."""
        if (name := after.model if after else None) is not None:
            self._used[name] += 1
        try:
            model = name = request.model = name or await self._taken(version)
            for row, body in bodies.items():
                room = self._context - len(body["prompt"])
                body |= {"model": model, "max_tokens": min(body["max_tokens"], room)}
                request.tasks[row] = asyncio.ensure_future(self._stream(row, body, sink))
            await asyncio.wait(request.tasks.values())
        except Exception as error:
            sink.fail(named(error))
        finally:
            for task in request.tasks.values():
                task.cancel()
            request.model = None
            if name is not None:
                self._used -= Counter([name])

    async def _stream(self, row: int, body: dict[str, Any], sink: Sink) -> None:
        """One draft."""
        try:
            async with self._wire.http.stream("POST", "/v1/completions", json=body, timeout=PATIENCE) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise self._wire.refused(answer)
                finish = None
                async for line in answer.aiter_lines():
                    if finish is not None or not line.startswith("data: {"):
                        continue
                    finish = self._chunk(row, json.loads(line.removeprefix("data: ")), body["model"], sink)
            if finish is None:
                raise self._wire.away("a reply broke off")
        except httpx.TransportError as error:
            sink.fail(self._wire.away(f"{type(error).__name__}: {error}"))
        except Exception as error:
            sink.fail(named(error))

    def _chunk(self, row: int, chunk: dict[str, Any], model: str, sink: Sink) -> str | None:
        """Pass on what came; why it was the last, None if it was not. Raises ModelServerError."""
        if "error" in chunk:
            raise self._wire.away(f"it reports {str(chunk['error'])[:500]}")
        if chunk.get("model") != model:
            raise mixed_up(f"asked for {model}, answered by {chunk.get('model')}")
        for choice in chunk["choices"]:
            finish: str | None = choice.get("finish_reason")
            if finish not in (None, "stop", "length"):
                raise self._wire.away(f"a reply ended with {finish}")
            sink.take(row, choice["token_ids"], finish)
            return finish
        return None

    # ---- adapters ---------------------------------------------------------------------------------------------------

    async def _taken(self, version: AdapterVersion | None) -> str:
        """The name under which a version (None: the base) is loaded there, until the request under way is over."""
        name, folder, owner = self._own.blank_name, str(self._own.blank), ""
        if version is not None:
            name = f"{version.user_id}-v{version.number}-{version.manifest_sha256[:12]}"
            folder = str(self._versions.path(version.user_id, version.number).resolve())
            owner = version.user_id
        async with self._changing:
            cards = await self._listed()
            if gone := [loaded for loaded in self._loaded if loaded not in cards]:
                self._wire.lost = True  # it was started anew, perhaps with another base
                for loaded in gone:
                    del self._loaded[loaded]
                cards = await self._listed()
            if name not in cards:
                if version is not None:
                    await asyncio.to_thread(self._versions.check, version)
                self._loaded[name] = owner
                await self._load(name, folder)
                cards = await self._listed()
            card = cards.get(name, {})
            if card.get("root") != folder or card.get("parent") != self._base:
                raise mixed_up(f"{name} should be {folder} on {self._base}, and is listed as {card}")
            self._loaded[name] = owner
            self._loaded.move_to_end(name)
            idle = [other for other in self._loaded if other != name and not self._used[other]]
            for other in idle[: max(0, len(self._loaded) - ROOM)]:
                await self._unload(other)
            self._used[name] += 1
        return name

    async def _load(self, name: str, folder: str) -> None:
        answer = await self._wire.ask(
            "POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}, PATIENCE
        )
        if answer.status_code != 200:
            del self._loaded[name]
            raise self._wire.refused(answer)

    async def _unload(self, name: str) -> None:
        """What cannot be unloaded is harmless: its name is never used again."""
        self._loaded.pop(name, None)
        with suppress(ModelServerError):
            answer = await self._wire.ask("POST", "/v1/unload_lora_adapter", {"lora_name": name}, PATIENCE)
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
        cards = await self._wire.cards()
        base = next((card for card in cards.values() if not card.get("parent")), {})
        if self._wire.lost or (base.get("id"), base.get("root")) != (self._base, self._root):
            async with self._comparing:
                if self._wire.lost or (base.get("id"), base.get("root")) != (self._base, self._root):
                    await self._compare(base)
                    await self._tidy(cards)
            cards = await self._wire.cards()  # the blank adapter was loaded
        return cards

    async def _compare(self, base: Card) -> None:
        """Raises BaseModelError unless the server can write for our base."""
        name, root, files = str(base.get("id")), str(base.get("root")), self._own.files
        if why := await self._own.difference(base, self._wire.post):
            raise BaseModelError(
                f"The model server at {self._wire.url} serves {root}, which cannot write for {files.base_id}: {why}. "
                f"Start it with {files.full} (docs/OPERATING.md has the command), or start Mynah with its base."
            )
        self._base, self._root, self._context = name, root, int(base["max_model_len"])
        self._wire.lost = False
        log.info("the model server at %s serves %s as %s", self._wire.url, root, name)

    async def _tidy(self, cards: dict[str, Card]) -> None:
        """Unload what an earlier run of ours left there, perhaps of people who are gone."""
        ours = self._versions.root.resolve()
        for name, card in cards.items():
            if name not in self._loaded and card.get("parent") and Path(str(card.get("root"))).is_relative_to(ours):
                await self._unload(name)
