"""What happens to every request before and after its route, as plain ASGI.

From the outside in: count it, catch defects, find out whose key it carries, refuse bodies that are too large. Being
plain ASGI, none of it buffers a stream, and a client that leaves is noticed by the route.
"""

from __future__ import annotations

import time

from anyio import to_thread
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.api.errors import answer, nowhere
from assistant.metrics import Traffic
from assistant.mynah import Mynah
from assistant.ui.session import same_origin, session_user
from feedback.errors import InvalidInput, NotSignedIn
from feedback.types import User

MAX_BODY = 4 * 2**20
PRIVATE = ("/v1/", "/metrics/")
ADMINS = ("/v1/admin/", "/metrics/")


class Counted:
    """Counts answers by method and status."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self.app, self.traffic = app, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, begun = 499, time.monotonic()  # 499: the client left before an answer began

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "DELETE") else "other"
            self.traffic.answered(method, status, time.monotonic() - begun)
        return None


class Caught:
    """Turns an exception that no handler knew into a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if scope["type"] != "http":
                raise
            response = answer(error)
            if not started:  # else the connection just ends
                await response(scope, receive, send)


class Limited:
    """Refuses bodies above MAX_BODY, announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        had = int(announced) if announced.isdigit() and int(announced) > MAX_BODY else 0

        async def counted() -> Message:
            nonlocal had
            message = await receive()
            had += len(message.get("body", b""))
            return message if had <= MAX_BODY else {"type": "http.disconnect"}

        async def unless_too_large(message: Message) -> None:
            if had <= MAX_BODY:
                await send(message)

        if had <= MAX_BODY:
            try:
                await self.app(scope, counted, unless_too_large)
            except ClientDisconnect:  # what a route is told that has read too much
                if had <= MAX_BODY:
                    raise
        if had > MAX_BODY:  # what the route said about half a body was not sent
            await answer(InvalidInput(f"The body is larger than {MAX_BODY >> 20} MB; send less."))(scope, receive, send)
        return None


class Identified:
    """Finds the person behind a request to /v1 or /metrics, by key or browser session: scope["state"]["user"].

    Before any route or body is looked at, so that without a key nothing is learned but 401.
    """

    def __init__(self, app: ASGIApp, mynah: Mynah) -> None:
        self.app, self.mynah = app, mynah

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["path"] + "/").startswith(PRIVATE):
            return await self.app(scope, receive, send)
        try:
            user = await to_thread.run_sync(self._user, HTTPConnection(scope))
        except NotSignedIn as error:
            return await answer(error)(scope, receive, send)
        if not user.admin and (scope["path"] + "/").startswith(ADMINS):
            return await answer(nowhere(scope["method"], scope["path"]))(scope, receive, send)
        scope.setdefault("state", {})["user"] = user
        return await self.app(scope, receive, send)

    def _user(self, request: HTTPConnection) -> User:
        """By the key; without one, by the session of Mynah's own pages, which link to downloads here."""
        header = request.headers.get("authorization")
        if header is None and same_origin(request) and (user := session_user(request, self.mynah.accounts)):
            return user
        kind, _, key = (header or "").partition(" ")
        if kind.lower() != "bearer" or not key.strip():
            raise NotSignedIn("There is no API key in this request; send the header “Authorization: Bearer KEY”.")
        return self.mynah.accounts.key_user(key.strip())
