"""Talking to a vLLM server: requests and answers, and in our words what goes wrong with them.

What people are told says what to do; the log says what happened. Left out on purpose: what is asked and why (vllm.py).
"""

from __future__ import annotations

import logging
from typing import Any

import httpx

from feedback.errors import BaseModelError, ModelServerError, MynahError

RETRY_SECONDS = 10
PATIENCE = httpx.Timeout(10.0, read=120.0)  # a token may wait for others' prompts
QUICK = httpx.Timeout(10.0)
KEPT_OPEN = 2.0  # seconds that an idle connection lives: vLLM closes it after five, perhaps just as we use it
Card = dict[str, Any]  # a model as vLLM lists it

log = logging.getLogger("mynah.vllm")


class Wire:
    """The way to one server. lost: it did not answer as it should, or nobody has looked yet; looked at in vllm.py."""

    def __init__(self, url: str) -> None:
        self.url, self.lost = url.rstrip("/"), True
        self.http = httpx.AsyncClient(
            base_url=self.url,
            trust_env=False,  # no proxy stands between
            timeout=QUICK,
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEPT_OPEN),
        )

    async def cards(self) -> dict[str, Card]:
        """What it serves, by name. Raises ModelServerError, and BaseModelError when it is no vLLM."""
        answer = await self.ask("GET", "/v1/models")
        try:
            answer.raise_for_status()
            return {str(card["id"]): card for card in answer.json()["data"]}
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
            if answer.status_code >= 500:
                raise self.away(f"GET /v1/models: {answer.status_code}") from error
            raise BaseModelError(
                f"{self.url} answered {answer.status_code} to GET /v1/models, not as vLLM does; --vllm-url must be "
                "where a vLLM server is."
            ) from error

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The status, and the object that came with it, {} for anything else. Raises ModelServerError."""
        answer = await self.ask("POST", path, body, PATIENCE)
        if answer.status_code >= 500:
            raise self.away(f"POST {path}: {answer.status_code}")
        try:
            found = answer.json()
        except ValueError:
            found = {}
        return answer.status_code, found if isinstance(found, dict) else {}

    async def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout: httpx.Timeout = QUICK
    ) -> httpx.Response:
        """Any answer. Raises ModelServerError when there is none."""
        try:
            return await self.http.request(method, path, json=body, timeout=timeout)
        except httpx.TransportError as error:
            raise self.away(f"{method} {path}: {type(error).__name__}: {error}") from error

    def away(self, what: str) -> ModelServerError:
        """It does not answer, or is about to end; whoever comes next looks anew."""
        self.lost = True
        log.warning("the model server at %s: %s", self.url, what)
        return ModelServerError(
            f"The model server does not answer; chat goes on by itself when it does. Try again in {RETRY_SECONDS} s.",
            retry_after=RETRY_SECONDS,
        )

    def refused(self, answer: httpx.Response) -> ModelServerError:
        """It answered, but does not do what it was asked."""
        self.lost = True
        log.error("the model server at %s: %s %s", self.url, answer.status_code, answer.text[:1000])
        return ModelServerError(
            f"The model server refused what it was asked ({answer.status_code}); Mynah's log says why. "
            f"Try again in {RETRY_SECONDS} s.",
            retry_after=RETRY_SECONDS,
        )


def mixed_up(what: str) -> ModelServerError:
    """It answered for something else than what was asked for."""
    log.error("a reply is not shown: %s", what)
    return ModelServerError(
        "The model server answered with another version than yours, so its reply is not shown. Try again; "
        "if it happens again, tell an admin.",
        retry_after=RETRY_SECONDS,
    )


def other_base(error: BaseModelError) -> ModelServerError:
    """What people who chat are told; the reason is for whoever runs the server."""
    log.error("%s", error.message)
    return ModelServerError(
        "The model server serves another base model than Mynah; an admin finds the reason in the log. "
        f"Try again in {RETRY_SECONDS} s.",
        retry_after=RETRY_SECONDS,
    )


def named(error: Exception) -> MynahError:
    """An error as it goes to who asked."""
    if isinstance(error, BaseModelError):
        return other_base(error)
    if isinstance(error, MynahError):
        return error
    log.error("the model server answered otherwise than vLLM does", exc_info=error)
    return ModelServerError(
        f"The model server gave an answer that Mynah does not understand. Try again in {RETRY_SECONDS} s.",
        retry_after=RETRY_SECONDS,
    )
