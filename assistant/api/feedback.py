"""Feedback over HTTP: a thumb, a ranking, an edit, taking one back, feedback from elsewhere, and scores.

An answer is sent only when the act is on disk. With an Idempotency-Key, a request sent twice counts once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse
from pydantic import Field, RootModel

from adapters.files import sha256_json
from assistant.api.deps import Caller, Counts, Served, Strict
from assistant.learning import Ack
from assistant.messages import check_messages
from assistant.metrics import Traffic
from assistant.mynah import Mynah
from feedback.errors import InvalidInput
from feedback.types import User

router = APIRouter(tags=["Feedback"])
Key = Annotated[str | None, Header(alias="Idempotency-Key", description="a request sent twice under it counts once")]
MAX_KEY = 255
_FORMS = 'Send one of {"reply_id", "thumb"}, {"ranking"} or {"reply_id", "edit"}.'


class Act(Strict):
    """One act of feedback; what is in the fields is checked by `Learning`."""

    reply_id: str | None = Field(None, description="which reply, for a thumb or an edit")
    thumb: Any = Field(None, description="1 or -1; 0 takes it back")
    reasons: Any = Field((), description="short texts, with a thumb")
    comment: Any = Field("", description="a text, with a thumb or a ranking")
    ranking: Any = Field(
        None, description='reply ids in tiers, best first: `[["r_2"], ["r_1", "r_3"]]`; one tier is a tie'
    )
    verdict: Any = Field(None, description='`"neither"`: the one tier of the ranking is all bad')
    edit: Any = Field(None, description="the text as it should have been")


class Brought(RootModel[dict[str, Any] | list[Any]]):
    """Feedback given elsewhere: one item or a list of them."""


class Candidates(Strict):
    """Replies to be scored."""

    messages: Any = Field(description="the conversation, as in a chat request")
    replies: list[Any] = Field(description="up to 64 texts")


@router.post("/v1/feedback", status_code=201)
def give(body: Act, mynah: Served, user: Caller, traffic: Counts, key: Key = None) -> JSONResponse:
    """Give feedback on a reply, or rank several replies to one prompt: a thumb, a ranking or an edit, one a request.

    `{"feedback_id", "labels", "head_ms"}` once it is on disk and in the head. `labels` is the person's total. A new act
    about the same reply takes the place of the earlier one. 409 for a reply that was asked for with `learn: false`.
    """
    return _once(mynah, user, key, body.model_dump(), lambda: _ack(_act(mynah, user, body), traffic))


@router.delete("/v1/feedback/{feedback_id}")
def take_back(feedback_id: str, mynah: Served, user: Caller, traffic: Counts) -> dict[str, Any]:
    """Take an act back.

    The head forgets it, its words are erased, and versions that had learned from it are deleted, weights included.
    """
    return _ack(mynah.learning.retract(user, feedback_id), traffic)


@router.post("/v1/me/preferences", status_code=201)
def bring(body: Brought, mynah: Served, user: Caller, traffic: Counts, key: Key = None) -> JSONResponse:
    """Bring feedback given elsewhere; all of it is taken in or nothing.

    One item or a list: `{"messages", "replies": ["…", "…"], "ranking": [[0], [1]]}`, tiers of places in `replies`, or
    `{"messages", "replies": ["…"], "thumb": 1}`.
    """

    def work() -> dict[str, Any]:
        mynah.limits.keep(user)
        acks = mynah.learning.bring(user, body.root)
        answers = [_ack(ack, traffic) for ack in acks]
        answer: dict[str, Any] = {
            "feedback_ids": [ack.feedback_id for ack in acks],
            "labels": mynah.store.acts.label_count(user.id),
            "head_ms": sum(each["head_ms"] for each in answers),
        }
        return answer | ({"feedback_id": acks[0].feedback_id} if isinstance(body.root, dict) else {})

    return _once(mynah, user, key, body.model_dump(), work)


@router.post("/v1/me/score")
def score(body: Candidates, mynah: Served, user: Caller) -> dict[str, Any]:
    """What the reward head thinks of replies, written here or not: `{"scores": [{"mean", "sd"}, …]}`, in logits of a
    click; before any label that of the shared prior."""
    scores = mynah.learning.score(user, check_messages(body.messages), body.replies)
    return {"scores": [{"mean": mean, "sd": sd} for mean, sd in scores]}


def _act(mynah: Mynah, user: User, body: Act) -> Ack:
    """Which of the three forms it is. Raises InvalidInput when it is none or more than one."""
    given = [name for name in ("thumb", "ranking", "edit") if getattr(body, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of thumb, ranking and edit"
        raise InvalidInput(f"The body has {found}. {_FORMS}", param=given[-1] if given else None)
    _only_with(body, given[0])
    if body.ranking is not None:
        return mynah.learning.rank(user, body.ranking, verdict=body.verdict, comment=body.comment)
    if body.reply_id is None:
        raise InvalidInput(f"reply_id is missing. {_FORMS}", param="reply_id")
    if body.edit is not None:
        return mynah.learning.edit(user, body.reply_id, body.edit)
    return mynah.learning.thumb(user, body.reply_id, body.thumb, reasons=body.reasons, comment=body.comment)


def _only_with(body: Act, form: str) -> None:
    """Refuse fields that the chosen form has no use for."""
    allowed = {"thumb": {"reply_id", "reasons", "comment"}, "ranking": {"verdict", "comment"}, "edit": {"reply_id"}}[
        form
    ]
    for name in sorted(body.model_fields_set - allowed - {form}):
        if getattr(body, name) not in (None, (), [], ""):
            raise InvalidInput(f"{name} does not go with {form}. {_FORMS}", param=name)


def _ack(ack: Ack, traffic: Traffic) -> dict[str, Any]:
    traffic.clicked(ack.head_ms)
    return {"feedback_id": ack.feedback_id, "labels": ack.labels, "head_ms": round(ack.head_ms, 3)}


_locks: dict[tuple[str, str], threading.Lock] = {}
_locks_lock = threading.Lock()


def _once(mynah: Mynah, user: User, key: str | None, body: object, work: Callable[[], dict[str, Any]]) -> JSONResponse:
    """Do the work, or answer as the first time when this Idempotency-Key was used for the same request."""
    if key is None:
        return JSONResponse(work(), 201)
    if not 1 <= len(key) <= MAX_KEY:
        raise InvalidInput(
            f"Idempotency-Key has {len(key)} characters; it can have 1 to {MAX_KEY}.", param="Idempotency-Key"
        )
    with _locks_lock:
        lock = _locks.setdefault((user.id, key), threading.Lock())
    try:
        with lock:  # the second of two at once waits for the first one's answer
            request_hash = sha256_json(body)
            with mynah.store.acts.once(user.id, key, request_hash) as answer:
                if answer is None:
                    answer = work()
                    mynah.store.acts.remember(user.id, key, request_hash, answer)
            return JSONResponse(answer, 201)
    finally:
        with _locks_lock:
            if not lock.locked():
                _locks.pop((user.id, key), None)
