"""GET /v1/models: what `model` can be in a chat request, and what it then means."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter

from assistant.api.deps import Caller, Served
from assistant.mynah import Mynah
from assistant.updates import version_number
from feedback.errors import InvalidInput, NotFound
from feedback.types import AdapterVersion, User

router = APIRouter(tags=["Chat"])
Wanted = int | None | Literal["active"]  # a version, as in ChatRequest


@router.get("/v1/models")
def list_models(mynah: Served, user: Caller) -> dict[str, Any]:
    """All models the caller can name: `mynah` (the best arm for the caller), `base`, and the caller's own versions as
    `NAME@v3`, each with its `parent`."""
    return {"object": "list", "data": _models(mynah, user)}


@router.get("/v1/models/{name:path}")
def one_model(name: str, mynah: Served, user: Caller) -> dict[str, Any]:
    """One of them."""
    for model in _models(mynah, user):
        if model["id"] == name:
            return model
    raise _unknown(name)


def version_of(mynah: Mynah, user: User, model: str) -> Wanted:
    """Which version a request's `model` asks for. Raises NotFound for one the caller does not have."""
    if model == "mynah":
        return "active"
    return None if model == "base" else _named(mynah, user, model).number


def _named(mynah: Mynah, user: User, model: str) -> AdapterVersion:
    """The caller's servable version behind NAME@v3."""
    name, _, version = model.rpartition("@")
    if name == user.name and version != "base":
        try:
            wanted = version_number(version)
        except InvalidInput:
            raise _unknown(model) from None
        for each in _servable(mynah, user):
            if each.number == wanted:
                return each
    raise _unknown(model)


def _models(mynah: Mynah, user: User) -> list[dict[str, Any]]:
    active = mynah.active(user)
    models = [
        _model("mynah", user.created_at, active.name if active else "base", user),
        _model("base", user.created_at, None, user),
    ]
    for version in _servable(mynah, user):
        parent = f"v{version.parent}" if version.parent else "base"
        models.append(_model(version.name, version.created_at, parent, user))
    return models


def _model(name: str, created_at: str, parent: str | None, user: User) -> dict[str, Any]:
    full = {None: None, "base": "base"}.get(parent, f"{user.name}@{parent}")
    return {
        "id": name if name in ("mynah", "base") else f"{user.name}@{name}",
        "object": "model",
        "created": int(datetime.fromisoformat(created_at).timestamp()),
        "owned_by": "mynah" if name in ("mynah", "base") else user.name,
        "parent": full,
    }


def _servable(mynah: Mynah, user: User) -> list[AdapterVersion]:
    """Versions that passed the gate, were not forgotten and belong to the base now serving."""
    versions = mynah.store.versions.versions(user.id)
    return [version for version in versions if not version.unusable(mynah.engine.base_id)]


def _unknown(model: str) -> NotFound:
    return NotFound(f"There is no model {model[:80]!r}; GET /v1/models lists yours.", param="model")
