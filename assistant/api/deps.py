"""What routes ask for: the services, who calls, and the checks that many of them share."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict

from assistant.api.errors import nowhere
from assistant.metrics import Traffic
from assistant.mynah import Mynah
from feedback.types import User


class Strict(BaseModel):
    """A body that takes no field it does not know: a misspelt one must not be dropped in silence."""

    model_config = ConfigDict(extra="forbid")


def _mynah(request: Request) -> Mynah:
    return cast(Mynah, request.app.state.mynah)


def _traffic(request: Request) -> Traffic:
    return cast(Traffic, request.app.state.traffic)


def _caller(request: Request) -> User:
    return cast(User, request.state.user)


def _admin(request: Request) -> User:
    """For anybody else the route does not exist: middleware.py says so before the body is looked at."""
    user = _caller(request)
    if not user.admin:
        raise nowhere(request.method, request.scope["path"])
    return user


Served = Annotated[Mynah, Depends(_mynah)]
Counts = Annotated[Traffic, Depends(_traffic)]
Caller = Annotated[User, Depends(_caller)]
Admin = Annotated[User, Depends(_admin)]
