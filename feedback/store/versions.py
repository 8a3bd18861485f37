"""Updates and the adapter versions they made; which version is active is one row a person and base."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from feedback.errors import Conflict, NotFound
from feedback.store.acts import count_up
from feedback.store.database import Database, Row
from feedback.store.trials import VersionTrials, begun
from feedback.types import (
    LIVE_STATES,
    AdapterVersion,
    Example,
    TrialEnd,
    TrialEvent,
    Update,
    UpdateState,
    VersionStatus,
    new_id,
    now,
)

_LIVE = ", ".join(f"'{state}'" for state in LIVE_STATES)


class Versions:
    """Tables updates, versions, active_versions and examples."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._trials = VersionTrials(database)

    # ---- updates --------------------------------------------------------------------------------------------------

    def queue(
        self,
        user_id: str,
        base_id: str,
        trigger: str,
        seed: int,
        parent: int | None,
        labels: tuple[int, int],
        config: dict[str, Any],
    ) -> Update:
        """Put an update in the queue. Raises Conflict when the person has one under way."""
        update_id = new_id("up")
        with self._db.transaction() as db:
            try:
                db.execute(
                    "insert into updates (id, user_id, base_id, state, trigger, seed, parent, first_label, last_label, "
                    "config, created_at) values (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
                    [update_id, user_id, base_id, trigger, seed, parent, *labels, json.dumps(config), now()],
                )
            except sqlite3.IntegrityError as error:
                raise Conflict("An update is under way already; wait for it or cancel it.") from error
        return self.update(user_id, update_id)

    def update(self, user_id: str, update_id: str) -> Update:
        """One of the person's updates. Raises NotFound."""
        row = self._db.row("select * from updates where id = ? and user_id = ?", [update_id, user_id])
        if row is None:
            raise NotFound(f"There is no update {update_id}.")
        return _update(row)

    def updates(self, user_id: str) -> list[Update]:
        """A person's updates, newest first."""
        return [
            _update(row)
            for row in self._db.rows("select * from updates where user_id = ? order by rowid desc", [user_id])
        ]

    def live_updates(self, user_id: str | None = None) -> list[Update]:
        """Updates that are queued, running or paused, oldest first."""
        owned = "" if user_id is None else " and user_id = ?"
        rows = self._db.rows(
            f"select * from updates where state in ({_LIVE}){owned} order by rowid",
            [] if user_id is None else [user_id],
        )
        return [_update(row) for row in rows]

    def last_finished(self) -> dict[str, int]:
        """The number of each person's last update that ended, by user id: the lowest has waited longest. Numbers and
        not times, since one that a wrong clock has put into the future would leave its person waiting until then."""
        rows = self._db.rows(
            "select user_id, max(rowid) as number from updates where finished_at is not null group by user_id"
        )
        return {row["user_id"]: row["number"] for row in rows}

    def begun_between(self, user_id: str, since: str, until: str) -> list[str]:
        """When each of a person's updates began after `since` and not after `until`, oldest first; without those that
        were rejected before anything was trained."""
        rows = self._db.rows(
            "select started_at from updates where user_id = ? and started_at > ? and started_at <= ? "
            "and not (state = 'rejected' and version is null) order by started_at",
            [user_id, since, until],
        )
        return [row["started_at"] for row in rows]

    def set_progress(self, update_id: str, progress: float, eta: float | None, metrics: dict[str, Any]) -> None:
        """Keep what a running update last reported."""
        with self._db.transaction() as db:
            db.execute(
                "update updates set progress = ?, eta_seconds = ?, metrics = ? where id = ?",
                [progress, eta, json.dumps(metrics), update_id],
            )

    def set_state(
        self, update_id: str, state: UpdateState, reason: str = "", gate: Sequence[dict[str, Any]] = ()
    ) -> bool:
        """Move a live update on; False when it had ended already (an end is final)."""
        ended = None if state in LIVE_STATES else now()
        with self._db.transaction() as db:
            changed = db.execute(
                f"update updates set state = ?, reason = ?, finished_at = ?, "
                f"gate = case when ? = '[]' then gate else ? end, "
                f"started_at = case when ? = 'running' then coalesce(started_at, ?) else started_at end "
                f"where id = ? and state in ({_LIVE})",
                [state, reason, ended, json.dumps(list(gate)), json.dumps(list(gate)), state, now(), update_id],
            )
            return bool(changed.rowcount)

    def begin(self, update_id: str, parent: int | None, labels: tuple[int, int], config: dict[str, Any]) -> bool:
        """Start a queued update with what it learns from, frozen now; False when it had ended already."""
        with self._db.transaction() as db:
            db.execute(
                "update updates set parent = ?, first_label = ?, last_label = ?, config = ? where id = ?",
                [parent, *labels, json.dumps(config), update_id],
            )
            return self.set_state(update_id, "running")

    def last_label(self, user_id: str, base_id: str) -> int:
        """The newest label that any update of a person was made from, 0 without one; forgotten versions do not
        count."""
        return int(
            self._db.value(
                "select coalesce(max(updates.last_label), 0) from updates "
                "left join versions on versions.user_id = updates.user_id and number = version "
                "where updates.user_id = ? and updates.base_id = ? and forgotten_at is null",
                [user_id, base_id],
            )
        )

    # ---- versions -------------------------------------------------------------------------------------------------

    def next_number(self, user_id: str) -> int:
        """A version number that was never used and never will be again."""
        return count_up(self._db, user_id, "version")

    def add(self, version: AdapterVersion, *, activate: bool, update_state: UpdateState) -> None:
        """Enter a version whose folder is on disk, activate it or not, and end its update: one transaction.

        The version it takes over from becomes `retired`. One that is entered as on probation is served so, and its
        trial begins. Raises Conflict, entering nothing, when the update has ended.
        """
        with self._db.transaction() as db:
            trusted = self.trusted(version.user_id, version.base_id)
            db.execute(
                f"insert into versions values ({', '.join('?' * 14)}, null)",
                [
                    version.user_id, version.number, version.base_id, version.status, version.parent, version.update_id,
                    version.first_label, version.last_label, version.seed, json.dumps(version.config),
                    json.dumps(version.metrics), json.dumps(version.gate), version.manifest_sha256, version.created_at,
                ],
            )  # fmt: skip
            if activate:
                self._activate(version.user_id, version.base_id, version.number, retire_as="retired")
                if version.status == "probation":
                    self.mark(version.user_id, version.number, "probation")
                    self._trials.note(version.user_id, begun(version.number, trusted.number if trusted else None))
            if version.update_id:
                ended = db.execute(
                    f"update updates set state = ?, version = ?, gate = ?, progress = 1, eta_seconds = 0, "
                    f"finished_at = ? where id = ? and state in ({_LIVE})",
                    [update_state, version.number, json.dumps(version.gate), now(), version.update_id],
                )
                if not ended.rowcount:
                    raise Conflict("This update was cancelled meanwhile; its result is not kept.")

    def version(self, user_id: str, number: int) -> AdapterVersion:
        """One of the person's versions. Raises NotFound."""
        row = self._db.row("select * from versions where user_id = ? and number = ?", [user_id, number])
        if row is None:
            raise NotFound(f"There is no version v{number}.")
        return _version(row)

    def versions(self, user_id: str) -> list[AdapterVersion]:
        """A person's versions, oldest first, whatever their base and status."""
        rows = self._db.rows("select * from versions where user_id = ? order by number", [user_id])
        return [_version(row) for row in rows]

    def active(self, user_id: str, base_id: str) -> AdapterVersion | None:
        """The version now served to a person, None for the base."""
        row = self._db.row(
            "select versions.* from active_versions join versions using (user_id, number) "
            "where active_versions.user_id = ? and active_versions.base_id = ?",
            [user_id, base_id],
        )
        return _version(row) if row else None

    def trusted(self, user_id: str, base_id: str) -> AdapterVersion | None:
        """The version served last that is not on trial, None for the base: what a trial is against."""
        active = self.active(user_id, base_id)
        if active is None or active.status != "probation":
            return active
        trial = self._trials.begun(user_id, active.number)
        return self.version(user_id, trial.against) if trial and trial.against else None

    def end_trial(self, user_id: str, base_id: str, event: TrialEvent) -> None:
        """Let the version on trial stay, or serve what it was compared with again: one transaction."""
        with self._db.transaction():
            self._trials.note(user_id, event)
            if event.what == "confirmed":
                self.mark(user_id, event.number, "active")
            else:
                self.mark(user_id, event.number, "rolled back")
                self._activate(user_id, base_id, event.against, retire_as="rolled back")

    def activate(self, user_id: str, base_id: str, number: int | None) -> None:
        """Serve another version, or the base (None); a trial under way ends with that.

        Raises Conflict for a rejected one, another base's, and one that was forgotten.
        """
        with self._db.transaction():
            if number is not None and (why := self.version(user_id, number).unusable(base_id)):
                raise Conflict(why)
            self._activate(user_id, base_id, number, retire_as="rolled back")

    def learned_from(self, user_id: str, seq: int) -> list[AdapterVersion]:
        """The versions that know of the act with this number, oldest first: every version learns from all acts before
        it, so these are the newest ones."""
        sql = "select * from versions where user_id = ? and last_label >= ? and forgotten_at is null order by number"
        return [_version(row) for row in self._db.rows(sql, [user_id, seq])]

    def forget(self, user_id: str, seq: int) -> list[AdapterVersion]:
        """Never serve again what learned from the act with this number: the versions, oldest first.

        Where one of them is served, what it had replaced is served again, or the base. What they wrote beside the base
        goes with them.
        """
        with self._db.transaction() as db:
            doomed = self.learned_from(user_id, seq)
            for version in doomed:
                sql = "update versions set forgotten_at = ? where user_id = ? and number = ?"
                db.execute(sql, [now(), user_id, version.number])
                db.execute("delete from examples where user_id = ? and number = ?", [user_id, version.number])
            for base_id in {version.base_id for version in doomed}:
                active = self.active(user_id, base_id)
                if active is not None and active.forgotten_at is not None:
                    self._activate(user_id, base_id, self._before(active), retire_as="retired")
            return doomed

    def _before(self, version: AdapterVersion) -> int | None:
        """What is served again when a version is forgotten, None for the base.

        That is what its trial was against; where that one was forgotten or taken back itself, what came before it. One
        that never had a trial gives way to the newest before it that is retired.
        """
        while (trial := self._trials.begun(version.user_id, version.number)) is not None:
            if trial.against is None:
                return None
            version = self.version(version.user_id, trial.against)
            if version.forgotten_at is None and version.status != "rolled back":
                return version.number
        number = self._db.value(
            "select max(number) from versions where user_id = ? and base_id = ? and number < ? "
            "and forgotten_at is null and status = 'retired'",
            [version.user_id, version.base_id, version.number],
        )
        return None if number is None else int(number)

    def restart_updates(self, user_id: str, seq: int, reason: str, *, again: bool) -> bool:
        """End an update that has begun to learn from the act with this number, and queue it anew if `again`; whether
        there was one. reason: what its end is told with."""
        with self._db.transaction():
            begun = [u for u in self.live_updates(user_id) if u.started_at is not None and u.last_label >= seq]
            for update in begun:
                self.set_state(update.id, "cancelled", reason)
                if not again:
                    continue
                trusted = self.trusted(user_id, update.base_id)
                self.queue(
                    user_id,
                    update.base_id,
                    update.trigger,
                    update.seed,
                    trusted.number if trusted else None,
                    (0, 0),
                    update.config,
                )
            return bool(begun)

    def mark(self, user_id: str, number: int, status: VersionStatus) -> None:
        """Set a version's status."""
        with self._db.transaction() as db:
            db.execute("update versions set status = ? where user_id = ? and number = ?", [status, user_id, number])

    def remove_all(self, user_id: str) -> int:
        """Delete a person's versions and updates, running ones too; how many versions. Numbers are not used again."""
        with self._db.transaction() as db:
            for table in ("active_versions", "updates"):
                db.execute(f"delete from {table} where user_id = ?", [user_id])
            return int(db.execute("delete from versions where user_id = ?", [user_id]).rowcount)

    # ---- what versions write beside the base ------------------------------------------------------------------------

    def add_example(self, user_id: str, number: int, example: Example) -> None:
        """Keep what a version and the base wrote to a prompt; the first stays.

        Raises NotFound without the version, and when it was forgotten meanwhile.
        """
        with self._db.transaction() as db:
            if self.version(user_id, number).forgotten_at is not None:
                raise NotFound(f"There is no version v{number}.")
            db.execute(
                "insert or ignore into examples values (?, ?, ?, ?, ?, ?, ?)",
                [
                    user_id, number, example.prompt, example.base_text, example.version_text, example.seed,
                    example.created_at,
                ],
            )  # fmt: skip

    def examples(self, user_id: str) -> dict[int, list[Example]]:
        """What a person's versions wrote beside the base, by version number, oldest first."""
        found: dict[int, list[Example]] = {}
        for row in self._db.rows("select * from examples where user_id = ? order by rowid", [user_id]):
            example = Example(row["prompt"], row["base_text"], row["version_text"], row["seed"], row["created_at"])
            found.setdefault(row["number"], []).append(example)
        return found

    def _activate(self, user_id: str, base_id: str, number: int | None, *, retire_as: VersionStatus) -> None:
        """Move the pointer. A version that makes way for a newer one is retired; for an older one, rolled back."""
        with self._db.transaction() as db:
            current = self.active(user_id, base_id)
            if current is not None and current.number == number:
                return
            if current is not None:
                newer = number is not None and number > current.number
                if current.status == "probation":
                    trial = self._trials.begun(user_id, current.number)
                    against = trial.against if trial else None
                    what: TrialEnd = "replaced" if newer else "left"
                    self._trials.note(user_id, TrialEvent(current.number, what, against, 0, 0, 0, "", now()))
                self.mark(user_id, current.number, "retired" if newer else retire_as)
            if number is None:
                db.execute("delete from active_versions where user_id = ? and base_id = ?", [user_id, base_id])
            else:
                db.execute("insert or replace into active_versions values (?, ?, ?)", [user_id, base_id, number])
                self.mark(user_id, number, "active")


def _update(row: Row) -> Update:
    return Update(
        id=row["id"],
        user_id=row["user_id"],
        base_id=row["base_id"],
        state=row["state"],
        trigger=row["trigger"],
        seed=row["seed"],
        parent=row["parent"],
        first_label=row["first_label"],
        last_label=row["last_label"],
        config=json.loads(row["config"]),
        progress=row["progress"],
        eta_seconds=row["eta_seconds"],
        metrics=json.loads(row["metrics"]),
        gate=json.loads(row["gate"]),
        version=row["version"],
        reason=row["reason"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _version(row: Row) -> AdapterVersion:
    return AdapterVersion(
        user_id=row["user_id"],
        number=row["number"],
        base_id=row["base_id"],
        status=row["status"],
        parent=row["parent"],
        update_id=row["update_id"],
        first_label=row["first_label"],
        last_label=row["last_label"],
        seed=row["seed"],
        config=json.loads(row["config"]),
        metrics=json.loads(row["metrics"]),
        gate=json.loads(row["gate"]),
        manifest_sha256=row["manifest_sha256"],
        created_at=row["created_at"],
        forgotten_at=row["forgotten_at"],
    )
