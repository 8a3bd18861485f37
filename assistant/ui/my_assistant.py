"""The page "My assistant": what was learned and why, updates, versions side by side, the record, and the account."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from assistant.mynah import Mynah
from assistant.ui.chat_view import side
from assistant.ui.events import in_browser, notice, out_of_date, panel, person, pressed, pressed_number, wire
from assistant.ui.language import joined, say, told
from assistant.ui.mine_view import PARTED, MineView, curve
from assistant.ui.session import COOKIE
from assistant.ui.verdicts import learned
from assistant.ui.words import answers_with
from feedback.errors import InvalidInput
from feedback.types import User

LOOK_EVERY = 1.5  # seconds between two looks at an update
WATCH_EVERY = 0.4  # and between two looks at replies that grow


class MyAssistantPage:
    """Layout, wiring and handlers of the page at "/my-assistant"."""

    def __init__(self, mynah: Mynah) -> None:
        self.mynah = mynah

    # ---- layout ---------------------------------------------------------------------------------------------------

    def build(self, blocks: gr.Blocks) -> None:
        """Fill the page. Called inside the Blocks context."""
        self.side = panel("side")
        with gr.Column(elem_id="main"):
            self.head = panel("head")
            self.seen = gr.Textbox(visible=False)
            self.counted = gr.Textbox(visible=False)  # labels that the taste shown is made of
            self.questions = panel("questions")
            self.taste = panel("taste")
            self.update = panel("update")
            with gr.Row(elem_id="curves", visible=False) as self.curves:
                self.reward = self._plot("reward", in_browser("Reward, batch by batch"))
                self.kl = self._plot("kl", in_browser("KL, nats a token, batch by batch"))
            self.versions = panel("versions")
            self.form = panel("try")
            self.tried = panel("tried")
            self.record = panel("record")
            self.account = panel("account")
            trouble = panel("notice")
        self.clock = gr.Timer(WATCH_EVERY, active=False)
        update = [self.seen, self.update, self.curves, self.reward, self.kl]
        training = [*update, self.versions, self.form, self.record]
        preview = [self.versions, self.tried, self.clock]
        taste = [self.counted, self.taste]
        everything = [*taste, *training, self.tried, self.account, self.questions]
        wire(blocks.load, self.open, [], [self.side, self.head, *everything, self.clock, trouble])
        wire(self.questions.click, self.ask, [], [self.questions, *taste, trouble])
        wire(gr.Timer(LOOK_EVERY).tick, self.look, [self.seen, self.counted], [*taste, *training, trouble])
        wire(self.taste.click, self.correct, [], [*taste, trouble], "multiple")
        wire(self.update.click, self.train, [], [*training, trouble])
        wire(self.versions.click, self.act_on_version, [], [*training, self.tried, self.clock, trouble])
        wire(self.form.click, self.try_two, [], [*preview, trouble])
        wire(self.tried.click, self.stop_preview, [], [*preview, trouble])
        wire(self.clock.tick, self.watch, [], [*preview, trouble])
        wire(self.account.click, self.manage, [], [*everything, trouble])

    def _plot(self, name: str, title: I18nData) -> gr.LinePlot:
        # Gradio translates a plot's title but not what its axes are called.
        return gr.LinePlot(
            curve(None, name),
            x="batch",
            y=name,
            title=title,
            x_title=" ",
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
        head = f"<h1>{say('My assistant')}</h1>"
        going = "questions" in request.query_params
        return [side(self.mynah, user, "mine"), head, *self._everything(user, going=going), self._ticking(user)]

    def look(self, request: gr.Request, seen: str, counted: str) -> list[Any]:
        """What changed since the last look. Versions and the prompt box stay as they are while an update goes on."""
        view = MineView(self.mynah, person(self.mynah, request))
        stamp = view.stamp()
        if stamp == seen:
            return [gr.skip()] * 10
        taste = [gr.skip()] * 2 if counted == str(view.labels) else self._taste(view)  # from another page, or a program
        shown = self._training(view)
        same = stamp.rpartition(PARTED)[2] == seen.rpartition(PARTED)[2]
        return [*taste, *shown[:5], *([gr.skip()] * 3 if same else shown[5:])]

    def _everything(self, user: User, said: str = "", *, going: bool = False) -> list[Any]:
        view = MineView(self.mynah, user)
        account, questions = view.account(said=said), view.questions(going=going)
        return [*self._taste(view), *self._training(view), view.tried(), account, questions]

    @staticmethod
    def _taste(view: MineView, said: str = "", opened: str = "") -> list[Any]:
        return [str(view.labels), view.taste(said, opened)]

    def _training(self, view: MineView) -> list[Any]:
        curves = view.curves()
        shown = gr.Row(visible=all(len(points) > 1 for points in curves))
        return [view.stamp(), view.update(), shown, *curves, view.timeline(), view.try_form(), view.record()]

    def _ticking(self, user: User) -> gr.Timer:
        preview = self.mynah.previews.of(user)
        return gr.Timer(active=preview is not None and not preview.done)

    # ---- what can be done -----------------------------------------------------------------------------------------

    def ask(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """The quick questions: begin, answer one, skip one, or enough of them."""
        user = person(self.mynah, request)
        act, questions = pressed(event, "act"), self.mynah.questions
        if act == "begin":
            return [MineView(self.mynah, user).questions(going=True), *[gr.skip()] * 2]
        if act == "enough":
            thanks = say("Thank you: your next reply is chosen by your answers.")
            said = thanks if self.mynah.learning.has_learned(user) else ""
            return [MineView(self.mynah, user).questions(said), *[gr.skip()] * 2]
        question = pressed(event, "question")
        if act == "pass":
            questions.skip(user, question)
            return [MineView(self.mynah, user).questions(going=True), *[gr.skip()] * 2]
        left, right = (pressed_number(event, side) for side in ("left", "right"))
        ack = questions.answer(user, question, left, right, pressed(event, "pick"))
        view = MineView(self.mynah, user)
        return [view.questions(learned(ack) if ack else "", going=True), *self._taste(view)]

    def correct(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """A slider was moved, a correction is taken back, or a click is."""
        user = person(self.mynah, request)
        name = pressed(event, "name")
        if pressed(event, "act") == "retract":
            ack = self.mynah.learning.retract(user, pressed(event, "id"))
            said = joined(say("The click is taken back."), *map(told, ack.gone), told(ack.moved))
            return self._taste(MineView(self.mynah, user), said, name)
        weight = pressed_number(event, "value") if pressed(event, "act") == "correct" else None
        ack = self.mynah.learning.correct(user, name, weight)
        said = joined(*map(told, ack.gone), told(ack.moved)) or say("Saved.")
        return self._taste(MineView(self.mynah, user), said, name)

    def train(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Start an update, or cancel it."""
        user = person(self.mynah, request)
        if pressed(event, "act") == "cancel":
            self.mynah.updates.cancel(user, pressed(event, "id"))
        else:
            self.mynah.updates.request(user)
        return self._training(MineView(self.mynah, user))

    def act_on_version(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Use another version or the base, or let one write its example."""
        user = person(self.mynah, request)
        name, said = pressed(event, "version"), ""
        if pressed(event, "act") == "example":
            self.mynah.previews.example(user, name)
        else:
            self.mynah.updates.activate(user, name)
            said = say("From the next reply on, {name} answers.", name=answers_with(name))
        view = MineView(self.mynah, user)
        shown = self._training(view)
        return [*shown[:5], view.timeline(said), *shown[6:], gr.skip(), self._ticking(user)]

    def try_two(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Let two versions answer the same prompt."""
        user = person(self.mynah, request)
        self.mynah.previews.begin(user, pressed(event, "prompt"), pressed(event, "left"), pressed(event, "right"))
        return [gr.skip(), MineView(self.mynah, user).tried(), self._ticking(user)]

    def stop_preview(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """End it; what is written stays to be read."""
        user = person(self.mynah, request)
        if preview := self.mynah.previews.of(user):
            preview.stop()
        return [gr.skip()] * 3

    def watch(self, request: gr.Request) -> list[Any]:
        """Replies as they grow; at the end of a version's example, the timeline with it."""
        user = person(self.mynah, request)
        preview, view = self.mynah.previews.of(user), MineView(self.mynah, user)
        if preview is None or not preview.done:
            return [gr.skip(), view.tried(), self._ticking(user)]
        if preview.example_of is not None:
            self.mynah.previews.forget(user.id)
            said = [notice(preview.error)] if preview.error else []
            return [view.timeline(opened=f"v{preview.example_of}"), gr.skip(), gr.Timer(active=False), *said]
        return [gr.skip(), view.tried(), gr.Timer(active=False)]

    def manage(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Keys, password, starting over, deletion."""
        user = person(self.mynah, request)
        act, view = pressed(event, "act"), MineView(self.mynah, user)
        accounts = self.mynah.accounts
        if act == "key":
            return _last(view.account(secret=accounts.create_key(user)[1]))
        if act == "revoke":
            accounts.revoke_key(pressed(event, "id"), user)
            return _last(view.account(said=say("The key no longer opens anything.")))
        if act == "password":
            accounts.change_password(user, pressed(event, "old"), pressed(event, "new"), keep=request.cookies[COOKIE])
            return _last(view.account(said=say("The password is changed. Other browsers are signed out.")))
        if act in ("share", "begin"):
            *shown, _ = self._everything(user, self._agree(user, act, pressed(event, "wanted") == "yes"))
            return [*shown, gr.skip()]
        if act == "reset":
            receipt = self.mynah.reset_person(user)
            said = say(
                "Forgotten: {acts} clicks and corrections, {adapters} versions. Chats stay.",
                acts=receipt["acts"],
                adapters=receipt["adapters"],
            )
            return self._everything(user, said)
        if act == "delete-me":
            if pressed(event, "name").strip() != user.name:
                raise InvalidInput(f"Nothing was deleted: type your name, {user.name}, exactly as it stands there.")
            receipt = self.mynah.remove_person(user)
            return _last(view.account(receipt=json.dumps(receipt, indent=2, ensure_ascii=False)))
        raise out_of_date()

    def _agree(self, user: User, act: str, wanted: bool) -> str:
        """Let the person's clicks count for others, or those of others for them, or not; what to say to it."""
        if act == "share":
            self.mynah.common.share(user, wanted)
            counts = say("From now on your clicks count in what people here have in common.")
            return counts if wanted else say("Your clicks count no longer; what was made of them is gone.")
        self.mynah.common.begin(user, wanted)
        common = say("Your assistant begins with what people here have in common.")
        return common if wanted else say("Your assistant knows nothing but your own clicks.")


def _last(account: str) -> list[Any]:
    """Everything but the account stays as it is."""
    return [*[gr.skip()] * 11, account, gr.skip()]
