"""Look a data folder over: what is wrong, and how to mend it. Changes nothing.

Works beside a running server and on a folder whose server does not start any more.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from adapters.versions import VersionFiles
from assistant.adoption import debris
from assistant.config import Config
from assistant.lock import describe, holder
from feedback.errors import CorruptFile, MynahError
from feedback.store import Store
from feedback.store.database import copies_of

LOW_DISK = 500 * 2**20


@dataclass(frozen=True)
class Finding:
    """One thing looked at. mend: what to do, empty where nothing is wrong."""

    what: str
    mend: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is to be done."""
        return not self.mend


def examine(config: Config) -> Iterator[Finding]:
    """Everything, one finding at a time."""
    server = holder(config.data_dir)
    yield Finding(f"running now: {describe(server)}" if server is not None else "no server is running on this folder")
    yield _disk(config)
    yield _base(config)
    if not config.database.is_file():
        yield Finding(
            f"there is no database in {config.data_dir}",
            "start Mynah once to make one, name the right folder with --data-dir, or restore a backup",
        )
        return
    try:
        store = Store(config.database)
    except MynahError as error:
        yield Finding(error.message, "restore a backup into an empty folder with `app.py restore FILE --data-dir DIR`")
        return
    try:
        yield from _database(store)
        yield from _versions(store, config)
        yield from _debris(store, config)
    finally:
        store.database.close()


def _disk(config: Config) -> Finding:
    place = next(folder for folder in (config.data_dir, *config.data_dir.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < LOW_DISK:
        return Finding(f"only {free >> 20} MB are free in {place}", "make room; an update needs some hundred MB")
    return Finding(f"{free >> 30} GB are free for the data folder")


def _base(config: Config) -> Finding:
    """Whether the base is prepared, without importing what would load it."""
    from adapters.files import read_json

    for about in sorted(config.models_dir.glob("*/base.json")):
        try:
            found = read_json(about)["source"] == config.base_model
        except (OSError, ValueError, KeyError, TypeError):
            found = False
        if found and config.quantize != "none":
            if any((about.parent / config.quantize).glob("*.safetensors")):
                return Finding(f"the base model {config.base_model} is ready in {about.parent}")
        elif found:
            return Finding(f"the base model {config.base_model} is ready")
    return Finding(
        f"the base model {config.base_model} ({config.quantize}) is not in {config.models_dir}",
        "`app.py serve` fetches and prepares it at its next start",
    )


def _database(store: Store) -> Iterator[Finding]:
    verdict = store.database.check()
    if verdict == "ok":
        yield Finding("the database is sound")
    else:
        yield Finding(f"the database is damaged: {verdict.splitlines()[0]}", "restore a backup into an empty folder")
    for copy in copies_of(store.database.path) if store.database.path else ():
        yield Finding(f"{copy.name} is the database from before an upgrade; the next deletion takes it along")
    if not any(user.admin for user in store.people.all()):
        yield Finding(
            "there is no admin", "`app.py serve` makes one, or `app.py user add NAME --admin --password-stdin`"
        )


def _versions(store: Store, config: Config) -> Iterator[Finding]:
    """Every row's folder, by hash."""
    files, sound = VersionFiles(config.adapters), 0
    for user in store.people.all():
        for version in store.versions.versions(user.id):
            if version.forgotten_at is not None:
                continue
            try:
                files.check(version)
                sound += 1
            except CorruptFile as error:
                mend = f"{user.name} can activate another version or base; a backup has the files of {version.name}"
                yield Finding(f"{user.name}: {error.message}", mend)
    yield Finding(f"{sound} adapter versions are whole")


def _debris(store: Store, config: Config) -> Iterator[Finding]:
    left = debris(store, config.adapters, config.jobs)
    if not left:
        yield Finding("nothing is left over from interrupted work")
    for path in left:
        yield Finding(f"{path} belongs to nothing", "the next start of the server removes it")
