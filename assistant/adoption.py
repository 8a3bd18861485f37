"""From a finished job to a version, and the removal of what a crash left.

The order makes every crash harmless: the folder is published whole before its row exists, the row and the pointer to it
change in one transaction, and the job's folder goes last. What lies on disk without a row is debris, and swept away at
the next start; a job whose update is still open is taken up again, from its result if it has one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from adapters.files import TEMPORARY
from adapters.versions import VersionFiles
from assistant.worker_process import read_report
from feedback.errors import CorruptFile
from feedback.store import Store
from feedback.types import AdapterVersion, Update, now

POOL_JOB = "pool"  # the job that belongs to nobody


def has_result(job: Path) -> bool:
    """Whether the worker finished: the gate's verdict is the last thing it writes."""
    return (job / "gate.json").is_file() and (job / "result").is_dir()


def adopt(store: Store, versions: VersionFiles, update: Update, job: Path) -> AdapterVersion:
    """Make a finished job's result a version: served on probation if it passed the gate, kept as rejected if not.

    Raises Conflict when the update ended meanwhile (cancelled): nothing is entered. Raises CorruptFile for a result
    that is not what its manifest says.
    """
    gate = _gate(job)
    passed = all(check["passed"] for check in gate)
    number = store.versions.next_number(update.user_id)
    manifest = versions.adopt(update.user_id, number, job / "result")
    version = AdapterVersion(
        user_id=update.user_id,
        number=number,
        base_id=update.base_id,
        status="probation" if passed else "rejected",
        parent=update.parent,
        update_id=update.id,
        first_label=update.first_label,
        last_label=update.last_label,
        seed=update.seed,
        config=update.config,
        metrics=_metrics(job),
        gate=gate,
        manifest_sha256=manifest,
        created_at=now(),
    )
    try:
        store.versions.add(version, activate=passed, update_state="promoted" if passed else "rejected")
    except Exception:
        versions.remove(update.user_id, number)
        raise
    return version


def debris(store: Store, adapters: Path, jobs: Path) -> list[Path]:
    """Folders that nothing in the database speaks of, and drafts of writers that were killed."""
    people = {user.id for user in store.people.all()}
    live = {update.id for update in store.versions.live_updates()}
    found: list[Path] = []
    for person in _folders(adapters):
        if person.name not in people:
            found.append(person)
            continue
        known = {each.name for each in store.versions.versions(person.name) if each.forgotten_at is None}
        found += [folder for folder in _folders(person) if folder.name not in known]
    found += [job for job in _folders(jobs) if job.name not in live and job.name != POOL_JOB]
    inside = tuple(f"{folder}/" for folder in found)
    for root in (adapters, jobs):
        drafts = root.rglob(f"{TEMPORARY}*") if root.is_dir() else ()
        found += [path for path in drafts if path not in found and not str(path).startswith(inside)]
    found += adapters.parent.glob(f"{TEMPORARY}*")  # of a backup or a restore: the whole database may be in there
    return sorted(found)


def sweep(store: Store, adapters: Path, jobs: Path) -> list[str]:
    """Remove all debris; only for whoever holds the data folder's lock. Returns what went."""
    gone = []
    for path in debris(store, adapters, jobs):
        remove(path)
        gone.append(f"{path.parent.name}/{path.name}")
    return gone


def remove(path: Path) -> None:
    """Delete a folder or file; one that is gone already is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _gate(job: Path) -> list[dict[str, Any]]:
    try:
        gate: list[dict[str, Any]] = json.loads((job / "gate.json").read_text("utf-8"))
        if not gate or not all(isinstance(check["passed"], bool) for check in gate):
            raise ValueError("no verdict in it")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptFile(
            f"The gate's verdict of this update cannot be read ({error}); ask for a new update."
        ) from error
    return gate


def _metrics(job: Path) -> dict[str, Any]:
    """What a version keeps of its training: every step, and what the worker said of the whole."""
    metrics = dict(read_report(job).metrics)
    about = json.loads((job / "result" / "about.json").read_text("utf-8"))
    return {**metrics, **about.get("metrics", {})}


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
