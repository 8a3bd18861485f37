"""People and their versions, for admins. For anybody else these routes do not exist."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import Response

from assistant.api.deps import Admin, Served, Strict
from assistant.api.versions import versions_view
from assistant.exports import check_format, export_zip, find_version
from assistant.mynah import Mynah
from feedback.types import User

router = APIRouter(prefix="/v1/admin")


class NewPerson(Strict):
    """An account to be made."""

    name: str
    password: str
    admin: bool = False


@router.get("/users")
def people(mynah: Served, admin: Admin) -> dict[str, Any]:
    """Everybody."""
    return {"users": [_person(mynah, user) for user in mynah.accounts.people()]}


@router.post("/users", status_code=201)
def add(body: NewPerson, mynah: Served, admin: Admin) -> dict[str, Any]:
    """A new account."""
    return _person(mynah, mynah.accounts.add(body.name, body.password, admin=body.admin))


@router.delete("/users/{name}")
def remove(name: str, mynah: Served, admin: Admin) -> dict[str, Any]:
    """Delete a person and all that is theirs."""
    return mynah.remove_person(mynah.accounts.find(name))


@router.get("/users/{name}/versions")
def versions(name: str, mynah: Served, admin: Admin) -> dict[str, Any]:
    """A person's versions."""
    return versions_view(mynah, mynah.accounts.find(name))


@router.get("/users/{name}/versions/{version}/export")
def export(name: str, version: str, mynah: Served, admin: Admin, format: str = "peft") -> Response:
    """A version as a zip."""
    check_format(format)
    user = mynah.accounts.find(name)
    content = export_zip(mynah.versions, mynah.files, find_version(mynah.store, user, version))
    filename = quote(f"{user.name}-{version}-{format}.zip")
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{filename}"}
    return Response(content, media_type="application/zip", headers=headers)


def _person(mynah: Mynah, user: User) -> dict[str, Any]:
    active = mynah.active(user)
    return {
        "name": user.name,
        "admin": user.admin,
        "labels": mynah.store.acts.label_count(user.id),
        "active_version": active.name if active else "base",
        "created_at": user.created_at,
    }
