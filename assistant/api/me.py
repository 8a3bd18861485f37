"""The caller's own account: overview, profile, keys, password, export and removal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse
from pydantic import Field

from assistant.adoption import remove as delete_folder
from assistant.api.deps import Caller, Counts, Served, Strict
from assistant.api.handed import HandedOver
from assistant.mynah import trait_record
from feedback.errors import Conflict, InvalidInput, NotSaved
from feedback.types import ApiKey, User

router = APIRouter(tags=["The caller"])
_exporting: set[str] = set()  # whose export is being written
_lock = Lock()


class Correction(Strict):
    """A trait's weight set by hand; null takes it back."""

    name: Any = Field(description="a trait's name, as the profile lists it")
    weight: Any = Field(description="-1 to 1; `null` takes the correction back")


class NewPassword(Strict):
    """Both passwords."""

    old: str = Field(description="as it is")
    new: str = Field(description="as it shall be")


@router.get("/v1/me")
def overview(mynah: Served, user: Caller) -> dict[str, Any]:
    """Where the caller stands: labels, the active version, how many labels are missing and when the next update comes,
    each arm's record (comparisons, wins, an interval that may be read at any time, thumbs), and the arm served now."""
    active = mynah.active(user)
    next_update = mynah.updates.forecast(user)
    record = mynah.learning.record(user)
    return {
        "name": user.name,
        "admin": user.admin,
        "created_at": user.created_at,
        "labels": mynah.store.acts.label_count(user.id),
        "active_version": active.name if active else "base",
        "labels_until_update": next_update.labels_needed,
        "next_update": asdict(next_update),
        "arms": {
            line.arm: {
                "comparisons": line.comparisons,
                "wins": line.wins,
                "interval": [line.low, line.high],
                "thumbs": line.thumbs,
                "thumbs_up": line.ups,
            }
            for line in record.arms
        },
        "served_arm": mynah.chat.served(user)[0],
    }


@router.get("/v1/me/profile")
def profile(mynah: Served, user: Caller) -> dict[str, Any]:
    """What was learned: `{"traits": [{"name", "weight", "sd", "evidence", "words"}, …]}`, the best known first.

    A weight is what one more of the trait is worth with what usually goes with it; one that was set by hand is as set.
    """
    return {"traits": [trait_record(trait) for trait in mynah.learning.profile(user)]}


@router.put("/v1/me/profile")
def correct(body: Correction, mynah: Served, user: Caller, traffic: Counts) -> dict[str, Any]:
    """Correct one trait by hand, or take that back; the profile after it."""
    traffic.clicked(mynah.learning.correct(user, body.name, body.weight).head_ms)
    return profile(mynah, user)


@router.get("/v1/me/keys")
def keys(mynah: Served, user: Caller) -> dict[str, Any]:
    """The caller's API keys, without their secrets: `{"keys": [{"id", "hint", "created_at", "used_at"}, …]}`."""
    return {"keys": [_key(key) for key in mynah.accounts.keys(user)]}


@router.post("/v1/me/keys", status_code=201)
def create_key(mynah: Served, user: Caller) -> dict[str, Any]:
    """A new key; `key` is shown this once."""
    key, secret = mynah.accounts.create_key(user)
    return {**_key(key), "key": secret}


@router.delete("/v1/me/keys/{key_id}")
def revoke_key(key_id: str, mynah: Served, user: Caller) -> dict[str, Any]:
    """End a key."""
    mynah.accounts.revoke_key(key_id, user)
    return {"id": key_id, "revoked": True}


@router.put("/v1/me/password")
def change_password(body: NewPassword, mynah: Served, user: Caller) -> dict[str, Any]:
    """Change the password; every signed-in browser is signed out, keys stay."""
    try:
        mynah.accounts.change_password(user, body.old, body.new)
    except InvalidInput as error:
        raise InvalidInput(error.message, param="new" if error.param == "password" else error.param) from error
    return {"changed": True}


@router.get("/v1/me/export")
def export(mynah: Served, user: Caller) -> FileResponse:
    """All that is held about the caller, as a zip of JSON and adapters."""
    with _alone(user):
        try:
            mynah.config.jobs.mkdir(parents=True, exist_ok=True)
            folder = Path(mkdtemp(prefix="export-", dir=mynah.config.jobs))  # swept at the next start, after a crash
            try:
                mynah.write_export(user, folder / "export.zip")
            except BaseException:
                delete_folder(folder)
                raise
        except OSError as error:
            raise NotSaved(f"The export was not written: {error.strerror or error}. Free some disk space.") from error
    headers = {"Content-Disposition": 'attachment; filename="mynah-export.zip"'}
    return HandedOver(folder / "export.zip", headers)


@router.post("/v1/me/reset")
def reset(mynah: Served, user: Caller) -> dict[str, Any]:
    """Forget all that was learned about the caller, versions included; chats stay. What went, as a receipt."""
    return mynah.reset_person(user)


@router.delete("/v1/me")
def leave(mynah: Served, user: Caller) -> JSONResponse:
    """Delete the caller's account and everything that belongs to it, weights included. What went, as a receipt.

    409 for the last admin.
    """
    return JSONResponse(mynah.remove_person(user))


def _key(key: ApiKey) -> dict[str, Any]:
    return {"id": key.id, "hint": key.hint, "created_at": key.created_at, "used_at": key.used_at}


@contextmanager
def _alone(user: User) -> Iterator[None]:
    """One export of a person at a time. Raises Conflict."""
    with _lock:
        if user.id in _exporting:
            raise Conflict("Your export is being made already; wait until it is there.")
        _exporting.add(user.id)
    try:
        yield
    finally:
        _exporting.discard(user.id)
