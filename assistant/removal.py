"""Deleting a person, or all that was learned about one: rows, adapters, jobs, and a receipt of what went.

Rows go first, in one transaction; files after it, because a crash between the two leaves only debris, which the next
start sweeps away. A running server notices by itself that the person's update has lost its owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.versions import VersionFiles
from assistant.adoption import remove
from assistant.worker_process import end_stale
from feedback.store import Store
from feedback.types import User, now


def remove_person(store: Store, versions: VersionFiles, jobs: Path, user: User, by: str) -> dict[str, Any]:
    """Delete everything about a person; what went, as a receipt. Raises Conflict for the last admin.

    by: the admin who does it, for the audit log; the person's own id needs no entry.
    """
    live = [update.id for update in store.versions.live_updates(user.id)]
    with store.database.transaction():
        rows = store.people.remove(user.id)
        if by != user.id:
            store.server.note(by, "removed", user.id)
    store.database.leave_no_trace()
    folders = _remove_files(versions, jobs, user, live)
    return {"name": user.name, "id": user.id, "removed_at": now(), "rows": rows, "adapters": folders, "jobs": len(live)}


def reset_person(store: Store, versions: VersionFiles, jobs: Path, user: User) -> dict[str, Any]:
    """Forget all that was learned about a person; chats stay. What went, as a receipt."""
    live = [update.id for update in store.versions.live_updates(user.id)]
    with store.database.transaction():
        acts = store.acts.retract_all(user.id)
        store.commons.leave(user.id)
        store.versions.remove_all(user.id)
    store.database.leave_no_trace()
    folders = _remove_files(versions, jobs, user, live)
    return {"reset_at": now(), "acts": acts, "adapters": folders, "jobs": len(live)}


def _remove_files(versions: VersionFiles, jobs: Path, user: User, updates: Sequence[str]) -> int:
    """Jobs and weights; how many versions' weights there were."""
    for update_id in updates:
        end_stale(jobs / update_id)
        remove(jobs / update_id)
    return versions.remove(user.id)
