"""The page "My assistant": what was learned, the next update and the one under way, versions, and the account."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from assistant.mynah import Mynah
from assistant.profile import TraitView
from assistant.schedule import MIN_LABELS
from assistant.ui.chat_view import side
from assistant.ui.events import panel, person, pressed, wire
from assistant.ui.render import show
from assistant.ui.session import COOKIE
from feedback.errors import InvalidInput, NotFound
from feedback.traits import TRAITS
from feedback.types import LIVE_STATES, Update, User

LOOK_EVERY = 1.5  # seconds between two looks at an update
SHOWN_TRAITS, LEAST_TRAITS = 8, 5
CURVES = {"reward": "objective/scores", "kl": "objective/kl_per_token"}


@dataclass(frozen=True)
class TraitRow:
    """A trait with where its bar and its uncertainty stand, in percent of the scale from -1 to 1."""

    view: TraitView

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        return self.view.name.replace("_", " ").capitalize()

    @property
    def more(self) -> str:
        """The right end of the scale."""
        return TRAITS[self.view.name].more

    @property
    def less(self) -> str:
        """The left end."""
        return TRAITS[self.view.name].less

    @property
    def bar_left(self) -> float:
        """Where the bar begins."""
        return round(50 + 50 * min(self.view.weight, 0.0), 1)

    @property
    def bar_width(self) -> float:
        """How long it is."""
        return round(50 * abs(self.view.weight), 1)

    @property
    def low(self) -> float:
        """Where the uncertainty begins."""
        return round(50 + 50 * max(self.view.weight - self.view.sd, -1.0), 1)

    @property
    def doubt(self) -> float:
        """How wide it is."""
        return round(50 + 50 * min(self.view.weight + self.view.sd, 1.0) - self.low, 1)


class MyAssistantPage:
    """Layout, wiring and handlers of the page at "/my-assistant"."""

    def __init__(self, mynah: Mynah) -> None:
        self.mynah = mynah

    # ---- layout ---------------------------------------------------------------------------------------------------

    def build(self, blocks: gr.Blocks) -> None:
        """Fill the page. Called inside the Blocks context."""
        self.side = panel("side")
        with gr.Column(elem_id="main"):
            gr.HTML("<h1>My assistant</h1>", elem_id="head", apply_default_css=False)
            self.seen = gr.Textbox(visible=False)
            self.taste = panel("taste")
            self.update = panel("update")
            with gr.Row(elem_id="curves", visible=False) as self.curves:
                self.reward = self._plot("reward", "Reward")
                self.kl = self._plot("kl", "KL, nats a token")
            self.versions = panel("versions")
            self.account = panel("account")
            notice = panel("notice")
        training = [self.seen, self.update, self.curves, self.reward, self.kl, self.versions, notice]
        wire(blocks.load, self.open, [], [self.side, self.taste, self.account, *training])
        wire(gr.Timer(LOOK_EVERY).tick, self.look, [self.seen], training)
        wire(self.taste.click, self.correct, [], [self.taste, notice])
        wire(self.update.click, self.train, [], training)
        wire(self.versions.click, self.activate, [], [self.versions, notice])
        wire(self.account.click, self.manage, [], [self.account, notice])

    def _plot(self, name: str, title: str) -> gr.LinePlot:
        return gr.LinePlot(
            curve(None, name),
            x="batch",
            y=name,
            title=title,
            x_title="batch",
            y_title=" ",
            x_axis_labels_visible=True,
            sort=None,
            height=200,
            tooltip="all",
            elem_id=f"plot-{name}",
        )

    # ---- what the page shows --------------------------------------------------------------------------------------

    def open(self, request: gr.Request) -> list[Any]:
        """The whole page."""
        user = person(self.mynah, request)
        return [side(self.mynah, user, "mine"), self._taste(user), self._account(user), *self._training(user)]

    def look(self, request: gr.Request, seen: str) -> list[Any]:
        """What changed about the update since the last look."""
        user = person(self.mynah, request)
        if self._stamp(user) == seen:
            return [gr.skip()] * 6
        return self._training(user)

    def _taste(self, user: User, said: str = "", opened: str = "") -> str:
        views = self.mynah.learning.profile(user)
        sure = [view for view in views if view.corrected or view.leans]
        unsure = [view for view in views if view.evidence and view not in sure]
        lead = [*sure, *unsure[: max(0, LEAST_TRAITS - len(sure))]][:SHOWN_TRAITS]
        known = [view.preference for view in views if view.known and not view.corrected][:3]
        summary = f"Most clearly, you like {_listed(known)}." if known else "It is beginning to see what you like."
        return show(
            "taste.html",
            labels=self.mynah.store.acts.label_count(user.id),
            corrected=any(view.corrected for view in views),
            summary=summary,
            said=said,
            opened=opened,
            shown=[TraitRow(view) for view in lead],
            rest=[TraitRow(view) for view in views if view not in lead],
        )

    def _training(self, user: User) -> list[Any]:
        updates = self.mynah.store.versions.updates(user.id)
        live = next((update for update in updates if update.state in LIVE_STATES), None)
        last = next((update for update in updates if update.state not in LIVE_STATES), None)
        labels = self.mynah.store.acts.label_count(user.id)
        curves = [curve(live or last, name) for name in CURVES]
        has_points = all(len(points) > 1 for points in curves)
        html = show(
            "update.html",
            live=live,
            last=last,
            stage=str(live.metrics.get("stage", "")) if live else "",
            forecast=self.mynah.updates.forecast(user),
            labels=labels,
            least=MIN_LABELS,
            missing=max(0, MIN_LABELS - labels),
            curves=has_points,
        )
        return [self._stamp(user), html, gr.Row(visible=has_points), *curves, self._versions(user)]

    def _stamp(self, user: User) -> str:
        updates = self.mynah.store.versions.updates(user.id)[:1]
        forecast = self.mynah.updates.forecast(user)
        shown = [[u.id, u.state, u.progress, u.metrics.get("stage"), u.version] for u in updates]
        return json.dumps([*shown, forecast.when, self.mynah.store.acts.label_count(user.id)])

    def _versions(self, user: User, said: str = "") -> str:
        active = self.mynah.active(user)
        return show(
            "versions.html",
            versions=list(reversed(self.mynah.store.versions.versions(user.id))),
            active=active.name if active else "base",
            base_id=self.mynah.engine.base_id,
            said=said,
        )

    def _account(self, user: User, *, said: str = "", secret: str = "", receipt: str = "") -> str:
        keys = [] if receipt else self.mynah.accounts.keys(user)
        return show("account.html", user=user, keys=keys, said=said, secret=secret, receipt=receipt)

    # ---- what can be done -----------------------------------------------------------------------------------------

    def correct(self, request: gr.Request, event: gr.EventData) -> str:
        """A slider was moved, or a correction is taken back."""
        user = person(self.mynah, request)
        name = pressed(event, "name")
        weight = float(pressed(event, "value")) if pressed(event, "act") == "correct" else None
        ack = self.mynah.learning.correct(user, name, weight)
        return self._taste(user, ack.changed or "Saved.", name)

    def train(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Start an update, or cancel it."""
        user = person(self.mynah, request)
        if pressed(event, "act") == "cancel":
            self.mynah.updates.cancel(user, pressed(event, "id"))
        else:
            self.mynah.updates.request(user)
        return self._training(user)

    def activate(self, request: gr.Request, event: gr.EventData) -> str:
        """Use another version, or the base."""
        user = person(self.mynah, request)
        name = pressed(event, "version")
        self.mynah.updates.activate(user, name)
        return self._versions(user, f"From the next reply on, {name} answers.")

    def manage(self, request: gr.Request, event: gr.EventData) -> str:
        """Keys, password, deletion."""
        user = person(self.mynah, request)
        act = pressed(event, "act")
        accounts = self.mynah.accounts
        if act == "key":
            _, secret = accounts.create_key(user)
            return self._account(user, secret=secret)
        if act == "revoke":
            accounts.revoke_key(pressed(event, "id"), user)
            return self._account(user, said="The key no longer opens anything.")
        if act == "password":
            accounts.change_password(user, pressed(event, "old"), pressed(event, "new"), keep=request.cookies[COOKIE])
            return self._account(user, said="The password is changed. Other browsers are signed out.")
        if act == "delete-me":
            if pressed(event, "name").strip() != user.name:
                raise InvalidInput(f"Nothing was deleted: type your name, {user.name}, exactly as it stands there.")
            receipt = self.mynah.remove_person(user)
            return self._account(user, receipt=json.dumps(receipt, indent=2, ensure_ascii=False))
        raise NotFound("This page is out of date. Reload it and try again.")


def curve(update: Update | None, name: str) -> pd.DataFrame:
    """One metric of an update over its steps, as the plot takes it."""
    steps = update.metrics.get("steps", []) if update else []
    values = [round(float(step[CURVES[name]]), 4) for step in steps if step.get(CURVES[name]) is not None]
    return pd.DataFrame({"batch": [f"{number + 1:2}" for number in range(len(values))], name: values})


def _listed(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
