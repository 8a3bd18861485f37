"""Signing in, out and up: plain server-rendered pages that work without JavaScript."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from assistant.mynah import Mynah
from assistant.ui.language import told
from assistant.ui.render import show, static
from assistant.ui.session import COOKIE, session_user
from feedback.errors import Busy, Conflict, InvalidInput, MynahError, NotFound, NotSignedIn

MAX_FORM_BYTES = 16_384
_STATUS: dict[type[MynahError], int] = {InvalidInput: 400, NotSignedIn: 401, NotFound: 404, Conflict: 409, Busy: 429}


def routes(mynah: Mynah) -> APIRouter:
    """GET and POST /sign-in and /sign-up, POST /sign-out. The guard has checked the Origin of what is posted."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sign-in")
    def form(request: Request) -> Response:
        if session_user(request, mynah.accounts):
            return RedirectResponse("/", 303)
        return page()

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        fields = await _fields(request)
        if fields is None:
            return page("That is too long for a name and a password.", status=413)
        name, password = fields["name"], fields["password"]
        try:
            token = await run_in_threadpool(mynah.accounts.sign_in, name, password, _address(request))
        except MynahError as error:
            return _told(error, page(error.message, name=name, status=_STATUS.get(type(error), 500)))
        return signed_in(request, token)

    @router.get("/sign-up")
    def sign_up_form(request: Request, invitation: str = "") -> Response:
        """For whoever has an invitation, and for everybody where sign-up is open."""
        if session_user(request, mynah.accounts):
            return RedirectResponse("/", 303)
        try:
            mynah.joining.check(invitation)
        except NotFound as error:
            return page(error.message, status=404)
        return page(invitation=invitation, joining=True)

    @router.post("/sign-up")
    async def sign_up(request: Request) -> Response:
        fields = await _fields(request)
        if fields is None:
            return page("That is too long for a name and a password.", status=413)
        name, invitation = fields["name"], fields["invitation"]
        try:
            token = await run_in_threadpool(mynah.joining.join, name, fields["password"], _address(request), invitation)
        except MynahError as error:
            status = _STATUS.get(type(error), 500)
            joining = status != 404
            shown = page(error.message, name=name, invitation=invitation, joining=joining, status=status)
            return _told(error, shown)
        return signed_in(request, token)

    @router.post("/sign-out")
    def sign_out(request: Request) -> Response:
        if token := request.cookies.get(COOKIE):
            mynah.accounts.sign_out(token)
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE)
        return answer

    def signed_in(request: Request, token: str) -> Response:
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

    def page(
        error: str = "", *, name: str = "", invitation: str = "", joining: bool = False, status: int = 200
    ) -> HTMLResponse:
        """The sign-in page. joining: the form for a new account stands open, and alone for somebody invited."""
        html = show(
            "sign_in.html",
            error=told(error),
            name=name,
            invitation=invitation,
            joining=joining,
            open=mynah.settings.open_to_all,
            styles=static("tokens.css") + static("sign_in.css"),
        )
        return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})

    return router


async def _fields(request: Request) -> dict[str, str] | None:
    """What was typed; None when it is too long for a form of ours."""
    if len(await request.body()) > MAX_FORM_BYTES:  # counted, since not every client says how much it sends
        return None
    typed = await request.form(max_files=0, max_fields=4)
    return {name: str(typed.get(name, "")) for name in ("name", "password", "invitation")}


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _told(error: MynahError, answer: Response) -> Response:
    """The answer, saying to programs too when to come again."""
    if isinstance(error, Busy):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer
