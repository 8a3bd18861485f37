"""What people here have in common: whose acts count in it, who begins with it, and when it is found anew.

    common.prior(user_id)           what this person's head begins with
    common.share(user, True)        from now on their acts count in what others begin with
    common.begin(user, False)       and their own head begins with nothing

Nobody's acts count before they say so; everybody begins with what is common until they say otherwise. When somebody
whose acts are in it takes one of them back, no longer shares, or is deleted, it is gone at once, for everybody, and
found anew from the others. That is looked for while nobody chats, once a day, or within the hour where there is none.

Left out on purpose: anything of it in versions that were trained meanwhile; an adapter learns a person's whole head.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from assistant.profile import LEAST_COMMON, STRONGEST, preference
from feedback.common import LEAST, Common, in_common
from feedback.errors import MynahError
from feedback.labels import act_of
from feedback.population import Population
from feedback.reward_head import Act, Prior
from feedback.store import Store
from feedback.store.commons import KeptCommon, Stamp
from feedback.traits import TRAIT_NAMES
from feedback.types import User, seconds_since

LOOK_SECONDS, HOUR, DAY = 60.0, 3600.0, 86400.0
MOST = 64  # people it is made of: those with the most acts; a few seconds of one core
_SHARES, _BEGINS = "shares_taste", "begins_with_common"

log = logging.getLogger("mynah.common")


class CommonTaste:
    """One a server. Nothing is looked for before `start`."""

    def __init__(
        self,
        store: Store,
        base_id: str,
        population: Population,
        busy: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """busy: whether somebody chats; clock: seconds that only grow."""
        self._store, self._base_id, self._population, self._busy, self._clock = store, base_id, population, busy, clock
        self._kept: KeptCommon | None = None  # of the version that is cached
        self._cached: dict[str, Prior] = {}  # by person, for those whose acts are in it; "" for all others
        self._cached_for: str | None = None
        self._looked, self._fruitless = -math.inf, Stamp()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- what people say ------------------------------------------------------------------------------------------

    def shares(self, user: User) -> bool:
        """Whether the person's acts count in it."""
        return self._store.people.setting(user.id, _SHARES) == "on"

    def share(self, user: User, wanted: bool) -> None:
        """Let them count, or not. What is made of them already goes at once."""
        with self._store.database.transaction():
            self._store.people.set(user.id, _SHARES, "on" if wanted else "off")
            if not wanted:
                self._store.commons.leave(user.id)
        if not wanted:
            self._store.database.leave_no_trace()

    def begins(self, user: User) -> bool:
        """Whether the person's head begins with it."""
        return self._store.people.setting(user.id, _BEGINS) != "off"

    def begin(self, user: User, wanted: bool) -> None:
        """Let it begin there, or with nothing."""
        self._store.people.set(user.id, _BEGINS, "on" if wanted else "off")

    # ---- what follows ---------------------------------------------------------------------------------------------

    def prior(self, user_id: str) -> Prior:
        """What the person's head begins with; the same object until it changes."""
        version = self._store.commons.version()
        if version != self._cached_for:
            kept = self.found()
            self._kept, self._cached, self._cached_for = kept, {}, version if kept is not None else None
        kept = self._kept
        if version is None or kept is None or self._store.people.setting(user_id, _BEGINS) == "off":
            return self._population.prior
        row = kept.user_ids.index(user_id) if user_id in kept.user_ids else None
        name = "" if row is None else user_id
        return self._cached.setdefault(name, kept.found.prior(self._population.prior, without=row))

    def found(self) -> KeptCommon | None:
        """What people here have in common; None where nothing is known."""
        kept = self._store.commons.kept()
        return kept if kept is not None and kept.population == self._population.version else None

    def likes(self) -> list[str]:
        """The same in words, what is liked most first."""
        kept = self.found()
        if kept is None:
            return []
        weights = zip(TRAIT_NAMES, (kept.found.mean() / STRONGEST).tolist(), strict=False)
        clear = [(name, weight) for name, weight in weights if abs(weight) >= LEAST_COMMON]
        return [preference(name, weight) for name, weight in sorted(clear, key=lambda pair: -abs(pair[1]))]

    # ---- finding it -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look for it from now on."""
        self._thread = threading.Thread(target=self._loop, name="common", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more; waits for the look under way, since the store closes next."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> bool:
        """Find it, if there is reason to; whether that was tried."""
        kept, stamp = self.found(), self._store.commons.stamp(self._sharing())
        recent = seconds_since(kept.made_at) < DAY if kept else self._clock() - self._looked < HOUR
        if len(stamp) < LEAST or recent or stamp == self._fruitless:
            return False
        self._looked = self._clock()
        found = in_common([self._acts(user_id) for user_id, _, _ in stamp], self._population.prior, self._breathe)
        if found is None:
            self._store.commons.forget()
            self._fruitless = stamp
            log.info("%d people share their taste; nothing in it would help somebody new", len(stamp))
        elif self._keep(found, stamp):
            log.info("%d people have something in common: %+.2f nats an act", len(stamp), found.gain)
        return True

    def _keep(self, found: Common, stamp: Stamp) -> bool:
        """Keep it, unless somebody acted, went or shares no more since it was begun; whether it is kept."""
        with self._store.database.transaction():
            sharing = self._store.people.who_set(_SHARES, "on")
            together = {user_id for user_id, _, _ in stamp} <= set(sharing)
            return together and self._store.commons.keep(self._population.version, found, stamp)

    def _sharing(self) -> Sequence[str]:
        """Those whose acts count, at most MOST."""
        sharing = self._store.people.who_set(_SHARES, "on")
        counted = {user_id: self._store.acts.label_count(user_id) for user_id in sharing}
        return sorted((each for each in sharing if counted[each]), key=lambda each: -counted[each])[:MOST]

    def _acts(self, user_id: str) -> list[Act]:
        return [
            act_of(preference, self._population, same_base=base == self._base_id)
            for preference, base in self._store.acts.preferences(user_id)
        ]

    def _breathe(self) -> None:
        """Between two heads: somebody who chats goes first. Raises StoppedLooking when the server ends."""
        while self._busy() and not self._stop.wait(0.5):
            pass
        if self._stop.is_set():
            raise StoppedLooking("The server ends.")

    def _loop(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                if not self._busy():
                    self.look()
            except StoppedLooking:
                return
            except MynahError as error:  # a full disk, say; the next look comes by itself
                log.warning("what people have in common was not kept: %s", error)
            except Exception:  # a defect here must not end the looking for good; nobody's reply waits for it
                log.exception("what people have in common could not be found")


class StoppedLooking(MynahError):
    """The server ends while it is looked for."""
