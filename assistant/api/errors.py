"""Errors as HTTP answers, in OpenAI's shape: {"error": {"message", "type", "code", "param"}}.

Every named failure has one status; everything else is a defect: logged with a number, answered 500 with that number,
and nothing of the inside.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from feedback.errors import (
    AdapterRefused,
    BaseModelError,
    Busy,
    Conflict,
    CorruptFile,
    ExportFailed,
    InvalidInput,
    ModelServerError,
    MynahError,
    NotFound,
    NotSaved,
    NotSignedIn,
    NotSupported,
    OverQuota,
    TooFewLabels,
)

STATUS: dict[type[MynahError], int] = {
    AdapterRefused: 400,
    InvalidInput: 400,
    NotSignedIn: 401,
    NotFound: 404,
    Conflict: 409,
    TooFewLabels: 422,
    Busy: 429,
    OverQuota: 429,
    NotSupported: 501,
    BaseModelError: 503,
    CorruptFile: 503,
    ExportFailed: 503,
    ModelServerError: 503,
    NotSaved: 507,
}
_TYPES = {401: "authentication_error", 404: "not_found_error", 409: "conflict_error", 429: "rate_limit_error"}

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """What went wrong, for a person and for a program."""

    message: str
    type: str
    code: str | None
    param: str | None


class Failure(BaseModel):
    """The body of every answer that is an error."""

    error: Problem


def error_body(message: str, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def describe(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers that answer an exception; one without a name is logged here."""
    if isinstance(error, UnicodeEncodeError):
        error = InvalidInput("The request holds half a character (a lone surrogate); send whole Unicode text.")
    if isinstance(error, MynahError):
        status = STATUS.get(type(error), 500)
        body = error_body(error.message, status, error.code, error.param)
        headers = {}
        if isinstance(error, TooFewLabels):
            body["error"]["needed"] = error.needed
        if isinstance(error, Busy):
            headers["Retry-After"] = str(error.retry_after)
        if isinstance(error, NotSignedIn):
            headers["WWW-Authenticate"] = "Bearer"
        return status, body, headers
    number = secrets.token_hex(4)
    log.error("Defect %s", number, exc_info=error)
    message = (
        f"Something went wrong inside Mynah; nothing was changed by this request. The server's log has it as {number}."
    )
    return 500, error_body(message, 500, "internal_error"), {}


def answer(error: Exception) -> JSONResponse:
    """The response to an exception."""
    status, body, headers = describe(error)
    return JSONResponse(body, status, headers)


def nowhere(method: str, path: str) -> NotFound:
    """What is said where nothing is, and where nothing is for this person."""
    return NotFound(f"There is no {method} {path[:200]}; GET /v1/openapi.json lists what there is.")


def install(app: FastAPI) -> None:
    """Let every error of an app come out in this shape."""

    @app.exception_handler(MynahError)
    def named(request: Request, error: MynahError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        message, param = explain(error.errors())
        return answer(InvalidInput(message, param=param))

    @app.exception_handler(HTTPException)
    def routed(request: Request, error: HTTPException) -> JSONResponse:
        what = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
        message = f"{what}. GET /v1/openapi.json lists what there is."
        code = "not_found" if error.status_code == 404 else None
        return JSONResponse(error_body(message, error.status_code, code), error.status_code, error.headers)


def explain(errors: Sequence[Any]) -> tuple[str, str | None]:
    """The first complaint about a body as a sentence, and the field it is about."""
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return f"The body is no valid JSON ({reason}); send one JSON value in UTF-8.", None
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path")) or None
    got = repr(first.get("input"))
    got = got if len(got) <= 80 else f"{got[:77]}…"
    if param is None:
        return f"The body is {got}; it must be a JSON object sent as application/json.", None
    if first["type"] == "missing":
        return f"{param} is missing.", param
    if first["type"] == "extra_forbidden":
        return f"{param} is not a field of this request.", param
    words = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{param} is {got}; it {words}.", param
