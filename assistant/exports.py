"""Writing a version out for use elsewhere: which formats there are, and which version is meant."""

from __future__ import annotations

import io

from adapters.base_model import BaseFiles
from adapters.export import export_peft
from adapters.versions import VersionFiles
from assistant.updates import version_number
from feedback.errors import Conflict, InvalidInput, NotFound, NotSupported
from feedback.store import Store
from feedback.types import AdapterVersion, User

FORMATS = ("peft", "merged", "gguf", "vllm")


def check_format(name: str) -> None:
    """Let through only what can be written. Raises InvalidInput, NotSupported."""
    if name not in FORMATS:
        raise InvalidInput(f"format is {name[:40]!r}; it can be {', '.join(FORMATS)}.", param="format")
    if name != "peft":
        raise NotSupported(f"This Mynah does not write the format {name}; it writes peft.", param="format")


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


def export_zip(versions: VersionFiles, files: BaseFiles, version: AdapterVersion) -> bytes:
    """A version as a zip that plain PEFT loads.

    Raises CorruptFile, and Conflict for a version that is another base's or was forgotten.
    """
    if version.forgotten_at is not None:
        raise Conflict(version.unusable(files.base_id))
    if version.base_id != files.base_id:
        raise Conflict(
            f"{version.name} belongs to the base {version.base_id}, and this is {files.base_id}; name that one."
        )
    out = io.BytesIO()
    about = {
        "version": version.name,
        "status": version.status,
        "gate": version.gate,
        "created_at": version.created_at,
    }
    export_peft(versions.check(version), files, about, out)
    return out.getvalue()
