"""The sign-in and sign-up pages over HTTP, without the model: who gets an account, and what is said to who does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from assistant.accounts import Accounts
from assistant.config import Config
from assistant.joining import PER_ADDRESS, Joining
from assistant.mynah import Mynah
from assistant.settings import Settings
from assistant.ui.session import COOKIE
from assistant.ui.sign_in import routes
from feedback.store import Store

PASSWORD = "a long enough password"


@dataclass
class Door:
    """The services that these pages use."""

    config: Config
    accounts: Accounts
    settings: Settings
    joining: Joining


@pytest.fixture
def door(store: Store) -> Door:
    config = Config.build({}, {})
    accounts, settings = Accounts(store), Settings(store, config)
    return Door(config, accounts, settings, Joining(store, accounts, settings))


@pytest.fixture
def browser(door: Door) -> Callable[[], TestClient]:
    """Opens browsers, each with its own cookies."""
    app = FastAPI()
    app.include_router(routes(cast(Mynah, door)))
    return lambda: TestClient(app, follow_redirects=False)


def typed(**changes: str) -> dict[str, Any]:
    """A form as somebody fills it in."""
    return {"data": {"name": "Ada", "password": PASSWORD, **changes}}


def said(text: str) -> str:
    """What a page says went wrong."""
    found = re.search(r'role="alert">([^<]*)<', text)
    return found[1] if found else ""


def test_an_invitation_makes_one_account_and_signs_in(door: Door, browser: Callable[[], TestClient]) -> None:
    root = door.accounts.add("Root", PASSWORD, admin=True)
    _, token = door.joining.invite(root)
    ada = browser()
    page = ada.get(f"/sign-up?invitation={token}")
    assert page.status_code == 200 and "You are invited" in page.text and token in page.text
    assert page.headers["cache-control"] == "no-store"
    short = ada.post("/sign-up", **typed(password="short", invitation=token))
    assert short.status_code == 400 and "needs 8 to 1024" in said(short.text) and token in short.text
    joined = ada.post("/sign-up", **typed(invitation=token))
    assert (joined.status_code, joined.headers["location"]) == (303, "/")
    user = door.accounts.session_user(ada.cookies[COOKIE])
    assert user is not None and user.name == "Ada" and not user.admin
    assert ada.get("/sign-up").headers["location"] == "/"
    for answer in (
        browser().get(f"/sign-up?invitation={token}"),
        browser().post("/sign-up", **typed(name="Eve", invitation=token)),
    ):
        assert answer.status_code == 404 and "was used already" in said(answer.text)
        assert "Make my account" not in answer.text
    assert browser().post("/sign-in", **typed()).status_code == 303


def test_the_form_is_there_only_where_sign_up_is_open(door: Door, browser: Callable[[], TestClient]) -> None:
    assert "Make an account" not in browser().get("/sign-in").text
    closed = browser().post("/sign-up", **typed())
    assert closed.status_code == 404 and "without an invitation" in said(closed.text)
    assert browser().get("/sign-up").status_code == 404
    door.settings.set("sign_up", "open")
    assert "Make an account" in browser().get("/sign-in").text
    assert browser().post("/sign-up", **typed()).status_code == 303
    taken = browser().post("/sign-up", **typed(name="ADA"))
    assert taken.status_code == 409 and "already" in said(taken.text) and 'value="ADA"' in taken.text
    door.settings.set("sign_up", "invitation")
    assert browser().post("/sign-up", **typed(name="Bo")).status_code == 404


def test_too_many_attempts_and_too_long_forms_are_refused(door: Door, browser: Callable[[], TestClient]) -> None:
    for _ in range(PER_ADDRESS):
        assert browser().post("/sign-up", **typed()).status_code == 404
    assert browser().post("/sign-up", **typed()).status_code == 429
    assert browser().post("/sign-up", **typed(name="x" * 20_000)).status_code == 413
    assert browser().post("/sign-in", **typed(name="x" * 20_000)).status_code == 413
