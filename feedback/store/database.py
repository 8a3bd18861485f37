"""The connection: one SQLite file, one writer at a time, on disk before anything is acknowledged.

WAL with synchronous=FULL survives a power cut; BEGIN IMMEDIATE instead of sqlite-utils' deferred BEGIN avoids "database
is locked" when several processes read and then write. Threads share one connection behind a lock: every transaction
is a few milliseconds.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlite_utils

from feedback.errors import Busy, CorruptFile, MynahError, NotFound, NotSaved
from feedback.migrations import MIGRATIONS

Row = dict[str, Any]
PATIENCE = 30  # seconds to wait for another process's write
BRIEFLY, AGAIN, LAST = 0.2, 5.0, 2.0  # seconds to wait for readers elsewhere, until the next try, and when closing
_BEFORE = ".before-"  # in the names of copies: mynah.db.before-m005_forgetting
_REFUSALS = ("full", "disk I/O", "readonly", "unable to open")  # how SQLite says that the disk refuses

log = logging.getLogger(__name__)


class Database:
    """Opens (and migrates) the file; hands out transactions."""

    def __init__(self, path: Path | None) -> None:
        """path: the file, or None for one in memory (tests)."""
        self.path = path
        self._lock = threading.RLock()
        self._owed: threading.Timer | None = None  # the next try to empty the write-ahead log, while it is not
        left = path is not None and _log_size(path) > 0  # by a process that was killed, or beside one that runs
        if path is not None and _is_cut(path):
            raise self._damaged("its end is missing")
        try:
            connection = sqlite3.connect(
                str(path) if path else ":memory:", timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._db = sqlite_utils.Database(connection)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._migrate()
        except sqlite3.OperationalError as error:
            raise NotSaved(
                f"The database {path} cannot be opened: {error}. Check the disk and its permissions."
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        self._owe(left)

    @contextmanager
    def transaction(self) -> Iterator[sqlite_utils.Database]:
        """All writes of the block or none, on disk when it ends.

        Raises NotSaved when the disk refuses, CorruptFile when the file is damaged, NotFound when what a row belongs to
        (a person, a chat) was deleted meanwhile.
        """
        with self._lock, self._whole(), self._refused():
            try:
                if self._db.conn.in_transaction:  # one public method calling another: still one transaction
                    yield self._db
                    return
                self._db.conn.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.conn.execute("COMMIT")
                except BaseException:
                    if self._db.conn.in_transaction:
                        self._db.conn.execute("ROLLBACK")
                    raise
            except sqlite3.IntegrityError as error:
                if "FOREIGN KEY" in str(error):
                    raise NotFound("What this belongs to was deleted meanwhile; nothing was kept.") from error
                raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query, as dictionaries. Raises CorruptFile when the file is damaged."""
        with self._lock, self._whole():
            cursor = self._db.execute(sql, list(values))
            try:
                names = [column[0] for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor]
            finally:
                cursor.close()  # one that broke off would keep its table locked

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of a query, or None."""
        rows = self.rows(sql, values)
        return rows[0] if rows else None

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None. Raises CorruptFile when the file is damaged."""
        with self._lock, self._whole():
            found = self._db.execute(sql, list(values)).fetchone()
        return found[0] if found else None

    def leave_no_trace(self) -> None:
        """What was deleted is in no file any more: not in the write-ahead log, nor in what was kept from before an
        upgrade. As `checkpoint`, and nothing happens within a transaction."""
        with self._lock:
            if self.path is None or self._db.conn.in_transaction:
                return
            try:
                self.checkpoint()
            finally:
                for copy in copies_of(self.path):
                    copy.unlink(missing_ok=True)

    def checkpoint(self, patience: float = BRIEFLY) -> None:
        """Fold the write-ahead log into the file and empty it; nothing happens within a transaction.

        While somebody elsewhere reads it cannot be done: then, or when the disk refuses, it is tried again every AGAIN
        seconds. patience: seconds to wait, and everybody here with us. Raises as `transaction` does.
        """
        with self._lock, self._whole(), self._refused():
            db, owed = self._db.conn, True
            if db.in_transaction:
                return
            (usual,) = db.execute("PRAGMA busy_timeout").fetchone()
            try:
                db.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
                owed = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] != 0
            finally:
                db.execute(f"PRAGMA busy_timeout = {usual}")
                self._owe(owed)

    def _owe(self, owed: bool) -> None:
        """Try a checkpoint again soon, or no more."""
        with self._lock:
            if self._owed is not None:
                self._owed.cancel()
            self._owed = threading.Timer(AGAIN, self._pay) if owed else None
            if self._owed is not None:
                self._owed.daemon = True
                self._owed.start()

    def _pay(self) -> None:
        with self._lock:
            if self._owed is None:  # done meanwhile, or closed
                return
            try:
                self.checkpoint()
            except MynahError as error:  # the next try comes by itself
                log.warning("what was deleted is still in the write-ahead log: %s", error)

    def copy_to(self, path: Path) -> None:
        """A consistent copy of the live database in another file. Raises NotSaved, CorruptFile."""
        target = sqlite3.connect(path)
        try:
            with self._lock, self._whole():
                self._db.conn.backup(target)
        except sqlite3.OperationalError as error:
            raise NotSaved(f"The database was not copied to {path}: {error}. Free some space and try again.") from error
        finally:
            target.close()

    def check(self, *, quick: bool = False) -> str:
        """SQLite's own integrity check: "ok" or what is wrong. quick: without comparing indexes to their tables."""
        try:
            return str(self.value(f"PRAGMA {'quick' if quick else 'integrity'}_check"))
        except CorruptFile as error:  # damaged too badly to be checked
            return str(error.__cause__)

    def require_sound(self) -> None:
        """Raises CorruptFile when SQLite finds the file damaged, so that nothing is built on it."""
        verdict = self.check(quick=True)
        if verdict != "ok":
            raise self._damaged(verdict.splitlines()[0])

    def close(self) -> None:
        """Close the connection; further calls fail. A checkpoint that is owed gets a last chance."""
        with self._lock:
            if self._owed is not None:
                try:
                    self.checkpoint(LAST)
                except MynahError as error:
                    log.warning("what was deleted is still in the write-ahead log: %s", error)
            self._owe(False)
            self._db.close()

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Says in words that the disk refuses, or that others keep the database busy."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if any(word in str(error) for word in _REFUSALS):
                raise NotSaved(f"Not saved: the disk refused ({error}). Free some space and try again.") from error
            if "locked" in str(error):
                raise Busy(f"Not saved: the database was busy for {PATIENCE} s. Try again.") from error
            raise

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Says in words that the file is damaged, where SQLite stumbles over it."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) is sqlite3.DatabaseError or "decode to UTF-8" in str(error):
                raise self._damaged(error) from error
            raise

    def _damaged(self, what: object) -> CorruptFile:
        return CorruptFile(f"The database {self.path} is damaged: {what}. Restore a backup (app.py restore).")

    def _migrate(self) -> None:
        """Apply missing migrations, one process at a time, and keep a copy of what was there; refuse a database from a
        newer Mynah."""
        known = {migration.name for migration in MIGRATIONS.pending(self._db)} | {
            migration.name for migration in MIGRATIONS.applied(self._db)
        }
        newer = [m.name for m in MIGRATIONS.applied(self._db) if m.name not in _names()]
        if newer:
            kept = [copy.name for copy in copies_of(self.path)] if self.path else []
            instead = f", or put {kept[-1]} in its place, the copy from before the upgrade" if kept else ""
            raise CorruptFile(
                f"The database {self.path} was written by a newer Mynah (it has {newer[-1]}). Upgrade, or restore a "
                f"backup made before the upgrade{instead}."
            )
        assert known, "there is at least one migration"
        if MIGRATIONS.pending(self._db):
            with self.transaction():
                if MIGRATIONS.applied(self._db) and (pending := MIGRATIONS.pending(self._db)):
                    self._keep_copy(pending[0].name)
                MIGRATIONS.apply(self._db)

    def _keep_copy(self, before: str) -> None:
        """The database as it is before a migration, complete in a file beside it: the way back for whoever must go on
        with the older Mynah. It would still hold what is deleted later, so it goes with the first deletion."""
        if self.path is None:
            return
        kept = self.path.with_name(f"{self.path.name}{_BEFORE}{before}")
        draft = kept.with_name(f"{kept.name}.part")
        for other in copies_of(self.path):  # the way back leads one step
            other.unlink()
        try:
            _copy(self.path, draft)
            draft.chmod(self.path.stat().st_mode)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.rename(kept)
        finally:
            draft.unlink(missing_ok=True)


def _copy(path: Path, target: Path) -> None:
    """What is committed, through connections of their own: one that is writing cannot be copied from."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def copies_of(path: Path) -> list[Path]:
    """What is kept of a database from before its upgrades, oldest first."""
    return sorted(path.parent.glob(f"{path.name}{_BEFORE}*"))


def _log_size(path: Path) -> int:
    """How many bytes a database's write-ahead log has."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except OSError:
        return 0


def _is_cut(path: Path) -> bool:
    """Whether a file ends within a page, which SQLite would fill up with zeros. While there is a write-ahead log, the
    whole pages may lie there."""
    try:
        size = path.stat().st_size
        if not size or _log_size(path):
            return False
        with path.open("rb") as file:
            page = int.from_bytes(file.read(18)[16:], "big")
    except OSError:
        return False  # what is wrong with it, SQLite will say
    return size < 512 or size % (65_536 if page == 1 else max(page, 512)) != 0


def _names() -> set[str]:
    fresh = sqlite_utils.Database(memory=True)
    return {migration.name for migration in MIGRATIONS.pending(fresh)}
