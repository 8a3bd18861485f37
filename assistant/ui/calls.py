"""Calls of Gradio's events, looked over before Gradio sees them.

A page of ours always sends what its event takes. Whatever else comes, from a browser's console or a page that is out of
date, Gradio answers 500 with a traceback in the log, and some of it (a dictionary that looks like a file) means
something to it. So a call is checked against the inputs of its event and written anew with nothing but what our events
need. Who may do what is not decided here: handlers look that up themselves.
"""

from __future__ import annotations

import json
import re
from typing import Any

import gradio as gr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.ui.events import out_of_date
from assistant.ui.language import told

CALL = re.compile(r"/gradio_api/run/[^/]+/?")
MAX_SESSION = 64  # characters of the name that a page gives itself
_HEADERS = (b"content-type", b"content-length")


class Calls:
    """ASGI middleware in front of the pages' events; 400 for what no page of ours sends."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks) -> None:
        self.app = app
        self._inputs = {number: list(event.inputs) for number, event in blocks.fns.items() if event.fn is not None}
        for component in {type(each) for inputs in self._inputs.values() for each in inputs}:
            assert component in (gr.Textbox, gr.Checkbox, gr.Radio), f"say in `_value` what a {component} may hold"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what is no call, and a call as it should be."""
        if scope["type"] != "http" or scope["method"] != "POST" or not CALL.fullmatch(scope["path"]):
            return await self.app(scope, receive, send)
        try:
            body = self._checked(await Request(scope, receive).body())
        except ClientDisconnect:  # it left, or sent more than is taken, which is answered further out
            return None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return await JSONResponse({"error": told(out_of_date().message)}, 400)(scope, receive, send)
        kept = [(name, value) for name, value in scope["headers"] if name not in _HEADERS]
        ours = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        replayed = False

        async def once() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        return await self.app({**scope, "headers": [*kept, *ours]}, once, send)

    def _checked(self, body: bytes) -> bytes:
        """The call as Gradio gets it. Raises one of many errors for what is none."""
        sent = json.loads(body)
        number, data, session, event = (sent.get(name) for name in ("fn_index", "data", "session_hash", "event_data"))
        inputs = self._inputs[number if type(number) is int else -1]
        call = {
            "fn_index": number,
            "data": [_value(component, value) for component, value in zip(inputs, data, strict=True)],
            "event_data": {name: text for name, text in (event or {}).items() if isinstance(text, str)},
            "session_hash": session if isinstance(session, str) and len(session) <= MAX_SESSION else None,
        }
        return json.dumps(call, ensure_ascii=False).encode()  # refuses half a character


def _value(component: Any, value: Any) -> Any:
    """An input as its component holds it. Raises ValueError for what it never holds."""
    if isinstance(component, gr.Textbox) and value is None:
        return ""
    if isinstance(component, gr.Radio):
        allowed = any(type(value) is type(choice) and value == choice for _, choice in component.choices)
    else:
        allowed = type(value) is (str if isinstance(component, gr.Textbox) else bool)
    if not allowed:
        raise ValueError(f"{value!r} is nothing for a {type(component).__name__}")
    return value
