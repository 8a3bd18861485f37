"""The database file: migrated, locked, killed in the middle, cut, overwritten. What was acknowledged is there."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlite_utils import Database, Migrations

from feedback.errors import Busy, CorruptFile, NotSaved
from feedback.migrations import MIGRATIONS
from feedback.store import Store, database
from feedback.store.database import copies_of
from feedback.types import User
from tests.feedback.helpers import add_person, make_reply, thumb
from tests.soak import cases

ROOT = Path(__file__).parents[2]


def test_an_empty_file_is_migrated_and_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "mynah.db"
    path.touch()
    store = Store(path)
    user = add_person(store)
    store.close()
    again = Store(path)
    assert again.people.get(user.id) == user
    assert again.database.value("PRAGMA journal_mode") == "wal"
    assert again.database.value("PRAGMA synchronous") == 2  # FULL
    assert again.database.check() == "ok"
    again.close()


def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "mynah.db"
    Store(path).close()
    with sqlite3.connect(path) as raw:
        columns = [row[1] for row in raw.execute("pragma table_info(_sqlite_migrations)")]
        values = {"migration_set": "mynah", "name": "m999_future", "applied_at": "2099-01-01"}
        marks = ", ".join("?" * len(columns))
        raw.execute(f"insert into _sqlite_migrations values ({marks})", [values.get(name) for name in columns])
    raw.close()
    before = path.read_bytes()
    with pytest.raises(CorruptFile, match=r"newer Mynah.*m999_future.*made before the upgrade\.$"):
        Store(path)
    assert path.read_bytes() == before
    (tmp_path / "mynah.db.before-m999_future").touch()
    with pytest.raises(CorruptFile, match=r"put mynah.db.before-m999_future in its place"):
        Store(path)


def dump(path: Path) -> list[str]:
    """All that a database holds, as SQL."""
    raw = sqlite3.connect(path)
    lines = list(raw.iterdump())
    raw.close()
    return lines


def old_database(path: Path, steps: int) -> None:
    """A database as the Mynah left it that had so many of today's migrations, with somebody's things in it."""
    raw = sqlite3.connect(path)
    raw.execute("pragma foreign_keys = on")  # as every Mynah has it
    older = Migrations("mynah")
    for migration in MIGRATIONS.pending(Database(memory=True))[:steps]:
        older(name=migration.name)(migration.fn)
        older.apply(Database(raw))
        if migration.name == "m001_start":
            raw.executescript(FIRST)
    raw.commit()
    raw.close()


FIRST = """
insert into users (id, name, name_key, password_hash, admin, created_at) values ('u_1', 'Ada', 'ada', 'h', 1, '2026');
insert into conversations values ('c_1', 'u_1', 'Bees', 'Be kind.', 1, '2026', '2026');
insert into replies values ('r_1', 'u_1', 'c_1', 'g', '[]', 'Pollen.', 'base', null, 'b', '{}', 1, x'', 1, 1, 'chat',
    x'', '2026');
insert into replies values ('r_2', 'u_1', null, 'g', '[]', 'Honey.', 'base', null, 'b', '{}', 1, x'', 1, 1, 'kept',
    x'', '2026');
insert into messages values ('m_1', 'c_1', 0, 'user', 'What do bees eat?', null);
insert into messages values ('m_2', 'c_1', 1, 'assistant', 'Pollen.', 'r_1');
insert into feedback values ('f_1', 'u_1', 'thumb', '{"reply_id": "r_1", "thumb": 1}', '2026', null);
insert into feedback_replies values ('f_1', 'r_1');
insert into feedback values ('f_2', 'u_1', 'thumb', '{"reply_id": "r_2", "thumb": 0}', '2026', null);
insert into feedback_replies values ('f_2', 'r_2');
insert into preferences values ('f_1', 'u_1', 'b', 'p', 1, 'thumb', '[]', 1, 0.0, 1, x'00', 0);
insert into counters values ('u_1', 'label', 1);
insert into updates (id, user_id, base_id, state, trigger, seed, first_label, last_label, config, version, created_at)
    values ('up_1', 'u_1', 'b', 'promoted', 'asked', 1, 1, 1, '{}', 1, '2026');
