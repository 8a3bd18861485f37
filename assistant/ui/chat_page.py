"""The chat page: write, watch the reply grow, stop it, and say what was good or not.

The open conversation's id lives in the page's address and in a hidden field; every handler checks whose it is.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import gradio as gr

from assistant.mynah import Mynah
from assistant.ui.chat_view import ChatView, draft_names, thumb_given
from assistant.ui.events import QUIET, in_browser, notice, panel, person, pressed, wire
from assistant.ui.language import joined, say, told
from assistant.ui.live import LiveTurns
from assistant.ui.verdicts import learned, placed, voted
from assistant.ui.words import wrote
from feedback.errors import Conflict, InvalidInput, MynahError, NotFound
from feedback.types import User

THUMBS = {"1": 1, "-1": -1, "0": 0}
LOOK_EVERY = 0.2  # seconds between two looks at a growing reply
ADDRESS_JS = "(id) => { history.replaceState({}, '', id ? '/?c=' + encodeURIComponent(id) : '/'); }"
FOCUS_JS = """() => requestAnimationFrame(() => {
  if (document.activeElement === document.body) document.querySelector('#box textarea')?.focus();
})"""
MODES = [(in_browser("One reply"), 1), (in_browser("Compare two"), 2), (in_browser("Rank four"), 4)]


class ChatPage:
    """Layout, wiring and handlers of the page at "/"."""

    def __init__(self, mynah: Mynah) -> None:
        self.mynah = mynah
        self.live = LiveTurns()
        self._all_listed: set[str] = set()  # people who want to see all their chats, not the newest only

    # ---- layout ---------------------------------------------------------------------------------------------------

    def build(self, blocks: gr.Blocks) -> None:
        """Fill the page. Called inside the Blocks context."""
        self.side = panel("side")
        with gr.Column(elem_id="main"):
            self.here = gr.Textbox(visible=False)
            self.thread = panel("thread")
            self.stage = panel("stage")
            with gr.Column(elem_id="composer"):
                with gr.Accordion(in_browser("About this chat"), open=False, elem_id="about"):
                    self.private = gr.Checkbox(label=in_browser("Don't learn from this chat"), elem_id="private")
                    self.system = gr.Textbox(
                        label=in_browser("How should it answer in this chat? (optional)"),
                        placeholder=in_browser("For example: Answer as a patient chess teacher."),
                        lines=2,
                        max_lines=6,
                        elem_id="system",
                    )
                    self.asks = gr.Checkbox(
                        label=in_browser(
                            "Now and then, let Mynah ask me which of two replies is better (in all chats)"
                        ),
                        elem_id="asks",
                    )
                with gr.Row(elem_id="write"):
                    self.box = gr.Textbox(
                        show_label=False,
                        label=in_browser("Message"),
                        placeholder=in_browser("Write to Mynah…"),
                        lines=1,
                        max_lines=8,
                        container=False,
                        interactive=False,
                        elem_id="box",
                    )
                    self.send = gr.Button(in_browser("Send"), variant="primary", elem_id="send", scale=0, min_width=84)
                    self.stop = gr.Button(in_browser("Stop"), elem_id="stop", scale=0, min_width=84, visible=False)
                self.notice = panel("notice")
                self.clock = gr.Timer(LOOK_EVERY, active=False)
                self.mode = gr.Radio(
                    MODES, value=1, show_label=False, label=in_browser("Replies"), container=False, elem_id="mode"
                )
        self._wire(blocks)

    def _wire(self, blocks: gr.Blocks) -> None:
        about = [self.private, self.system, self.asks]
        page = [self.here, self.side, self.thread, self.stage, self.send, self.stop, self.clock, *about, self.notice]
        asking = [self.here, self.box, self.mode, self.private, self.system]
        asked = [*page[:-1], self.box, self.notice]
        replies = [self.thread, self.stage, self.asks, self.notice]
        opened = wire(blocks.load, self.open, [], asked)
        opened.then(None, [], [], js=FOCUS_JS, **QUIET)
        wire(partial(gr.on, [self.box.submit, self.send.click]), self.ask, asking, asked)
        wire(self.thread.submit, self.write_more, asking, asked)
        wire(self.clock.tick, self.look, [self.here, self.box], asked)
        chosen = wire(self.side.click, self.choose_chat, [self.here], page)
        wire(chosen.then, self.reopen, [self.here], page)  # a look at the other chat may have come in last
        wire(self.side.submit, self.tidy, [self.here], page)
        wire(self.thread.click, self.act, [self.here], replies, "multiple")
        wire(self.stage.click, self.decide, [self.here], replies)
        wire(self.stop.click, self.stop_writing, [self.here], [self.notice])
        wire(
            self.private.input,
            self.set_private,
            [self.here, self.private],
            [self.side, self.thread, self.stage, *about[:1], self.notice],
            "always_last",
        )
        wire(self.system.blur, self.set_system, [self.here, self.system], [self.notice])
        wire(self.asks.input, self.set_asks, [self.asks], [self.notice], "always_last")
        self.here.change(None, [self.here], [], js=ADDRESS_JS, **QUIET)

    # ---- opening --------------------------------------------------------------------------------------------------

    def open(self, request: gr.Request) -> list[Any]:
        """The page as its address says: a chat (c), perhaps at a message (m) that was found.

        Until then the box takes no message: this answer, coming after one that was sent early, would put the page back.
        """
        user = person(self.mynah, request)
        query = dict(request.query_params)
        here, message = str(query.get("c", "")), str(query.get("m", ""))
        try:
            if here:
                self._turn_to(user, here, message)
        except NotFound:
            here = ""
        return [*self._page(user, here, about=True), gr.Textbox(interactive=True)]

    def choose_chat(self, request: gr.Request, event: gr.EventData, here: str) -> list[Any]:
        """New chat, or open one."""
        user = person(self.mynah, request)
        if pressed(event, "act") == "new":
            return self._page(user, "", about=True)
        one = pressed(event, "id")
        self._turn_to(user, one, pressed(event, "message", ""))
        return self._page(user, one, about=True)

    def tidy(self, request: gr.Request, event: gr.EventData, here: str) -> list[Any]:
        """All that can be done with a chat in the left column. The open one stays as it is, unless it is deleted: a
        comparison may stand there, or a form half filled in."""
        user, chat = person(self.mynah, request), self.mynah.chat
        act = pressed(event, "act")
        if act == "all":
            self._all_listed.add(user.id)
            return self._only_side(user, here)
        one = pressed(event, "id")
        if act == "rename":
            chat.rename(user, one, pressed(event, "title"))
        elif act in ("archive", "unarchive"):
            chat.archive(user, one, act == "archive")
        elif act == "remove":
            chat.remove(user, one)
            if here == one:
                return self._page(user, "", about=True)
        elif act == "undo":
            chat.trash.bring_back(user, one)
        return self._only_side(user, here)

    def _only_side(self, user: User, here: str) -> list[Any]:
        return [gr.skip(), self._view(user, here).side(), *[gr.skip()] * 8]

    def _view(self, user: User, here: str) -> ChatView:
        return ChatView(self.mynah, user, here, all_listed=user.id in self._all_listed)

    def _turn_to(self, user: User, here: str, message: str) -> None:
        """Check that the chat is the person's, and show the branch with the message. Raises NotFound."""
        self.mynah.chat.conversation(user, here)
        if message:
            with suppress(Conflict):  # a reply is being written: the branch that is shown stays
                self.mynah.chat.turn_to(user, here, message)

    def reopen(self, request: gr.Request, here: str) -> list[Any]:
        """The page once more."""
        return self._page(person(self.mynah, request), here)

    def _page(self, user: User, here: str, *, about: bool = False) -> list[Any]:
        """Every output but the notice: the chat as it is kept, and the reply that is being written, if one is.

        about: also what is set for the chat; not while the person may be changing that.
        """
        view = self._view(user, here)
        live = self.live.of(user, here)
        return [
            here,
            view.side(),
            view.live_thread(live),
            view.writing(live) if live else "",
            gr.Button(visible=live is None),
            gr.Button(visible=live is not None),
            gr.Timer(active=live is not None),
            *(self._about(user, here) if about else [gr.skip()] * 3),
        ]

    def _about(self, user: User, here: str) -> list[Any]:
        asks = self.mynah.chat.asking.wanted(user)
        if not here:
            return [False, "", asks]
        conversation = self.mynah.chat.conversation(user, here)
        return [not conversation.learn, conversation.system, asks]

    # ---- what is set for a chat -----------------------------------------------------------------------------------

    def set_private(self, request: gr.Request, here: str, private: bool) -> list[Any]:
        """Keep a chat out of learning, or let it in again. A new chat is told when it begins."""
        user = person(self.mynah, request)
        if not here:
            return [gr.skip()] * 4
        try:
            self.mynah.chat.set_learn(user, here, not private)
        except MynahError as error:
            return [*[gr.skip()] * 3, not private, notice(error)]
        view, live = self._view(user, here), self.live.of(user, here)
        stage = "" if private and live is None else gr.skip()  # a comparison could not be answered any more
        return [view.side(), view.live_thread(live), stage, gr.skip()]

    def set_system(self, request: gr.Request, here: str, system: str | None) -> None:
        """How to answer in a chat from now on."""
        user = person(self.mynah, request)
        if here:
            self.mynah.chat.set_system(user, here, system or "")

    def set_asks(self, request: gr.Request, asks: bool) -> None:
        """Let Mynah ask for comparisons, or not."""
        self.mynah.chat.asking.want(person(self.mynah, request), bool(asks))

    # ---- writing --------------------------------------------------------------------------------------------------

    def ask(
        self, request: gr.Request, here: str, text: str, replies: int, private: bool, system: str | None
    ) -> list[Any]:
        """Send a message; in a new chat this opens it."""
        user, chat = person(self.mynah, request), self.mynah.chat
        if not text.strip():
            raise InvalidInput("There is nothing to send yet: write a message first.")
        if here:
            turn = chat.send(user, here, text, n=int(replies), ask=True)
        else:
            here = chat.open(user, system=(system or "").strip(), learn=not private).id
            try:
                turn = chat.send(user, here, text, n=int(replies), ask=True)
            except MynahError:
                chat.discard(user, here)
                raise
        self.live.begin(user, here, turn, text)
        return [*self._page(user, here), ""]

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
        """A prompt to try, the rest of a reply, an earlier message anew, or another reply to the last one."""
        user, chat = person(self.mynah, request), self.mynah.chat
        act = pressed(event, "act")
        if act == "try":
            return self.ask(request, "", pressed(event, "text"), replies, private, system)
        if act == "go-on":
            go_on = say("Go on from where you stopped.")
            self.live.begin(user, here, chat.send(user, here, go_on), go_on)
        elif act == "revise":
            message, said = pressed(event, "message"), pressed(event, "text")
            turn = chat.revise(user, here, message, said, n=int(replies))
            self.live.begin(user, here, turn, said, instead_of=message)
        else:
            self.live.begin(user, here, chat.again(user, here), "")
        return [*self._page(user, here), gr.skip()]

    def look(self, request: gr.Request, here: str, text: str) -> list[Any]:
        """Show the reply as it grows; at its end the thread, or the replies side by side when there are several."""
        user = person(self.mynah, request)
        live = self.live.of(user, here)
        if live is None:
            return [*self._page(user, here), gr.skip()]
        view = ChatView(self.mynah, user, here)
        if not live.done:
            return [*[gr.skip()] * 3, view.writing(live), *[gr.skip()] * 7]
        self.live.seen(user, here, live)
        page = self._page(user, here)
        if live.error is not None:
            return [*page, live.question or text, notice(live.error)]
        if live.to_compare and (choice := view.choice(live.to_compare, in_order=live.seen_growing, asked=live.asked)):
            page[2:4] = [view.thread(without_last_reply=True), choice]
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
            choice = view.choice()
            return [view.thread(without_last_reply=bool(choice)), choice, gr.skip()]
        if act == "branch":
            self.mynah.chat.turn_to(user, here, pressed(event, "message"))
            return [view.thread(), "", gr.skip()]
        reply_id = pressed(event, "reply")
        if act == "show":
            self.mynah.chat.show(user, here, reply_id)
        elif act == "edit":
            self._edit(user, view, reply_id, pressed(event, "text"))
        else:
            self._thumb(user, view, reply_id, act, event)
        return [view.live_thread(self.live.of(user, here)), gr.skip(), gr.skip()]

    def _thumb(self, user: User, view: ChatView, reply_id: str, act: str, event: gr.EventData) -> None:
        if act == "thumb":
            thumb = THUMBS.get(pressed(event, "thumb"))
            ack = self.mynah.learning.thumb(user, reply_id, thumb)
        else:
            with self.mynah.learning.alone(user):  # what is added to must not change meanwhile
                given = thumb_given(self.mynah, reply_id)
                if not given.get("thumb"):
                    return  # it was taken back, on another page
                thumb, comment = int(given["thumb"]), str(given.get("comment", ""))
                reasons = [str(reason) for reason in given.get("reasons", ())]
                if act == "reason":
                    reason = pressed(event, "reason")
                    reasons = (
                        [known for known in reasons if known != reason] if reason in reasons else [*reasons, reason]
                    )
                elif act == "comment":
                    comment = pressed(event, "comment")
                ack = self.mynah.learning.thumb(user, reply_id, thumb, reasons=reasons, comment=comment)
        view.said[reply_id] = learned(ack) if thumb else joined(say("Taken back."), *map(told, ack.gone))

    def _edit(self, user: User, view: ChatView, reply_id: str, text: str) -> None:
        ack = self.mynah.learning.edit(user, reply_id, text)
        last = [message.reply_id for message in self.mynah.chat.history(user, view.here)][-1:]
        if last == [reply_id]:
            self.mynah.chat.show(user, view.here, ack.reply_id)
        view.said[ack.reply_id] = view.said[reply_id] = learned(ack)

    def decide(self, request: gr.Request, event: gr.EventData, here: str) -> list[Any]:
        """The verdict on replies side by side: a vote, an order, or later."""
        user = person(self.mynah, request)
        view = ChatView(self.mynah, user, here)
        act = pressed(event, "act")
        if act == "dont-ask":
            self.mynah.chat.asking.want(user, False)
            return [view.thread(), "", False]
        if act == "skip":
            return [view.thread(), "", gr.skip()]
        order = pressed(event, "order").split(",")
        pick = pressed(event, "pick", "")
        tiers = placed(order, event) if act == "rank" else voted(order, pick)
        ack = self.mynah.learning.rank(user, tiers, verdict="neither" if pick == "neither" else None)
        best = tiers[0][0]
        self.mynah.chat.show(user, here, best)
        view.said[best] = joined(self._told_apart(user, order), learned(ack))
        return [view.thread(), "", gr.skip()]

    def _told_apart(self, user: User, order: list[str]) -> str:
        writers = [wrote(reply.arm, reply.version)[0] for reply in self.mynah.store.chats.replies(user.id, order)]
        named = zip(draft_names(len(order)), writers, strict=True)
        told = " · ".join(say("{name}: {writer}", name=name, writer=by) for name, by in named)
        return say("{sentence}.", sentence=told)
