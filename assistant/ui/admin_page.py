"""The admin page: people, settings, what runs and what it takes, and the audit log. Every handler checks the role."""

from __future__ import annotations

import json
import secrets
from typing import Any

import gradio as gr

from assistant.administration import CANCELLED
from assistant.mynah import Mynah
from assistant.ui.admin_view import SHOWN_ENTRIES, AdminView, Secret
from assistant.ui.chat_view import side
from assistant.ui.events import admin, out_of_date, panel, pressed, pressed_number, wire
from assistant.ui.language import say
from feedback.errors import InvalidInput

LOOK_EVERY = 4.0  # seconds between two looks at what runs
MOST_ENTRIES = 5000  # of the audit log, on the page


class AdminPage:
    """Layout, wiring and handlers of the page at "/admin"."""

    def __init__(self, mynah: Mynah) -> None:
        self.mynah = mynah

    def build(self, blocks: gr.Blocks) -> None:
        """Fill the page. Called inside the Blocks context."""
        self.side = panel("side")
        with gr.Column(elem_id="main"):
            self.head = panel("head")
            self.people = panel("people")
            self.settings = panel("settings")
            self.server = panel("server")
            self.record = panel("record")
            self.audit = panel("audit")
            self.seen = gr.Textbox(visible=False)
            notice = panel("notice")
        everything = [self.side, self.people, self.settings, self.server, self.record, self.audit]
        wire(blocks.load, self.open, [], [self.head, *everything, notice])
        wire(gr.Timer(LOOK_EVERY).tick, self.look, [self.seen], [self.seen, self.server, notice])
        wire(self.people.click, self.act, [], [self.people, self.audit, notice])
        wire(self.settings.click, self.set, [], [self.settings, self.people, self.audit, notice])
        wire(self.server.click, self.cancel, [], [self.server, self.audit, notice])
        wire(self.audit.click, self.older, [], [self.audit, notice])

    def open(self, request: gr.Request) -> list[Any]:
        """The whole page."""
        user = admin(self.mynah, request)
        view = AdminView(self.mynah, user)
        shown = [view.people(), view.settings(), view.server(), view.record(), view.log()]
        return [f"<h1>{say('Admin')}</h1>", side(self.mynah, user, "admin"), *shown]

    def look(self, request: gr.Request, seen: str) -> list[Any]:
        """What runs now, if that is something else than at the last look."""
        view = AdminView(self.mynah, admin(self.mynah, request))
        jobs = json.dumps([[job.id, job.state, job.progress] for job in view.jobs()])
        return [gr.skip(), gr.skip()] if jobs == seen else [jobs, view.server()]

    def act(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Add, invite, set a password, disable, enable, remove."""
        me = admin(self.mynah, request)
        act, admins, view = pressed(event, "act"), self.mynah.admins, AdminView(self.mynah, me)
        said, secret = "", None
        if act == "invite":
            _, token = self.mynah.joining.invite(me, pressed(event, "note", ""))
            words = say("The invitation. It works once, for seven days, and is shown this once.")
            secret = Secret(words, self._link(request, token))
        elif act == "withdraw":
            self.mynah.joining.withdraw(me, pressed(event, "id"))
            said = say("The invitation opens nothing any more.")
        elif act == "add":
            name = pressed(event, "name")
            password, secret = _password(event, name)
            user = admins.add(me.id, name, password, admin=pressed(event, "admin", "") == "yes")
            said = say("{name} can sign in now.", name=user.name)
        else:
            said, secret = self._act_on(me.id, act, event)
        return [view.people(said, secret), view.log()]

    def _act_on(self, me: str, act: str, event: gr.EventData) -> tuple[str, Secret | None]:
        """What is done to somebody who is there: what to say, and what to show once."""
        admins, user = self.mynah.admins, self.mynah.accounts.find(pressed(event, "name"))
        if act == "password":
            password, secret = _password(event, user.name)
            admins.set_password(me, user, password)
            return say("{name} has a new password and is signed out everywhere.", name=user.name), secret
        if act == "disable":
            if user.id == me:
                raise InvalidInput("You cannot disable yourself; another admin can.")
            admins.disable(me, user)
            words = say(
                "{name} is signed out everywhere and cannot sign in; no API key of theirs is valid.", name=user.name
            )
            return words, None
        if act == "enable":
            admins.enable(me, user)
            return say("{name} can sign in again.", name=user.name), None
        if act == "remove":
            receipt = self.mynah.remove_person(user, me)
            gone = say(
                "{name} and all that was theirs is gone: {chats} chats, {clicks} clicks, {versions} versions.",
                name=user.name,
                chats=receipt["rows"]["conversations"],
                clicks=receipt["rows"]["feedback"],
                versions=receipt["adapters"],
            )
            return gone, None
        raise out_of_date()

    def set(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Change a setting."""
        me = admin(self.mynah, request)
        self.mynah.admins.set(me.id, self.mynah.settings, pressed(event, "name"), pressed(event, "value"))
        view = AdminView(self.mynah, me)
        return [view.settings(say("Saved. It counts from now on.")), view.people(), view.log()]

    def cancel(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """End somebody's update."""
        me = admin(self.mynah, request)
        user = self.mynah.store.people.get(pressed(event, "user"))
        self.mynah.updates.cancel(user, pressed(event, "id"), CANCELLED)
        self.mynah.admins.note(me.id, "cancelled an update of", user)
        view = AdminView(self.mynah, me)
        return [view.server(), view.log()]

    def older(self, request: gr.Request, event: gr.EventData) -> str:
        """More of the audit log."""
        view = AdminView(self.mynah, admin(self.mynah, request))
        wanted = min(pressed_number(event, "entries"), MOST_ENTRIES)
        return view.log(int(wanted) if wanted > SHOWN_ENTRIES else SHOWN_ENTRIES)

    def _link(self, request: gr.Request, token: str) -> str:
        """An invitation's address, as this admin reaches the server."""
        scheme = request.headers.get("x-forwarded-proto", request.request.url.scheme if request.request else "http")
        return f"{scheme}://{request.headers['host']}/sign-up?invitation={token}"


def _password(event: gr.EventData, name: str) -> tuple[str, Secret | None]:
    """The password that was typed, or a new one and its one showing."""
    if given := pressed(event, "password", ""):
        return given, None
    made = secrets.token_urlsafe(9)
    words = say("The password for {name}. It is shown this once: hand it over now.", name=name.strip())
    return made, Secret(words, made)