insert into versions values ('u_1', 1, 'b', 'active', null, 'up_1', 1, 1, 1, '{}', '{}', '[]', 'hash', '2026');
insert into active_versions values ('u_1', 'b', 1);
insert into sessions values ('token', 'u_1', '2026', '2999');
insert into api_keys values ('k_1', 'u_1', 'key', 'my…', '2026', null);
"""
STEPS = [migration.name for migration in MIGRATIONS.pending(Database(memory=True))]


def test_updates_in_line_forget_a_number_that_nobody_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "mynah.db"
    old_database(path, STEPS.index("m010_sure"))
    raw = sqlite3.connect(path)
    config = '{"pool": {}, "gate": {"preferred": 0.5, "kl_most": 0.3}}'
    for number, state in enumerate(("queued", "rejected")):
        raw.execute(
            "insert into updates (id, user_id, base_id, state, trigger, seed, first_label, last_label, config, "
            f"created_at) values ('in_{number}', 'u_1', 'b', '{state}', 'asked', 1, 1, 1, ?, '2026')",
            [config],
        )
    raw.commit()
    raw.close()
    store = Store(path)
    waits, was = (store.versions.update("u_1", f"in_{number}").config for number in range(2))
    assert waits == {"pool": {}, "gate": {"kl_most": 0.3}}
    assert was["gate"]["preferred"] == 0.5, "what was, stays"


@pytest.mark.parametrize("steps", range(1, len(STEPS)), ids=STEPS[:-1])
def test_a_database_of_every_earlier_mynah_is_brought_up_and_a_copy_is_kept(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "mynah.db"
    old_database(path, steps)
    before = dump(path)
    store = Store(path)
    user = store.people.get("u_1")
    assert [m.content for m in store.chats.messages("c_1")] == ["What do bees eat?", "Pollen."]
    assert store.chats.conversation("u_1", "c_1").system == "Be kind."
    thumbs = [event.payload["thumb"] for event in store.acts.events("u_1")]
    assert thumbs == [1, 0] and store.acts.label_count("u_1") == 1
    assert [reply.id for reply in store.chats.all_replies("u_1")] == ["r_1"], "nothing was learned from the other"
    active = store.versions.active("u_1", "b")
    assert active is not None and active.name == "v1" and store.versions.updates("u_1")[0].version == 1
    assert store.people.session_user("token") == user == store.people.key_user("key")
    assert [hit.message_id for hit in store.search.find("u_1", "bees")] == ["m_1"]
    assert store.database.check() == "ok" and store.database.rows("pragma foreign_key_check") == []
    thumb(store, user)
    store.close()
    (copy,) = copies_of(path)
    assert copy.name == f"mynah.db.before-{STEPS[steps]}"
    assert dump(copy) == before, "the way back is what there was"
    Store(path).close()
    assert copies_of(path) == [copy], "once is enough"


def test_the_copy_from_before_goes_with_the_first_that_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "mynah.db"
    old_database(path, 1)
    store = Store(path)
    assert copies_of(path) != []
    store.chats.put_away("u_1", "c_1")
    store.chats.purge(["c_1"])
    assert copies_of(path) == []
    store.close()
    assert not any(b"What do bees eat" in file.read_bytes() for file in tmp_path.iterdir())


def test_an_upgrade_that_cannot_keep_a_copy_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mynah.db"
    old_database(path, 1)
    before = dump(path)

    def full(path: Path, target: Path) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(database, "_copy", full)
    with pytest.raises(NotSaved):
        Store(path)
    assert dump(path) == before and copies_of(path) == []


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mynah.db"
    path.write_bytes(b"not a database, " * 400)
    with pytest.raises(CorruptFile, match="damaged"):
        Store(path)
    with pytest.raises(NotSaved, match="cannot be opened"):
        Store(tmp_path / "absent" / "mynah.db")


def test_a_full_disk_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "mynah.db")
    user = add_person(store)
    before = thumb(store, user)
    pages = store.database.value("PRAGMA page_count")
    store.database.value(f"PRAGMA max_page_count = {pages}")
    long = make_reply(user, "x" * 200_000)
    with pytest.raises(NotSaved, match="disk refused"):
        store.chats.add_replies([make_reply(user), long])
    assert len(store.chats.all_replies(user.id)) == 1
    store.database.value(f"PRAGMA max_page_count = {pages + 1000}")  # space again: all goes on
    store.chats.add_replies([long])
    assert store.acts.event(user.id, before).retracted_at is None
    store.close()


def test_an_endless_writer_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    store = Store(tmp_path / "mynah.db")
    other = sqlite3.connect(tmp_path / "mynah.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy):
        add_person(store)
    other.execute("ROLLBACK")
    other.close()
    add_person(store)
    store.close()


def test_a_transaction_is_all_or_nothing() -> None:
    store = Store(None)
    user = add_person(store)
    with pytest.raises(ZeroDivisionError), store.database.transaction():
        thumb(store, user)
        _ = 1 / 0
    assert store.acts.events(user.id) == [] and store.acts.label_count(user.id) == 0
    assert store.acts.preferences(user.id) == []
    store.close()


def test_a_copy_is_whole_while_writes_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "mynah.db")
    user = add_person(store)
    thumb(store, user)
    store.database.copy_to(tmp_path / "copy.db")
    thumb(store, user)
    store.close()
    copy = Store(tmp_path / "copy.db")
    assert copy.acts.label_count(user.id) == 1 and copy.database.check() == "ok"
    copy.close()


# ---- processes ----------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from feedback.store import Store
from tests.feedback.helpers import thumb
store = Store(Path(sys.argv[1]))
user = store.people.get(sys.argv[2])
for _ in range(int(sys.argv[3])):
    print(thumb(store, user), flush=True)
store.close()
"""


