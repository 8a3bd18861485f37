"""People, their versions, settings and the audit log, for admins. For anybody else these routes do not exist.

All that changes something goes through `Administration` and `Joining`, which write it to the audit log.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from pydantic import Field, StrictBool

from assistant.adoption import remove as delete_folder
from assistant.api.deps import Admin, Served, Strict
from assistant.api.handed import HandedOver
from assistant.api.versions import versions_view
from assistant.exports import check_format, export_to, find_version
from assistant.mynah import Mynah
from feedback.types import User

router = APIRouter(prefix="/v1/admin", tags=["Admins"])
Entry = Annotated[int | None, Query(ge=0, lt=2**63)]  # what the database can count


class NewPerson(Strict):
    """An account to be made."""

    name: str
    password: str
    admin: StrictBool = False


class Change(Strict):
    """What is to be different about an account."""

    disabled: StrictBool | None = Field(None, description="`true` ends sessions and keys at once")
    password: str | None = Field(None, description="a new one; signs every browser of theirs out")


class Note(Strict):
    """Whom an invitation is for."""

    note: str = Field("", description="whom it is for, in the admin's own words")


class Value(Strict):
    """A setting, as text or number."""

    name: str = Field(description="as `GET /v1/admin/settings` lists it")
    value: str | int | float = Field(description="as text or number")


@router.get("/users")
def people(mynah: Served, admin: Admin) -> dict[str, Any]:
    """Everybody."""
    return {"users": [_person(mynah, user) for user in mynah.accounts.people()]}


@router.post("/users", status_code=201)
def add(body: NewPerson, mynah: Served, admin: Admin) -> dict[str, Any]:
    """A new account."""
    return _person(mynah, mynah.admins.add(admin.id, body.name, body.password, admin=body.admin))


@router.patch("/users/{name}")
def change(name: str, body: Change, mynah: Served, admin: Admin) -> dict[str, Any]:
    """Set a password, disable, or enable again."""
    user = mynah.accounts.find(name)
    if body.password is not None:
        mynah.admins.set_password(admin.id, user, body.password)
    if body.disabled is not None:
        (mynah.admins.disable if body.disabled else mynah.admins.enable)(admin.id, user)
    return _person(mynah, mynah.accounts.find(name))


@router.delete("/users/{name}")
def remove(name: str, mynah: Served, admin: Admin) -> dict[str, Any]:
    """Delete a person and all that is theirs."""
    return mynah.remove_person(mynah.accounts.find(name), admin.id)


@router.get("/users/{name}/versions")
def versions(name: str, mynah: Served, admin: Admin) -> dict[str, Any]:
    """A person's versions."""
    return versions_view(mynah, mynah.accounts.find(name))


@router.get("/users/{name}/versions/{version}/export")
def export(name: str, version: str, mynah: Served, admin: Admin, format: str = "peft") -> FileResponse:
    """A version as a zip, made and checked now: about twenty seconds.

    `format` is `peft`, `merged`, `gguf` or `vllm`.
    """
    kind, user = check_format(format), mynah.accounts.find(name)
    found = find_version(mynah.store, user, version)
    mynah.config.jobs.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="export-", dir=mynah.config.jobs))  # what a crash leaves is swept at the next start
    try:
        export_to(mynah.versions, mynah.files, found, kind, folder / "export.zip", folder)
    except BaseException:
        delete_folder(folder)
        raise
    mynah.admins.note(admin.id, "exported a version of", user, version=version, format=kind)
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(f'{user.name}-{version}-{kind}.zip')}"}
    return HandedOver(folder / "export.zip", headers)


@router.post("/invitations", status_code=201)
def invite(body: Note, mynah: Served, admin: Admin) -> dict[str, Any]:
    """A link that lets one person make an account; `path` is shown this once."""
    invitation, token = mynah.joining.invite(admin, body.note)
    return {"id": invitation.id, "expires_at": invitation.expires_at, "path": f"/sign-up?invitation={token}"}


@router.delete("/invitations/{invitation_id}")
def withdraw(invitation_id: str, mynah: Served, admin: Admin) -> dict[str, Any]:
    """Close an invitation that was not used."""
    mynah.joining.withdraw(admin, invitation_id)
    return {"id": invitation_id, "withdrawn": True}


@router.get("/settings")
def settings(mynah: Served, admin: Admin) -> dict[str, Any]:
    """What can be changed while the server runs; `fixed` says why one cannot."""
    return {"settings": [asdict(setting) for setting in mynah.settings.all()]}


@router.put("/settings")
def set_one(body: Value, mynah: Served, admin: Admin) -> dict[str, Any]:
    """Change a setting, from now on."""
    mynah.admins.set(admin.id, mynah.settings, body.name, str(body.value))
    return settings(mynah, admin)


@router.get("/audit")
def audit(mynah: Served, admin: Admin, limit: int = 100, before: Entry = None) -> dict[str, Any]:
    """What admins did, newest first; `before` the number of the oldest entry seen goes on from there."""
    return {"entries": [asdict(entry) for entry in mynah.admins.log(max(1, min(limit, 1000)), before)]}


def _person(mynah: Mynah, user: User) -> dict[str, Any]:
    active = mynah.active(user)
    return {
        "name": user.name,
        "admin": user.admin,
        "disabled": user.disabled,
        "labels": mynah.store.acts.label_count(user.id),
        "active_version": active.name if active else "base",
        "created_at": user.created_at,
    }
