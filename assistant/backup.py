"""One file with everything that cannot be made again: the database, all adapter versions, and what features are along.

Works beside a running server. The database is copied first, in one consistent piece; the version folders it speaks of
were complete before their rows were, and never change. All of it is put together beside the file that it becomes, so
that the data folder never holds a second copy of what people may delete. Left out on purpose: base models and the
shared pool, which are made again, and updates under way, which start anew.

    mynah-backup.zip
        manifest.json       what made it, and the sha256 of every file
        mynah.db
        adapters/<user id>/v<N>/…
        latents/<base>/latents.safetensors
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from adapters.files import TEMPORARY, fsync, sha256_file
from assistant.adoption import remove
from assistant.config import Config
from assistant.lock import DataLock
from feedback.errors import Conflict, CorruptFile, InvalidInput, NotFound, NotSaved
from feedback.store import Store
from feedback.types import now, wall

FORMAT = 1
TRIES = 3
STALE = 3600.0  # seconds after which what lies beside a backup is a killed one's
_MEMBER = re.compile(
    r"mynah\.db|adapters/u_[0-9a-f]+/v[0-9]+/[A-Za-z0-9_-][A-Za-z0-9_.-]*|latents/[\w-][\w.-]*/latents\.safetensors"
)
_DRAFT = f"{TEMPORARY}backup-"  # how the folder begins that a backup is put together in
_RESTORED = f"{TEMPORARY}restore"


@dataclass(frozen=True)
class Written:
    """A backup. size: bytes; missing: versions whose folder was gone, in words."""

    size: int
    missing: list[str]


def backup(config: Config, out: Path) -> Written:
    """Write a backup. Raises NotFound, Conflict for a file that exists, NotSaved."""
    if not config.database.is_file():
        raise NotFound(f"There is nothing to back up: {config.data_dir} holds no database.")
    if out.exists():
        raise Conflict(f"{out} exists already; choose another name or remove it first.")
    try:
        for left in out.parent.glob(f"{_DRAFT}*"):
            if left.stat().st_mtime < wall().timestamp() - STALE:
                remove(left)
        with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=out.parent) as folder:
            draft = Path(folder) / "backup.zip"
            for attempt in range(TRIES):
                try:
                    missing = _write(config, draft, last=attempt == TRIES - 1)
                    break
                except FileNotFoundError:  # somebody was removed between the copy of the database and that of folders
                    if attempt == TRIES - 1:
                        raise
            fsync(draft)
            draft.rename(out)
        fsync(out.parent.resolve())
    except OSError as error:
        raise NotSaved(f"The backup {out} was not written: {error.strerror or error}.") from error
    return Written(out.stat().st_size, missing)


def restore(config: Config, file: Path) -> int:
    """Unpack a backup into an empty data folder; the number of files.

    Raises Conflict beside a running Mynah or when the folder holds data, CorruptFile for a damaged backup, NotFound.
    """
    if not file.is_file():
        raise NotFound(f"There is no file {file}.")
    lock = DataLock(config.data_dir, "restore")
    try:
        draft = config.data_dir / _RESTORED
        if draft.exists() and not config.database.exists():  # of a killed restore: it had found the folder empty
            for left in (config.adapters, config.latents, draft):
                remove(left)
        if there := sorted(path.name for path in config.data_dir.iterdir() if path.name != "lock"):
            raise Conflict(
                f"{config.data_dir} is not empty (it holds {there[0]}); restore into an empty folder with --data-dir."
            )
        try:
            count = _unpack(file, draft)
            Store(draft / "mynah.db").close()  # opens, migrates, and so finds out whether it is a database at all
            for name in ("adapters", "latents", "mynah.db"):  # the database last: without it nothing was restored
                if (draft / name).exists():
                    (draft / name).rename(config.data_dir / name)
            fsync(config.data_dir)
        except OSError as error:
            raise NotSaved(f"The backup was not restored: {error.strerror or error}.") from error
        finally:
            remove(draft)
        return count
    finally:
        lock.release()


def _write(config: Config, draft: Path, *, last: bool) -> list[str]:
    """The archive; which versions have no folder, where this is the last try. Raises FileNotFoundError before that."""
    database, missing = draft.with_name("mynah.db"), list[str]()
    store = Store(config.database)
    try:
        store.database.copy_to(database)
    finally:
        store.database.close()
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        draft.chmod(0o600)  # it holds everything that anybody ever wrote
        copied = Store(database)
        try:
            rows = [(user.name, v) for user in copied.people.all() for v in copied.versions.versions(user.id)]
        finally:
            copied.close()
        hashes = {"mynah.db": sha256_file(database)}
        archive.write(database, "mynah.db")
        files = sorted(config.latents.glob("*/latents.safetensors"))
        for owner, version in rows:
            folder = config.adapters / version.user_id / version.name
            if version.forgotten_at is not None:
                continue
            if last and not folder.is_dir():
                missing.append(f"{owner}'s {version.name}")
            else:
                files += sorted(folder.iterdir())
        for path in files:
            name = path.relative_to(config.data_dir).as_posix()
            if _MEMBER.fullmatch(name):  # else it is nothing of ours: what a file manager keeps, for one
                archive.write(path, name)
                hashes[name] = sha256_file(path)
        about = {"format": FORMAT, "made_at": now(), "sha256": hashes}
        archive.writestr("manifest.json", json.dumps(about, indent=1, sort_keys=True))
    return missing


def _unpack(file: Path, folder: Path) -> int:
    """Unpack, comparing every hash. Raises CorruptFile, InvalidInput."""
    try:
        with zipfile.ZipFile(file) as archive:
            about = json.loads(archive.read("manifest.json"))
            if about["format"] != FORMAT:
                raise InvalidInput(f"{file} has the backup format {about['format']}; this Mynah reads {FORMAT}.")
            hashes: dict[str, str] = about["sha256"]
            for name, expected in hashes.items():
                if not _MEMBER.fullmatch(name):
                    raise CorruptFile(f"{file} holds {name!r}, which belongs in no backup; it was not restored.")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
                    out.flush()
                    os.fsync(out.fileno())
                if sha256_file(target) != expected:
                    raise CorruptFile(f"{name} in {file} is damaged; it was not restored.")
            return len(hashes)
    except (CorruptFile, InvalidInput):
        raise
    # RuntimeError: it is encrypted, or packed in a way that Python does not know; the last two: another manifest.
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, KeyError, ValueError, TypeError,
        AttributeError,
    ) as error:  # fmt: skip
        raise CorruptFile(f"{file} is no backup of Mynah, or a damaged one ({error}).") from error
