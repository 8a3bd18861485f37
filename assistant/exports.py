"""Writing a version out for use elsewhere: which formats there are, and which version is meant."""

from __future__ import annotations

from pathlib import Path

from adapters.base_model import BaseFiles
from adapters.export import FORMATS, Format, export_version
from adapters.versions import VersionFiles
from assistant.updates import version_number
from feedback.errors import Conflict, InvalidInput, NotFound, NotSaved
from feedback.store import Store
from feedback.types import AdapterVersion, User


def check_format(name: str) -> Format:
    """Let through only what can be written. Raises InvalidInput."""
    for known in FORMATS:
        if name == known:
            return known
    raise InvalidInput(f"format is {name[:40]!r}; it can be {', '.join(FORMATS)}.", param="format")


def find_version(store: Store, user: User, name: str) -> AdapterVersion:
    """A person's version by its name. Raises NotFound, InvalidInput."""
    number = version_number(name)
    if number is None:
        raise NotFound("base is no version: it is the shared model, without any adapter.")
    return store.versions.version(user.id, number)


def active_version(store: Store, user: User, base_id: str) -> AdapterVersion:
    """The one being served. Raises NotFound."""
    version = store.versions.active(user.id, base_id)
    if version is None:
        raise NotFound(f"{user.name} has no active version; name one with --version v1.")
    return version


def export_to(
    versions: VersionFiles, files: BaseFiles, version: AdapterVersion, kind: Format, out: Path, work: Path
) -> None:
    """Write a version to a file, as a zip, once another process has checked that it does what the version does.

    work: a folder for what is written meanwhile. Raises CorruptFile, NotSupported and ExportFailed; Conflict for a
    version that is another base's or was forgotten; NotSaved when the disk refuses.
    """
    if version.forgotten_at is not None:
        raise Conflict(version.unusable(files.base_id))
    if version.base_id != files.base_id:
        raise Conflict(
            f"{version.name} belongs to the base {version.base_id}, and this is {files.base_id}; name that one."
        )
    about = {
        "version": version.name,
        "status": version.status,
        "gate": version.gate,
        "created_at": version.created_at,
    }
    try:
        export_version(versions.check(version), files, about, kind, out, work)
    except OSError as error:
        raise NotSaved(f"{out.name} was not written: {error.strerror}. Free some disk space.") from error
