"""One file with everything that cannot be made again: the database, all adapter versions, and what features are along.

Works beside a running server. The database is copied first, in one consistent piece; the version folders it speaks of
were complete before their rows were, and never change. Left out on purpose: base models and the shared pool, which are
made again, and updates under way, which start anew.

    mynah-backup.zip
        manifest.json       what made it, and the sha256 of every file
        mynah.db
        adapters/<user id>/v<N>/…
        latents/<base>/latents.safetensors
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.files import TEMPORARY, fsync, sha256_file
from assistant.config import Config
from assistant.lock import DataLock
from feedback.errors import Conflict, CorruptFile, InvalidInput, NotFound, NotSaved
from feedback.store import Store
from feedback.types import now

FORMAT = 1
TRIES = 3
_MEMBER = re.compile(
    r"mynah\.db|adapters/u_[0-9a-f]+/v[0-9]+/[A-Za-z0-9_-][A-Za-z0-9_.-]*|latents/[A-Za-z0-9_][\w.-]*/latents\.safetensors"
)


def backup(config: Config, out: Path) -> int:
    """Write a backup; its size in bytes. Raises NotFound, Conflict for a file that exists, NotSaved."""
    if not config.database.is_file():
        raise NotFound(f"There is nothing to back up: {config.data_dir} holds no database.")
    if out.exists():
        raise Conflict(f"{out} exists already; choose another name or remove it first.")
    draft = out.parent / f"{TEMPORARY}{out.name}-{os.getpid()}"
    try:
        for attempt in range(TRIES):
            try:
                _write(config, draft)
                break
            except FileNotFoundError:  # a person was removed between the copy of the database and that of their folders
                if attempt == TRIES - 1:
                    raise
        fsync(draft)
        draft.rename(out)
        fsync(out.parent.resolve())
    except OSError as error:
        raise NotSaved(f"The backup {out} was not written: {error.strerror or error}.") from error
    finally:
        draft.unlink(missing_ok=True)
    return out.stat().st_size


def restore(config: Config, file: Path) -> int:
    """Unpack a backup into an empty data folder; the number of files.

    Raises Conflict beside a running Mynah or when the folder holds data, CorruptFile for a damaged backup, NotFound.
    """
    if not file.is_file():
        raise NotFound(f"There is no file {file}.")
    lock = DataLock(config.data_dir, "restore")
    try:
        if there := sorted(path.name for path in config.data_dir.iterdir() if path.name != "lock"):
            raise Conflict(
                f"{config.data_dir} is not empty (it holds {there[0]}); restore into an empty folder with --data-dir."
            )
        draft = config.data_dir / f"{TEMPORARY}restore"
        try:
            count = _unpack(file, draft)
            Store(draft / "mynah.db").close()  # opens, migrates, and so finds out whether it is a database at all
            for name in ("adapters", "latents", "mynah.db"):  # the database last: without it the folder counts as empty
                if (draft / name).exists():
                    (draft / name).rename(config.data_dir / name)
            fsync(config.data_dir)
        except OSError as error:
            raise NotSaved(f"The backup was not restored: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return count
    finally:
        lock.release()


def _write(config: Config, draft: Path) -> None:
    with (
        _copy_of(config.database) as database,
        zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        draft.chmod(0o600)  # it holds everything that anybody ever wrote
        hashes = {"mynah.db": sha256_file(database)}
        archive.write(database, "mynah.db")
        copied = Store(database)
        try:
            versions = [v for user in copied.people.all() for v in copied.versions.versions(user.id)]
        finally:
            copied.close()
        folders = [config.adapters / v.user_id / v.name for v in versions if v.forgotten_at is None]
        files = [path for folder in folders for path in sorted(folder.iterdir())]
        for path in [*files, *sorted(config.latents.glob("*/latents.safetensors"))]:
            name = path.relative_to(config.data_dir).as_posix()
            archive.write(path, name)
            hashes[name] = sha256_file(path)
        about = {"format": FORMAT, "made_at": now(), "sha256": hashes}
        archive.writestr("manifest.json", json.dumps(about, indent=1, sort_keys=True))


@contextmanager
def _copy_of(database: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}backup-", dir=database.parent) as folder:
        store = Store(database)
        try:
            copy = Path(folder) / "mynah.db"
            store.database.copy_to(copy)
        finally:
            store.database.close()
        yield copy


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
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise CorruptFile(f"{file} is no backup of Mynah, or a damaged one ({error}).") from error
