"""What is deleted leaves the file, also where somebody else reads it or the disk refuses for a while."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from feedback.errors import NotSaved
from feedback.store import Store, database
from tests.feedback.helpers import add_person

WORD = "the-canary-in-the-coal-mine"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that a word was said to, folded into its file. What is owed is tried again quickly."""
    monkeypatch.setattr(database, "AGAIN", 0.05)
    store = Store(tmp_path / "mynah.db")
    store.chats.start(add_person(store).id, WORD)
    store.database.checkpoint()
    return store


def holds(folder: Path) -> bool:
    """Whether the word is in any file of a folder."""
    return any(WORD.encode() in file.read_bytes() for file in folder.iterdir())


def delete(store: Store) -> float:
    """Delete all conversations for good, as the trash does; how many seconds it took."""
    (user,) = store.people.all()
    for talk in store.chats.every_conversation(user.id):
        store.chats.put_away(user.id, talk.id)
    began = time.perf_counter()
    assert store.chats.purge(list(store.chats.all_put_away())) == 1
    return time.perf_counter() - began


def reader_of(path: Path) -> sqlite3.Connection:
    """Somebody elsewhere, in the middle of reading."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin")
    other.execute("select count(*) from conversations").fetchone()
    return other


def soon(true: Callable[[], bool]) -> bool:
    """Whether it comes true within some seconds."""
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_a_reader_elsewhere_delays_nobody_and_what_was_deleted_goes_when_it_ends(told: Store, tmp_path: Path) -> None:
    reader = reader_of(tmp_path / "mynah.db")
    assert delete(told) < 5, "nobody waits for it"
    assert told.database.value("PRAGMA busy_timeout") == database.PATIENCE * 1000, "other writers have their time"
    time.sleep(0.5)  # it is tried again meanwhile
    assert holds(tmp_path)
    reader.close()
    assert soon(lambda: not holds(tmp_path))
    assert soon(lambda: told.database._owed is None), "and is tried no more"
    told.close()


def test_what_is_owed_is_tried_once_more_at_the_end(
    told: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "AGAIN", 3600.0)
    reader = reader_of(tmp_path / "mynah.db")
    delete(told)
    reader.execute("commit")  # still there, so that the file is not folded because it was the last to close
    assert holds(tmp_path)
    told.database.close()
    assert not holds(tmp_path)
    reader.close()


def test_what_a_killed_process_owed_goes_after_the_next_start(told: Store, tmp_path: Path) -> None:
    reader = reader_of(tmp_path / "mynah.db")
    delete(told)
    image = tmp_path / "image"  # as a kill at this moment leaves it
    image.mkdir()
    for name in ("mynah.db", "mynah.db-wal"):
        shutil.copy(tmp_path / name, image)
    reader.close()
    told.close()
    store = Store(image / "mynah.db")
    assert soon(lambda: not holds(image))
    store.close()


def test_a_disk_that_refuses_a_checkpoint_is_named_and_tried_again(
    told: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A connection to a disk without room."""

        in_transaction = False

        def execute(self, sql: str) -> sqlite3.Cursor:
            if "checkpoint" in sql:
                raise sqlite3.OperationalError("database or disk is full")
            return connection.execute(sql)

    connection = told.database._db.conn
    monkeypatch.setattr(database, "AGAIN", 3600.0)
    (user,) = told.people.all()
    for talk in told.chats.every_conversation(user.id):
        told.chats.remove(user.id, talk.id)
    with monkeypatch.context() as patch:
        patch.setattr(told.database._db, "conn", Full())
        with pytest.raises(NotSaved, match="disk refused"):
            told.database.leave_no_trace()
        patch.setattr(database, "AGAIN", 0.05)
        told.database._pay()  # still refused, and no error to whoever calls
        assert told.database._owed is not None
    assert soon(lambda: not holds(tmp_path))
    told.close()
