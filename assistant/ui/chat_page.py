"""The chat page: write, watch the reply grow, stop it, and say what was good or not.

The open conversation's id lives in the page's address and in a hidden field; every handler checks whose it is.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from assistant.mynah import Mynah
from assistant.ui.chat_view import ChatView, draft_names, thumb_given
from assistant.ui.events import QUIET, notice, panel, person, pressed, wire
from assistant.ui.live import LiveTurns
from assistant.ui.words import wrote
from feedback.errors import InvalidInput, MynahError
from feedback.types import User

LOOK_EVERY = 0.2  # seconds between two looks at a growing reply
ADDRESS_JS = "(id) => { history.replaceState({}, '', id ? '/?c=' + encodeURIComponent(id) : '/'); }"
MODES = [("One reply", 1), ("Compare two", 2), ("Rank four", 4)]


class ChatPage:
    """Layout, wiring and handlers of the page at "/"."""

    def __init__(self, mynah: Mynah) -> None:
        self.mynah = mynah
        self.live = LiveTurns()

    # ---- layout ---------------------------------------------------------------------------------------------------

    def build(self, blocks: gr.Blocks) -> None:
        """Fill the page. Called inside the Blocks context."""
        self.side = panel("side")
        with gr.Column(elem_id="main"):
            self.here = gr.Textbox(visible=False)
            self.thread = panel("thread")
            self.stage = panel("stage")
            with gr.Column(elem_id="composer"):
                with gr.Accordion("About this chat", open=False, elem_id="about") as self.about:
                    self.private = gr.Checkbox(label="Don't learn from this chat", elem_id="private")
                    self.system = gr.Textbox(
                        label="How should it answer in this chat? (optional)",
                        placeholder="For example: Answer as a patient chess teacher.",
                        lines=2,
                        max_lines=6,
                        elem_id="system",
                    )
                with gr.Row(elem_id="write"):
                    self.box = gr.Textbox(
                        show_label=False,
                        label="Message",
                        placeholder="Write to Mynah…",
                        lines=1,
                        max_lines=8,
                        container=False,
                        autofocus=True,
                        elem_id="box",
                    )
                    self.send = gr.Button("Send", variant="primary", elem_id="send", scale=0, min_width=84)
                    self.stop = gr.Button("Stop", elem_id="stop", scale=0, min_width=84, visible=False)
                self.notice = panel("notice")
                self.clock = gr.Timer(LOOK_EVERY, active=False)
                self.mode = gr.Radio(MODES, value=1, show_label=False, label="Replies", container=False, elem_id="mode")
        self._wire(blocks)

    def _wire(self, blocks: gr.Blocks) -> None:
        page = [
            self.here,
            self.side,
            self.thread,
            self.stage,
            self.about,
            self.send,
            self.stop,
            self.clock,
            self.notice,
        ]
        asking = [self.here, self.box, self.mode, self.private, self.system]
        asked = [*page[:-1], self.box, self.private, self.system, self.notice]
        replies = [self.thread, self.stage, self.notice]
        wire(blocks.load, self.open, [], page)
        wire(self.box.submit, self.ask, asking, asked)
        wire(self.send.click, self.ask, asking, asked)
        wire(self.thread.submit, self.write_more, asking, asked)
        wire(self.clock.tick, self.look, [self.here, self.box], [*page[:-1], self.box, self.notice])
        chosen = wire(self.side.click, self.choose_chat, [self.here], page)
        wire(chosen.then, self.reopen, [self.here], page)  # a look at the other chat may have come in last
        wire(self.thread.click, self.act, [self.here], replies)
        wire(self.stage.click, self.decide, [self.here], replies)
        wire(self.stop.click, self.stop_writing, [self.here], [self.notice])
        self.here.change(None, [self.here], [], js=ADDRESS_JS, **QUIET)

    # ---- opening --------------------------------------------------------------------------------------------------

    def open(self, request: gr.Request) -> list[Any]:
        """The page as its address says."""
        user = person(self.mynah, request)
        wanted = str(dict(request.query_params).get("c", ""))
        mine = {conversation.id for conversation in self.mynah.chat.list(user)}
        return self._page(user, wanted if wanted in mine else "")

    def choose_chat(self, request: gr.Request, event: gr.EventData, here: str) -> list[Any]:
        """New chat, open a chat, delete a chat."""
        user = person(self.mynah, request)
        act = pressed(event, "act")
        if act == "open":
            here = pressed(event, "id")
        elif act == "new":
            here = ""
        elif act == "remove":
            self.mynah.chat.remove(user, pressed(event, "id"))
            here = "" if here == pressed(event, "id") else here
        return self._page(user, here)

    def reopen(self, request: gr.Request, here: str) -> list[Any]:
        """The page once more."""
        return self._page(person(self.mynah, request), here)

    def _page(self, user: User, here: str) -> list[Any]:
        """Every output but the notice: the chat as it is kept, and the reply that is being written, if one is."""
        view = ChatView(self.mynah, user, here)
        live = self.live.of(user, here)
        again = live is not None and not live.question
        return [
            here,
            view.side(),
            view.thread(without_last_reply=again),
            view.writing(live) if live else "",
            gr.Accordion(visible=not here),
            gr.Button(visible=live is None),
            gr.Button(visible=live is not None),
            gr.Timer(active=live is not None),
        ]

    # ---- writing --------------------------------------------------------------------------------------------------

    def ask(
        self, request: gr.Request, here: str, text: str, replies: int, private: bool, system: str | None
    ) -> list[Any]:
        """Send a message; in a new chat this opens it."""
        user = person(self.mynah, request)
        if not text.strip():
            raise InvalidInput("There is nothing to send yet: write a message first.")
        if here:
            turn = self.mynah.chat.send(user, here, text, n=int(replies))
        else:
            here = self.mynah.chat.open(user, system=(system or "").strip(), learn=not private).id
            try:
                turn = self.mynah.chat.send(user, here, text, n=int(replies))
            except MynahError:
                self.mynah.chat.remove(user, here)
                raise
        self.live.begin(user, here, turn, text)
        return [*self._page(user, here), "", False, ""]

    def write_more(
        self,
        request: gr.Request,
        event: gr.EventData,
        here: str,
        text: str,
        replies: int,
        private: bool,
        system: str | None,
    ) -> list[Any]:
        """A prompt to try, or another reply to the last message."""
        if pressed(event, "act") == "try":
            return self.ask(request, "", pressed(event, "text"), replies, private, system)
        user = person(self.mynah, request)
        self.live.begin(user, here, self.mynah.chat.again(user, here), "")
        return [*self._page(user, here), text, private, system]

    def look(self, request: gr.Request, here: str, text: str) -> list[Any]:
        """Show the reply as it grows; at its end the thread, or the replies side by side when there are several."""
        user = person(self.mynah, request)
        live = self.live.of(user, here)
        if live is None:
            return [*self._page(user, here), gr.skip()]
        view = ChatView(self.mynah, user, here)
        if not live.done:
            return [*[gr.skip()] * 3, view.writing(live), *[gr.skip()] * 5]
        self.live.seen(user, here, live)
        page = self._page(user, here)
        if live.error is not None:
            return [*page, live.question or text, notice(live.error)]
        if len(live.reply_ids) > 1:
            page[2:4] = [view.thread(without_last_reply=True), view.choice()]
        return [*page, gr.skip()]

    def stop_writing(self, request: gr.Request, here: str) -> None:
        """Let the model stop; what was written stays."""
        live = self.live.of(person(self.mynah, request), here)
        if live is not None:
            live.stop()

    # ---- saying what was good -------------------------------------------------------------------------------------

    def act(self, request: gr.Request, event: gr.EventData, here: str) -> list[Any]:
        """Everything that can be pressed at a reply, except what lets the model write."""
        user = person(self.mynah, request)
        view = ChatView(self.mynah, user, here)
        act = pressed(event, "act")
        if act == "compare":
            return [view.thread(without_last_reply=True), view.choice()]
        reply_id = pressed(event, "reply")
        if act == "show":
            self.mynah.chat.show(user, here, reply_id)
        elif act == "edit":
            self._edit(user, view, reply_id, pressed(event, "text"))
        else:
            self._thumb(user, view, reply_id, act, event)
        return [view.thread(), gr.skip()]

    def _thumb(self, user: User, view: ChatView, reply_id: str, act: str, event: gr.EventData) -> None:
        given = thumb_given(self.mynah, reply_id) if act != "thumb" else {}
        thumb = int(pressed(event, "thumb")) if act == "thumb" else int(given.get("thumb", 0))
        reasons = [str(reason) for reason in given.get("reasons", ())]
        comment = str(given.get("comment", ""))
        if act == "reason":
            reason = pressed(event, "reason")
            reasons = [known for known in reasons if known != reason] if reason in reasons else [*reasons, reason]
        elif act == "comment":
            comment = pressed(event, "comment")
        ack = self.mynah.learning.thumb(user, reply_id, thumb, reasons=reasons, comment=comment)
        view.said[reply_id] = learned(ack.labels, ack.changed) if thumb else "Taken back."

    def _edit(self, user: User, view: ChatView, reply_id: str, text: str) -> None:
        ack = self.mynah.learning.edit(user, reply_id, text)
        last = [message.reply_id for message in self.mynah.chat.history(user, view.here)][-1:]
        if last == [reply_id]:
            self.mynah.chat.show(user, view.here, ack.reply_id)
        view.said[ack.reply_id] = view.said[reply_id] = learned(ack.labels, ack.changed)

    def decide(self, request: gr.Request, event: gr.EventData, here: str) -> list[Any]:
        """The verdict on replies side by side: a vote, an order, or later."""
        user = person(self.mynah, request)
        view = ChatView(self.mynah, user, here)
        act = pressed(event, "act")
        if act == "skip":
            return [view.thread(), ""]
        order = pressed(event, "order").split(",")
        pick = pressed(event, "pick", "")
        tiers = placed(order, event) if act == "rank" else voted(order, pick)
        ack = self.mynah.learning.rank(user, tiers, verdict="neither" if pick == "neither" else None)
        best = tiers[0][0]
        self.mynah.chat.show(user, here, best)
        view.said[best] = f"{self._told_apart(user, order)} {learned(ack.labels, ack.changed)}"
        return [view.thread(), ""]

    def _told_apart(self, user: User, order: list[str]) -> str:
        writers = [wrote(reply.arm, reply.version)[0] for reply in self.mynah.store.chats.replies(user.id, order)]
        return " · ".join(f"{name}: {by}" for name, by in zip(draft_names(len(order)), writers, strict=True)) + "."


def voted(order: list[str], pick: str) -> list[list[str]]:
    """A vote between replies as tiers, best first."""
    if pick in ("tie", "neither"):
        return [order]
    return [order[:1], order[1:]] if pick == "left" else [order[1:], order[:1]]


def placed(order: list[str], event: gr.EventData) -> list[list[str]]:
    """Places given to replies ("1" is best; equal ones share a tier) as tiers, best first."""
    places = {reply_id: pressed(event, reply_id, "") for reply_id in order}
    chosen = sorted({place for place in places.values() if place})
    tiers = [[reply_id for reply_id in order if places[reply_id] == place] for place in chosen]
    if sum(len(tier) for tier in tiers) < 2:
        raise InvalidInput("Give at least two of the replies a place, then save the order.")
    return tiers


def learned(labels: int, changed: str) -> str:
    """The quiet line after a click."""
    return f"Learned from {labels} click{'s' * (labels != 1)}. {changed}".strip()
