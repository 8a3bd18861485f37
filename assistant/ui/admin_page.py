"""The admin page: people, their versions with export, and what this server runs. Every handler checks the role."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assistant.mynah import Mynah
from assistant.ui.chat_view import side
from assistant.ui.events import admin, panel, pressed, wire
from assistant.ui.render import show
from feedback.errors import NotFound
from feedback.types import AdapterVersion, User


@dataclass(frozen=True)
class Entry:
    """One person in the list. update: the state of the update under way, "" without one."""

    user: User
    labels: int
    active: str
    update: str
    versions: list[AdapterVersion]


@dataclass(frozen=True)
class Password:
    """A password that was made up here, to be shown once."""

    name: str
    password: str


class AdminPage:
    """Layout, wiring and handlers of the page at "/admin"."""

    def __init__(self, mynah: Mynah) -> None:
        self.mynah = mynah

    def build(self, blocks: gr.Blocks) -> None:
        """Fill the page. Called inside the Blocks context."""
        self.side = panel("side")
        with gr.Column(elem_id="main"):
            gr.HTML("<h1>Admin</h1>", elem_id="head", apply_default_css=False)
            self.people = panel("people")
            notice = panel("notice")
        wire(blocks.load, self.open, [], [self.side, self.people, notice])
        wire(self.people.click, self.act, [], [self.people, notice])

    def open(self, request: gr.Request) -> list[Any]:
        """The whole page."""
        user = admin(self.mynah, request)
        return [side(self.mynah, user, "admin"), self._people()]

    def act(self, request: gr.Request, event: gr.EventData) -> str:
        """Add somebody, set a password, remove somebody."""
        admin(self.mynah, request)
        act, name = pressed(event, "act"), pressed(event, "name")
        if act == "add":
            password, secret = self._password(event, name)
            user = self.mynah.accounts.add(name, password, admin=pressed(event, "admin", "") == "yes")
            return self._people(f"{user.name} can sign in now.", secret)
        user = self.mynah.accounts.find(name)
        if act == "password":
            password, secret = self._password(event, name)
            self.mynah.accounts.set_password(user, password)
            return self._people(f"{user.name} has a new password and is signed out everywhere.", secret)
        if act == "remove":
            self.mynah.remove_person(user)
            return self._people(f"{user.name} and all that was theirs is gone.")
        raise NotFound("This page is out of date. Reload it and try again.")

    def _password(self, event: gr.EventData, name: str) -> tuple[str, Password | None]:
        given = pressed(event, "password", "")
        if given:
            return given, None
        made = secrets.token_urlsafe(9)
        return made, Password(name.strip(), made)

    def _people(self, said: str = "", secret: Password | None = None) -> str:
        store, config = self.mynah.store, self.mynah.config
        people = self.mynah.accounts.people()
        names = {user.id: user.name for user in people}
        live = store.versions.live_updates()
        return show(
            "admin.html",
            people=[self._entry(user, {update.user_id: update.state for update in live}) for user in people],
            said=said,
            secret=secret,
            base_id=self.mynah.engine.base_id,
            quantize=config.quantize,
            updates=config.updates,
            labels_per_update=config.labels_per_update,
            jobs=[(names.get(update.user_id, "?"), update.state, update.progress) for update in live],
        )

    def _entry(self, user: User, states: dict[str, Any]) -> Entry:
        active = self.mynah.active(user)
        return Entry(
            user,
            self.mynah.store.acts.label_count(user.id),
            active.name if active else "the base",
            states.get(user.id, ""),
            self.mynah.store.versions.versions(user.id),
        )
