"""What every page's handlers share: who is asking, how events are answered and errors told, and panels.

A panel is a piece of server-rendered HTML whose buttons and forms carry `data-act`; `static/panel.js` turns a press
into a Gradio event with all `data-` values and form fields. Handlers check everything in it: it comes from the browser.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from typing import Any, Literal

import gradio as gr

from assistant.mynah import Mynah
from assistant.ui.language import CHINESE, DICTIONARY, ENGLISH, say, told
from assistant.ui.render import show, static
from assistant.ui.session import COOKIE
from feedback.errors import MynahError, NotFound, NotSignedIn
from feedback.types import User

log = logging.getLogger(__name__)

# For every event: hidden from Gradio's API pages, no overlay over what changes, and one plain request with one answer.
# Gradio's queue answers through a stream that it closes between events; an event that comes in just then is lost.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
_numbers = itertools.count()

# Texts of Gradio's components, which the browser translates: in_browser("Send").
in_browser = gr.I18n(**{ENGLISH: {}, CHINESE: DICTIONARY})


def person(mynah: Mynah, request: gr.Request) -> User:
    """Who is asking, from the session cookie and nothing else. Raises NotSignedIn."""
    token = request.cookies.get(COOKIE)
    user = mynah.accounts.session_user(token) if token else None
    if user is None:
        raise NotSignedIn("Your session has ended. Reload the page and sign in again.")
    return user


def admin(mynah: Mynah, request: gr.Request) -> User:
    """The admin who is asking. To anybody else there is nothing here: raises NotFound."""
    user = person(mynah, request)
    if not user.admin:
        raise NotFound("There is nothing here.")
    return user


def wire(
    event: Callable[..., Any],
    handler: Callable[..., Any],
    inputs: list[Any],
    outputs: list[Any],
    meanwhile: Literal["once", "multiple", "always_last"] = "once",
) -> Any:
    """Let a handler answer an event. The last output is the page's notice, and is not the handler's business:

    an error becomes words there and leaves everything else as it is; one without a name also goes to the log. A handler
    that has both results and something to say returns the notice's HTML as one value more.

    meanwhile: what becomes of the same event while its answer is awaited: nothing; another call; or one call more, with
    the inputs as they are then, which is for switches.
    """
    count = len(outputs) - 1

    @functools.wraps(handler)
    def call(*args: Any) -> Any:
        try:
            done = handler(*args)
        except Exception as error:
            return shown([*[gr.skip()] * count, notice(error)])
        values = done if isinstance(done, list) else [done] * count
        return shown(values if len(values) > count else [*values, gr.skip()])

    def shown(values: list[Any]) -> Any:
        return values if count else values[0]  # of one output, Gradio would show the list

    return event(call, inputs, outputs, trigger_mode=meanwhile, **QUIET)


def notice(error: Exception) -> str:
    """An error in words, as the page's notice."""
    if isinstance(error, MynahError):
        words = told(error.message)
    else:
        log.error("A page's handler failed.", exc_info=error)
        words = say("Something went wrong on the server; its log says what. Nothing you gave was lost: try again.")
    return show("notice.html", words=words, number=next(_numbers))


def out_of_date() -> NotFound:
    """What a page is told that sends something ours do not send."""
    return NotFound("This page is out of date. Reload it and try again.")


def panel(elem_id: str, **properties: Any) -> gr.HTML:
    """A piece of HTML filled in by the server, whose presses come back as events."""
    return gr.HTML(
        elem_id=elem_id,
        js_on_load=static("panel.js"),
        apply_default_css=False,
        elem_classes=["panel"],
        **properties,
    )


def pressed(event: gr.EventData, name: str, default: str | None = None) -> str:
    """One value of a press, as text. Raises NotFound when the page did not send it."""
    value = event._data.get(name, default) if isinstance(event._data, dict) else default
    if not isinstance(value, str):
        raise out_of_date()
    return value


def pressed_number(event: gr.EventData, name: str) -> float:
    """One value of a press that is a number. Raises NotFound when the page sent something else."""
    try:
        return float(pressed(event, name))
    except ValueError as error:
        raise out_of_date() from error
