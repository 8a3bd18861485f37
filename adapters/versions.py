"""Adapter versions on disk: immutable numbered folders, written whole, checked by hash before every use.

    <data>/adapters/<user_id>/v<N>/
        adapter_model.safetensors   fp32 tensors under PEFT's own names
        adapter_config.json         PEFT's own description, without a base path
        about.json                  where it came from: base, parent, labels, seed, config, metrics
        manifest.json               sha256 and size of each of the above

The store keeps the manifest's own hash, so a folder that was changed consistently is caught as well. Which version is
active is a row in the store, not a file. Left out on purpose: optimizer states, pickles, and any way to change a
version after it was written.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from adapters.files import read_json, sha256_file, whole_folder, write_json
from feedback.errors import CorruptFile, InvalidInput
from feedback.types import AdapterVersion

WEIGHTS, CONFIG, ABOUT, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "about.json", "manifest.json"


class VersionFiles:
    """All versions of all people, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, user_id: str, number: int) -> Path:
        """The folder of a version, whether it is there or not."""
        if not user_id or user_id.startswith(".") or "/" in user_id or "\\" in user_id or number < 1:
            raise InvalidInput(f"There can be no version {number} of {user_id!r}.")
        return self.root / user_id / f"v{number}"

    def write(
        self, user_id: str, number: int, state: dict[str, Tensor], lora_config: LoraConfig, about: dict[str, Any]
    ) -> str:
        """Write a new version; returns the sha256 of its manifest. Raises FileExistsError if the number was used."""
        with whole_folder(self.path(user_id, number)) as draft:
            fill(draft, state, lora_config, about)
        return manifest_hash(self.path(user_id, number))

    def adopt(self, user_id: str, number: int, folder: Path) -> str:
        """Copy a worker's result into place as a new version; returns the sha256 of its manifest.

        Raises CorruptFile when the result is damaged, FileExistsError if the number was used for something else. The
        same result may be adopted again, so that a crash between folder and row is repaired by asking again.
        """
        final = self.path(user_id, number)
        verify(folder)
        if final.exists() and manifest_hash(final) == manifest_hash(folder):
            verify(final)
            return manifest_hash(final)
        with whole_folder(final) as draft:
            shutil.copytree(folder, draft, dirs_exist_ok=True)
            verify(draft)
        return manifest_hash(final)

    def check(self, version: AdapterVersion) -> Path:
        """The version's folder, after every hash was compared. Raises CorruptFile in one sentence."""
        folder = self.path(version.user_id, version.number)
        try:
            verify(folder)
            found = manifest_hash(folder)
        except CorruptFile as error:
            raise CorruptFile(f"Version {version.name} cannot be used: {error.message}") from error
        if found != version.manifest_sha256:
            raise CorruptFile(
                f"Version {version.name} cannot be used: its manifest is not the one that was promoted. "
                "Restore it from a backup or go back to another version."
            )
        return folder

    def remove(self, user_id: str, number: int | None = None) -> int:
        """Delete one version, or all of a person's; returns how many went."""
        person = self.path(user_id, 1).parent
        doomed = [self.path(user_id, number)] if number is not None else sorted(person.glob("v*"))
        gone = [folder for folder in doomed if folder.is_dir()]
        for folder in gone:
            shutil.rmtree(folder)
        if number is None:
            shutil.rmtree(person, ignore_errors=True)
        return len(gone)


def fill(draft: Path, state: dict[str, Tensor], lora_config: LoraConfig, about: dict[str, Any]) -> None:
    """Write the files of a version into an empty folder, the manifest last."""
    save_file(state, draft / WEIGHTS, metadata={"format": "pt"})
    lora_config.save_pretrained(str(draft))
    described = read_json(draft / CONFIG)  # PEFT keeps a set, whose order is another in every process
    write_json(draft / CONFIG, described | {"target_modules": sorted(described["target_modules"])})
    write_json(draft / ABOUT, about)
    seal(draft)


def seal(folder: Path) -> None:
    """Write the manifest over all other files in a folder."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    write_json(
        folder / MANIFEST,
        {"files": {path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in files}},
    )


def manifest_hash(folder: Path) -> str:
    """The one hash that stands for a version. Raises CorruptFile when there is no manifest."""
    try:
        return sha256_file(folder / MANIFEST)
    except OSError as error:
        raise CorruptFile(f"{folder.name} has no readable {MANIFEST}.") from error


def verify(folder: Path) -> None:
    """Compare every file with the manifest. Raises CorruptFile naming the first that differs."""
    try:
        listed: dict[str, dict[str, Any]] = read_json(folder / MANIFEST)["files"]
        wanted = {name: (str(entry["sha256"]), int(entry["bytes"])) for name, entry in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(f"{folder.name} has no readable {MANIFEST}; restore it from a backup.") from error
    if missing := {WEIGHTS, CONFIG} - set(wanted):
        raise CorruptFile(f"The manifest of {folder.name} does not list {min(missing)}; restore it from a backup.")
    for name, (sha256, size) in sorted(wanted.items()):
        path = folder / name
        if "/" in name or not path.is_file():
            raise CorruptFile(f"{name} is missing from {folder.name}; restore it from a backup.")
        if path.stat().st_size != size or sha256_file(path) != sha256:
            raise CorruptFile(
                f"{name} in {folder.name} is not what was written (its sha256 differs); restore it from a backup."
            )
