"""What the left column asks for beside Gradio's events: a search as one types, and one conversation as a file.

Both look up the person from the session cookie and only ever see that person's conversations. Files come from here and
not from Gradio, whose downloads anybody who is signed in could read.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from assistant.mynah import Mynah
from assistant.transcript import as_markdown, as_record, file_name
from assistant.ui.language import told
from assistant.ui.render import show
from assistant.ui.session import session_user
from feedback.errors import MynahError, NotFound, NotSignedIn
from feedback.search import snippet
from feedback.types import User

_PRIVATE = {"Cache-Control": "no-store"}


def routes(mynah: Mynah) -> APIRouter:
    """GET /search and GET /conversations/ID.md, .json. The guard has let only people with a session in."""
    router = APIRouter(include_in_schema=False)

    def person(request: Request) -> User:
        user = session_user(request, mynah.accounts)
        if user is None:
            raise NotSignedIn("Your session has ended. Sign in again.")
        return user

    @router.get("/search")
    def search(request: Request, q: str = "", page: str = "") -> Response:
        try:
            user = person(request)
            found = mynah.chat.search(user, q) if q.strip() else []
            hits = [(hit, snippet(hit.text, q)) for hit in found]
            return HTMLResponse(show("found.html", hits=hits, typed=q.strip(), page=page, error=""), headers=_PRIVATE)
        except MynahError as error:
            words = show("found.html", hits=[], typed=q, page=page, error=told(error.message))
            return HTMLResponse(words, 400, headers=_PRIVATE)

    @router.get("/conversations/{conversation_id}.{ending}")
    def take(request: Request, conversation_id: str, ending: str) -> Response:
        try:
            user = person(request)
            title = mynah.chat.conversation(user, conversation_id).title
            if ending == "md":
                text, kind = as_markdown(mynah.store, user, conversation_id), "text/markdown"
            elif ending == "json":
                record = as_record(mynah.store, user, conversation_id)
                text, kind = json.dumps(record, indent=1, ensure_ascii=False), "application/json"
            else:
                raise NotFound("A conversation can be had as .md or .json.")
        except MynahError as error:
            return JSONResponse({"error": told(error.message)}, 404, headers=_PRIVATE)
        name = f"attachment; filename*=UTF-8''{quote(file_name(title, ending))}"
        return Response(text, media_type=f"{kind}; charset=utf-8", headers={**_PRIVATE, "Content-Disposition": name})

    return router
