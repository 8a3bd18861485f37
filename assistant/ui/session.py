"""Who is at the browser: the session cookie, where a request comes from, and the guard in front of every page.

Gradio serves far more than Mynah needs (file reading, uploads, proxies, a run history, an API console). The guard lets
through a short list of its paths and nothing else, only with a session, and only from Mynah's own pages; it also puts
security headers on every answer and chooses the language of what is said. Handlers still look the person up
themselves: the guard is not the only wall.

Left out on purpose: tokens in URLs, "remember me", and Gradio's own `auth=` (no lockout, tokens kept in memory).
"""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.api.errors import answer, nowhere
from assistant.ui.language import language, say, spoken
from feedback.types import User

COOKIE = "mynah_session"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

# The guard leaves these to the routes that own them: the HTTP API has its own authentication.
NOT_OURS = re.compile(r"/(v1|healthz|metrics)(/|$)")
OPEN = re.compile(r"/(sign-(in|out|up)|(assets|static|svelte)/.+|theme\.css|favicon\.ico|robots\.txt)")
APP = re.compile(r"/(manifest\.json|worker\.js|icons/[\w-]+\.png)")  # the same for everybody: assistant/ui/install.py
PAGES = re.compile(r"/(my-assistant|admin)?/?")
PARTS = re.compile(r"/search|/conversations/c_\w+\.(md|json)")
GRADIO = re.compile(r"/config/?|/gradio_api/(run/[^/]+|heartbeat/.+|app_id|login_check|startup-events|theme\.css)/?")

# Gradio compiles its templates in the browser, hence unsafe-eval; nothing may be loaded from or sent to elsewhere, so a
# reply that names a remote image cannot carry the conversation away.
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'; object-src 'none'; manifest-src 'self'; worker-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-DNS-Prefetch-Control": "off",  # else a linked host is looked up, and so told something, before any click
}
# An answer of the HTTP API is data: opened in a browser, it runs and loads nothing, and no cache keeps it.
DATA_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
NOTHING = (
    '<!doctype html><html lang="{}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>{} · Mynah</title><body style='font: 17px/1.6 system-ui; max-width: 32em; margin: 20vh auto; "
    "padding: 0 1em; color-scheme: light dark'><h1>{}</h1><p>{} <a href='/'>{}</a></p>"
)


class Sessions(Protocol):
    """The part of `Accounts` that is needed to tell who is there."""

    def session_user(self, token: str) -> User | None:
        """The person a session belongs to, None when it ended."""


def same_origin(request: HTTPConnection) -> bool:
    """Whether a request was made by one of Mynah's own pages, as far as the browser tells.

    Reads that say nothing about their origin count as ours (a typed address, a program); changes that say nothing do
    not: every browser names the origin of a POST.
    """
    host = request.headers.get("host", "")
    for header in ("origin", "referer"):
        if value := request.headers.get(header):
            return _host_of(value) == host != ""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    return request.scope.get("method") in SAFE_METHODS


def _host_of(address: str) -> str:
    """Host and port of an address; "" where there are none: of "null", or of what is no address."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def session_user(request: HTTPConnection, accounts: Sessions) -> User | None:
    """The person signed in at this browser, if any."""
    token = request.cookies.get(COOKIE)
    return accounts.session_user(token) if token else None


class Guard:
    """ASGI middleware in front of the pages; see the module's text."""

    def __init__(self, app: ASGIApp, accounts: Sessions) -> None:
        self.app = app
        self.accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may not pass; hand the rest on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        data = NOT_OURS.match(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(DATA_HEADERS if data else HEADERS)
            await send(message)

        request = HTTPConnection(scope)
        with spoken(request.headers.get("accept-language", "")):
            refusal = None if data else self._refusal(request)
            await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        path = request.scope["path"]
        if request.scope["method"] not in SAFE_METHODS and not same_origin(request):
            return JSONResponse({"error": say("This request came from another site; use Mynah's own pages.")}, 403)
        if OPEN.fullmatch(path) or APP.fullmatch(path):
            return None
        if not any(ours.fullmatch(path) for ours in (PAGES, PARTS, GRADIO)):
            return _nothing(request)
        user = session_user(request, self.accounts)
        if user is None:
            if PAGES.fullmatch(path):
                return RedirectResponse("/sign-in", 303)
            return JSONResponse({"error": say("Your session has ended. Sign in again.")}, 401)
        if path.rstrip("/") == "/admin" and not user.admin:
            return _nothing(request)
        return None


def _nothing(request: HTTPConnection) -> Response:
    """The answer where nothing is, or nothing for this person: the two are never told apart."""
    if "text/html" in request.headers.get("accept", ""):
        heading, why = say("There is nothing here"), say("The address may be mistyped, or what was here is gone.")
        page = NOTHING.format(language(), say("Nothing here"), heading, why, say("Go to your chats."))
        return HTMLResponse(page, 404)
    return answer(nowhere(request.scope["method"], request.scope["path"]))