def start_writer(path: Path, user: User, count: int) -> subprocess.Popen[str]:
    """A process that acknowledges each act on its output once the store has returned."""
    command = [sys.executable, "-c", WRITER, str(path), user.id, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


NURSERY = """
import os, sys
from pathlib import Path
from feedback.store import Store
from tests.feedback.helpers import thumb
for _ in sys.stdin:
    if not os.fork():
        print(os.getpid(), flush=True)
        store = Store(Path(sys.argv[1]))
        user = store.people.get(sys.argv[2])
        while True:
            print(thumb(store, user), flush=True)
    os.wait()
    print("killed", flush=True)
"""


def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """One writer after the other, forked by a process that has imported all there is to import."""
    path, kills, acknowledged = tmp_path / "mynah.db", cases(1000), set[str]()
    store = Store(path)
    user = add_person(store)
    random = np.random.default_rng(3)
    command = [sys.executable, "-c", NURSERY, str(path), user.id]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        assert nursery.stdin is not None and nursery.stdout is not None
        for number in range(kills):
            print(file=nursery.stdin, flush=True)
            writer = int(nursery.stdout.readline())
            seen = [nursery.stdout.readline().strip() for _ in range(random.integers(2, 30))]
            os.kill(writer, signal.SIGKILL)
            seen += iter(lambda: nursery.stdout.readline().strip(), "killed")
            acknowledged.update(seen)
            if number % 50 == kills % 50:  # to read all of them takes its time
                assert acknowledged <= {event.id for event in store.acts.events(user.id)}
        nursery.stdin.close()
    # Every event has its label. A reply and the click on it are two steps: each kill may come between them.
    assert "" not in acknowledged and acknowledged <= {event.id for event in store.acts.events(user.id)}
    events, replies = len(store.acts.events(user.id)), len(store.chats.all_replies(user.id))
    assert store.acts.label_count(user.id) == events <= replies <= events + kills
    assert store.database.check() == "ok"
    store.close()


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mynah.db"
    store = Store(path)
    user = add_person(store)
    writers = [start_writer(path, user, 25) for _ in range(3)]
    mine = [thumb(store, user) for _ in range(25)]
    theirs = [line for writer in writers for line in writer.communicate()[0].split()]
    assert all(writer.returncode == 0 for writer in writers)
    assert {event.id for event in store.acts.events(user.id)} == {*mine, *theirs}
    seqs = [preference.seq for preference, _ in store.acts.preferences(user.id)]
    assert seqs == list(range(1, 101))  # the counter never gave a number twice
    store.close()


# ---- damage -------------------------------------------------------------------------------------------------------


def filled(path: Path) -> int:
    """A database of some hundred pages in one file; its size."""
    store = Store(path)
    for name in ("ada", "bob"):
        user = add_person(store, name)
        for _ in range(30):
            thumb(store, user)
    store.close()
    return path.stat().st_size


def use(path: Path) -> str:
    """Open it as a server does, and read and write all over it; what SQLite's check says."""
    store = Store(path)
    try:
        store.database.require_sound()
        for user in store.people.all():
            list(store.acts.events(user.id))
            store.acts.preferences(user.id)
            store.chats.all_replies(user.id)
        thumb(store, add_person(store, "eve"))
        return store.database.check()
    finally:
        store.close()


@pytest.mark.parametrize("harm", ["flipped", "truncated"])
def test_a_damaged_database_is_refused_in_words(tmp_path: Path, harm: str) -> None:
    """Wherever the damage is: SQLite finds it, or it is within a text, where a changed letter is another text."""
    path, random = tmp_path / "mynah.db", np.random.default_rng(5)
    size = filled(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(cases(1000)):
        for rest in tmp_path.glob("mynah.db*"):
            rest.unlink()
        place = int(random.integers(100, size))
        block = bytes(random.integers(0, 256, 64, dtype=np.uint8))
        path.write_bytes(whole[:place] if harm == "truncated" else whole[:place] + block + whole[place + 64 :])
        try:
            verdict = use(path)
        except CorruptFile as error:
            refused += "is damaged" in error.message and "app.py restore" in error.message
        except ValueError:  # a text that is no longer JSON or no longer text
            assert harm == "flipped"
        else:
            assert harm == "flipped" or verdict != "ok", f"cut to {place} of {size} bytes"
    assert refused >= cases(1000) * (1.0 if harm == "truncated" else 0.05), "most of the file is text"
