"""The caller's updates and the versions they made."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from assistant.api.deps import Caller, Served
from assistant.exports import find_version
from assistant.mynah import Mynah
from feedback.types import AdapterVersion, Update, User

router = APIRouter(tags=["Updates and versions"])


@router.post("/v1/me/updates", status_code=202)
def ask(mynah: Served, user: Caller) -> dict[str, Any]:
    """Ask for an update: `{"update_id"}`.

    409 while one is under way, 422 under 10 labels with `error.needed`, 429 beyond the day's number.
    """
    return {"update_id": mynah.updates.request(user).id}


@router.get("/v1/me/updates")
def updates(mynah: Served, user: Caller) -> dict[str, Any]:
    """All of the caller's updates, newest first."""
    return {"updates": [update_view(update) for update in mynah.store.versions.updates(user.id)]}


@router.get("/v1/me/updates/{update_id}")
def update(update_id: str, mynah: Served, user: Caller) -> dict[str, Any]:
    """How an update is getting on, or how it ended.

    `state` is `queued`, `running`, `paused`, `promoted`, `rejected`, `failed` or `cancelled`; `gate` holds the checks
    as `{"check", "value", "bound", "passed", "words"}`. A rejected update without a `version` was not trained: what the
    person clicked does not foretell what else they clicked, so nothing could have passed.
    """
    return update_view(mynah.updates.get(user, update_id))


@router.delete("/v1/me/updates/{update_id}")
def cancel(update_id: str, mynah: Served, user: Caller) -> dict[str, Any]:
    """Cancel an update; nothing of it is kept. 409 when it has ended."""
    return update_view(mynah.updates.cancel(user, update_id))


@router.get("/v1/me/versions")
def versions(mynah: Served, user: Caller) -> dict[str, Any]:
    """The caller's versions, oldest first, and which is served."""
    return versions_view(mynah, user)


@router.get("/v1/me/versions/{name}")
def version(name: str, mynah: Served, user: Caller) -> dict[str, Any]:
    """One version: its status, how its trial stands in words, its parent, the labels it learned from, seed, config,
    metrics and the gate's checks.

    `status` is `probation`, `active`, `retired`, `rejected` or `rolled back`.
    """
    found = find_version(mynah.store, user, name)
    return version_view(found, mynah.trials_told(user).get(found.number, ""))


@router.post("/v1/me/versions/{name}/activate")
def activate(name: str, mynah: Served, user: Caller) -> dict[str, Any]:
    """Serve a version (`v3`), or `base`, from the next reply on."""
    mynah.updates.activate(user, name)
    return versions_view(mynah, user)


def versions_view(mynah: Mynah, user: User) -> dict[str, Any]:
    """A person's versions as the API shows them."""
    active, told = mynah.active(user), mynah.trials_told(user)
    return {
        "active": active.name if active else "base",
        "versions": [version_view(each, told.get(each.number, "")) for each in mynah.store.versions.versions(user.id)],
    }


def version_view(version: AdapterVersion, trial: str) -> dict[str, Any]:
    """A version as the API shows it. trial: how its trial stands or ended, "" where it had none."""
    return {
        "name": version.name,
        "status": version.status,
        "trial": trial,
        "parent": f"v{version.parent}" if version.parent else "base",
        "base": version.base_id,
        "update_id": version.update_id,
        "feedback": {"first": version.first_label, "last": version.last_label},
        "seed": version.seed,
        "config": version.config,
        "metrics": version.metrics,
        "gate": version.gate,
        "created_at": version.created_at,
        "forgotten_at": version.forgotten_at,
    }


def update_view(update: Update) -> dict[str, Any]:
    """An update as the API shows it."""
    return {
        "update_id": update.id,
        "state": update.state,
        "trigger": update.trigger,
        "progress": update.progress,
        "eta_seconds": update.eta_seconds,
        "metrics": update.metrics,
        "gate": update.gate,
        "version": f"v{update.version}" if update.version else None,
        "reason": update.reason,
        "created_at": update.created_at,
        "started_at": update.started_at,
        "finished_at": update.finished_at,
    }
