"""Updates: the line of those who wait, and the thread that has it worked on, as many updates at once as there is room.

The rules of the line are in schedule.py, the work on one update in trainer.py. The line itself is in the database, so
another process may queue or cancel, and everything goes on after a restart where it was.

With nothing in line and nobody chatting, it builds the pool that everybody's updates share.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import secrets
import threading
import time
from typing import Any

import psutil

from adapters.base_model import BaseFiles
from adapters.job import UpdateConfig
from adapters.versions import VersionFiles
from assistant import schedule as rules
from assistant.config import Config
from assistant.engine import Engine
from assistant.executor import Executor, make_executor
from assistant.learning import Learning
from assistant.limits import Limits
from assistant.schedule import Forecast, Labels, Machine, Schedule
from assistant.settings import Settings
from assistant.trainer import POLL_SECONDS, Progress, Trainer, require_labels
from feedback.errors import Conflict, InvalidInput, NotFound, NotSaved
from feedback.store import Store
from feedback.types import LIVE_STATES, Update, User, local_time

LOOK_SECONDS = 5.0  # how often to look for somebody whose update is due
DISK_SECONDS = 30.0  # before a full disk is tried again
VERSION = re.compile(r"v[1-9][0-9]{0,17}")

log = logging.getLogger(__name__)


class Updates:
    """The line of updates over one store. Nothing runs before `start`, except in `run_here`."""

    def __init__(
        self,
        store: Store,
        learning: Learning,
        engine: Engine,
        versions: VersionFiles,
        files: BaseFiles,
        config: Config,
        numbers: UpdateConfig | None = None,
        settings: Settings | None = None,
        limits: Limits | None = None,
        executor: Executor | None = None,
    ) -> None:
        """numbers: of an update, where no settings are given that know them. executor: where updates run, None for what
        `config` says; it is opened by whoever gives it, or by `start` and `run_here`."""
        self._limits = limits or Limits(store, versions, config)
        self._settings = settings or Settings(store, config, numbers)
        self._store, self._learning, self._engine, self._versions = store, learning, engine, versions
        self._wake, self._stop = threading.Event(), threading.Event()
        self._executor = executor or make_executor(config)
        self._trainer = Trainer(store, learning, engine, versions, files, config, self._stop, self._executor)
        self._working: dict[str, threading.Thread] = {}  # by update; only the line's own thread looks
        self._thread: threading.Thread | None = None
        self._looked = 0.0
        self._known: set[str] = set()
        self._load = psutil.cpu_percent() / 100  # the first call has nothing to compare with and gives 0
        self._pool_possible = True

    @property
    def schedule(self) -> Schedule:
        """When updates start by themselves; an admin may change it at any time."""
        return self._settings.schedule

    @property
    def numbers(self) -> UpdateConfig:
        """The numbers of an update that is asked for now."""
        return self._settings.numbers

    # ---- what people do -------------------------------------------------------------------------------------------

    def request(self, user: User, trigger: str = "asked") -> Update:
        """Queue an update. Raises Conflict while one is under way, TooFewLabels, and OverQuota after many in a day."""
        check_due(self._store, user)
        self._limits.train(user)
        update = queue_update(self._store, user, self._engine.base_id, self.numbers.as_dict(), trigger)
        self._wake.set()
        return update

    def get(self, user: User, update_id: str) -> Update:
        """One of the person's updates. Raises NotFound."""
        return self._store.versions.update(user.id, update_id)

    def cancel(self, user: User, update_id: str, reason: str = "You cancelled it.") -> Update:
        """End an update; nothing of it is kept. Raises Conflict when it has ended already."""
        update = self.get(user, update_id)
        if not self._store.versions.set_state(update_id, "cancelled", reason):
            raise Conflict(f"Update {update_id} has ended already ({update.state}); there is nothing to cancel.")
        self._wake.set()  # the thread sees that the state is no longer live, ends the worker and removes the job
        return self.get(user, update_id)

    def activate(self, user: User, name: str) -> None:
        """Serve `v3` or `base` from the next reply on. Raises NotFound, Conflict, CorruptFile."""
        number = version_number(name)
        if number is not None:
            version = self._store.versions.version(user.id, number)
            if why := version.unusable(self._engine.base_id):  # its files may be gone, and that is no damage
                raise Conflict(why)
            self._versions.check(version)
        self._store.versions.activate(user.id, self._engine.base_id, number)

    def forecast(self, user: User) -> Forecast:
        """When the person's next update comes, and why then."""
        finished = self._store.versions.last_finished()
        line = [update.user_id for update in rules.queue_order(self._live(), finished)]
        due = rules.in_turn(self._due(), finished)
        rivals = due.index(user.id) if user.id in due else 0
        wait = self._limits.training_wait(user.id)
        room = max(self._executor.room(), 1)
        return rules.forecast(self.schedule, self._machine(), self._labels(user.id), line, user.id, rivals, wait, room)

    # ---- the thread -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what was interrupted and go on from there. Raises MynahError where updates cannot run."""
        self._executor.open()
        for update in self._store.versions.live_updates():
            if update.base_id != self._engine.base_id:
                reason = f"It was for the base {update.base_id}; this server now runs {self._engine.base_id}."
                self._store.versions.set_state(update.id, "cancelled", reason)
            elif update.state == "running":
                self._store.versions.set_state(update.id, "paused", "The server was restarted.")
        self._thread = threading.Thread(target=self._loop, name="updates", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let what runs be paused from now on; `close` waits for it."""
        self._stop.set()
        self._wake.set()

    def close(self) -> None:
        """Pause what runs and stop, within seconds."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        for thread in self._working.values():
            thread.join()
        self._trainer.close()
        self._executor.close()

    def run_here(self, user: User, progress: Progress = lambda update: None) -> Update:
        """A person's update in this thread, for the command line; goes on with one that was paused."""
        mine = [update for update in self._live() if update.user_id == user.id]
        self._executor.open()
        update = mine[0] if mine else self.request(user)
        while update.state in LIVE_STATES and not self._stop.is_set():
            self._trainer.work(update, progress)
            update = self.get(user, update.id)
        return update

    def _loop(self) -> None:
        while not self._stop.is_set():
            pause = POLL_SECONDS
            try:
                self._turn()
            except NotSaved as error:
                log.warning("Updates wait for the disk: %s", error)
                pause = DISK_SECONDS
            except Exception:  # a defect must not end everybody's updates for good
                log.exception("The line of updates met a defect; it goes on")
                pause = DISK_SECONDS
            self._wake.wait(pause)
            self._wake.clear()

    def _turn(self) -> None:
        """Begin with whoever is next, as far as there is room; or find out who is due, or build the pool."""
        self._working = {name: thread for name, thread in self._working.items() if thread.is_alive()}
        room = self._executor.room() - len(self._working)
        line = rules.queue_order(self._live(), self._store.versions.last_finished())
        waiting = [update for update in line if update.id not in self._working]
        for update in waiting[: max(room, 0)]:
            thread = threading.Thread(target=self._work, args=(update,), name=f"update {update.id}", daemon=True)
            self._working[update.id] = thread
            thread.start()
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._load = psutil.cpu_percent() / 100
        self._forget_the_removed()
        if waiting or room <= 0:
            return
        if not rules.may_start(self.schedule, self._machine())[0]:
            return
        if due := rules.in_turn(self._due(), self._store.versions.last_finished()):
            with contextlib.suppress(Conflict, NotFound):  # they asked, or left, in this moment
                self.request(self._store.people.get(due[0]), "automatic")
        elif self._pool_possible and self.schedule.mode == "idle" and not self._executor.elsewhere:
            self._pool_possible = self._trainer.build_pool(self.numbers, lambda: bool(self._live()))

    def _work(self, update: Update) -> None:
        """One update, as far as it goes now, in a thread of its own."""
        try:
            self._trainer.work(update, lambda update: None)
        except NotSaved as error:
            log.warning("Update %s waits for the disk: %s", update.id, error)
            self._stop.wait(DISK_SECONDS)
        except Exception:  # a defect must not end everybody's updates for good
            log.exception("Update %s met a defect; it is taken up again", update.id)
            self._stop.wait(DISK_SECONDS)
        self._wake.set()

    def _forget_the_removed(self) -> None:
        """Somebody whom another process removed or disabled must not live on in this one's memory."""
        people = {user.id for user in self._store.people.all() if not user.disabled}
        for user_id in self._known - people:
            self._engine.forget(user_id)
            self._learning.forget(user_id)
        self._known = people

    # ---- looking around -------------------------------------------------------------------------------------------

    def _live(self) -> list[Update]:
        return [update for update in self._store.versions.live_updates() if update.base_id == self._engine.base_id]

    def _due(self) -> list[str]:
        """Everybody with enough new labels and nothing under way."""
        live = {update.user_id for update in self._store.versions.live_updates()}
        waiting = [user.id for user in self._store.people.all() if user.id not in live and not user.disabled]
        return [
            user_id
            for user_id in waiting
            if not rules.labels_needed(self.schedule, self._labels(user_id)) and not self._limits.training_wait(user_id)
        ]

    def _labels(self, user_id: str) -> Labels:
        last = self._store.versions.last_label(user_id, self._engine.base_id)
        return Labels(self._store.acts.label_count(user_id), self._store.acts.labels_after(user_id, last))

    def _machine(self) -> Machine:
        if self._executor.elsewhere:  # what goes on here is in nobody's way there
            return Machine(local_time(), math.inf, 0.0)
        idle = 0.0 if self._engine.busy else self._engine.idle_seconds
        return Machine(local_time(), idle, self._load)


def queue_update(store: Store, user: User, base_id: str, numbers: dict[str, Any], trigger: str = "asked") -> Update:
    """Put an update in line; also from another process than the server's, which will find it there.

    A version on trial is nobody's parent: the update begins from the one before it.
    """
    check_due(store, user)
    trusted = store.versions.trusted(user.id, base_id)
    seed = secrets.randbelow(2**31)
    parent = trusted.number if trusted else None
    return store.versions.queue(user.id, base_id, trigger, seed, parent, store.acts.label_range(user.id), numbers)


def check_due(store: Store, user: User) -> None:
    """Raises Conflict while an update of theirs is under way, TooFewLabels where too little is known of them."""
    if store.versions.live_updates(user.id):
        raise Conflict("An update is under way already; wait for it or cancel it.")
    require_labels(store, user.id)


def version_number(name: str) -> int | None:
    """`v3` → 3, `base` → None. Raises InvalidInput."""
    if name == "base":
        return None
    if VERSION.fullmatch(name):
        return int(name[1:])
    raise InvalidInput(f"The version is {name!r}; it can be v1, v2, … or base.", param="version")
