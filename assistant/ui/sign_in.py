"""Signing in and out: two plain server-rendered pages that work without JavaScript."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from assistant.mynah import Mynah
from assistant.ui.render import show, static
from assistant.ui.session import COOKIE, session_user
from feedback.errors import Busy, MynahError

MAX_FORM_BYTES = 16_384


def routes(mynah: Mynah) -> APIRouter:
    """GET and POST /sign-in, POST /sign-out. The guard has checked the Origin of what is posted."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sign-in")
    def form(request: Request) -> Response:
        if session_user(request, mynah.accounts):
            return RedirectResponse("/", 303)
        return _page()

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        if int(request.headers.get("content-length") or 0) > MAX_FORM_BYTES:
            return _page("That is too long for a name and a password.", status=413)
        fields = await request.form(max_files=0, max_fields=4)
        name, password = str(fields.get("name", "")), str(fields.get("password", ""))
        try:
            token = await run_in_threadpool(mynah.accounts.sign_in, name, password)
        except MynahError as error:
            return _page(error.message, name=name, status=429 if isinstance(error, Busy) else 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            token,
            max_age=mynah.config.session_days * 86_400,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    @router.post("/sign-out")
    def sign_out(request: Request) -> Response:
        if token := request.cookies.get(COOKIE):
            mynah.accounts.sign_out(token)
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE)
        return answer

    return router


def _page(error: str = "", *, name: str = "", status: int = 200) -> HTMLResponse:
    styles = static("tokens.css") + static("sign_in.css")
    return HTMLResponse(
        show("sign_in.html", error=error, name=name, styles=styles),
        status_code=status,
        headers={"Cache-Control": "no-store"},
    )
