"""Deleting a person: rows, adapters, jobs, and a receipt of what went.

Rows go first, in one transaction; files after it, because a crash between the two leaves only debris, which the next
start sweeps away. A running server notices by itself that the person's update has lost its owner.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.versions import VersionFiles
from assistant.adoption import remove
from assistant.worker_process import end_stale
from feedback.store import Store
from feedback.types import User, now


def remove_person(store: Store, versions: VersionFiles, jobs: Path, user: User) -> dict[str, Any]:
    """Delete everything about a person; what went, as a receipt. Raises Conflict for the last admin."""
    live = [update.id for update in store.versions.live_updates(user.id)]
    rows = store.people.remove(user.id)
    for update_id in live:
        end_stale(jobs / update_id)
        remove(jobs / update_id)
    folders = versions.remove(user.id)
    return {"name": user.name, "id": user.id, "removed_at": now(), "rows": rows, "adapters": folders, "jobs": len(live)}
