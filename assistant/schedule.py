"""Who trains when: pure rules, so that every case can be tested without a clock or a model.

    off      updates start only when somebody asks
    idle     an update starts by itself when the machine has nothing else to do
    window   … only within a daily window of local time, 22:00-06:00 for instance

People take turns: whoever has waited longest since their last update comes first, a first update before all others.
What somebody asked for goes before what starts by itself, and what was interrupted before everything.
Nobody has two updates at once; how many people's run together is the executor's to say (executor.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Literal

from feedback.errors import InvalidInput
from feedback.types import Update

Mode = Literal["off", "idle", "window"]
Window = tuple[time, time]
MIN_LABELS = 10  # with fewer, an adapter would learn noise: re-ranking alone
BUSY_LOAD = 0.6  # of the cores, by other programs: not idle
TYPICAL_MINUTES = 6  # one update on two cores


@dataclass(frozen=True)
class Schedule:
    """When updates start by themselves. new_labels: how many make one worth while."""

    mode: Mode = "idle"
    window: Window | None = None
    new_labels: int = 20
    idle_seconds: float = 60.0


@dataclass(frozen=True)
class Machine:
    """What is going on now. load: share of the cores that is busy, 0 to 1 and above."""

    clock: time
    chat_idle_seconds: float
    load: float


@dataclass(frozen=True)
class Labels:
    """A person's labels: all of them, and those given since the last update began."""

    total: int
    new: int


@dataclass(frozen=True)
class Forecast:
    """When a person's next update comes and why. position: 0 = running now, 1 = next; None = not in line."""

    labels_needed: int
    position: int | None
    when: str
    why: str


def parse_updates(text: str) -> tuple[Mode, Window | None]:
    """`off`, `idle` or `HH:MM-HH:MM` → mode and window. Raises InvalidInput."""
    if text == "off":
        return "off", None
    if text == "idle":
        return "idle", None
    try:
        start, end = (datetime.strptime(part.strip(), "%H:%M").time() for part in text.split("-"))
    except ValueError as error:
        raise InvalidInput(
            f"updates is {text!r}; it can be off, idle, or a daily window like 22:00-06:00.", param="updates"
        ) from error
    if start == end:
        raise InvalidInput(f"updates is {text!r}; the window must have a length.", param="updates")
    return "window", (start, end)


def within(window: Window, clock: time) -> bool:
    """Whether a time of day is in the window, which may run past midnight."""
    start, end = window
    return start <= clock < end if start < end else clock >= start or clock < end


def may_start(schedule: Schedule, machine: Machine) -> tuple[bool, str]:
    """Whether an automatic update may start now, and otherwise what it waits for."""
    if schedule.mode == "off":
        return False, "updates start only when you ask for one here"
    if schedule.mode == "window":
        assert schedule.window is not None
        start, end = schedule.window
        return within(schedule.window, machine.clock), f"updates run between {start:%H:%M} and {end:%H:%M}"
    if machine.chat_idle_seconds < schedule.idle_seconds:
        return False, "somebody is chatting; it starts when the machine is idle"
    if machine.load > BUSY_LOAD:
        return False, "the machine is busy with other programs; it starts when it is idle"
    return True, "the machine is idle"


def labels_needed(schedule: Schedule, labels: Labels) -> int:
    """How many labels are missing until an update starts by itself."""
    return max(schedule.new_labels - labels.new, MIN_LABELS - labels.total, 0)


def in_turn(waiting: Sequence[str], last_finished: Mapping[str, int]) -> list[str]:
    """People in the order they are served: never first, then by how long ago; ties keep the given order.

    last_finished: the number of each person's last update that ended (see `Versions.last_finished`)."""
    return sorted(waiting, key=lambda user_id: last_finished.get(user_id, 0))


def queue_order(live: Sequence[Update], last_finished: Mapping[str, int]) -> list[Update]:
    """Updates under way, oldest first, in the order they are worked on; ties keep the given order."""
    kinds = {"running": 0, "paused": 1, "queued": 2}
    return sorted(
        live,
        key=lambda update: (
            kinds[update.state],
            update.trigger != "asked",
            last_finished.get(update.user_id, 0),
        ),
    )


def forecast(
    schedule: Schedule,
    machine: Machine,
    labels: Labels,
    queue: Sequence[str],
    user_id: str,
    rivals: int = 0,
    wait: float = 0.0,
    at_once: int = 1,
) -> Forecast:
    """What to tell a person. queue: user ids under way, in order; rivals: people ready and ahead of this one; wait:
    seconds until this one may have another update, after many in a day; at_once: how many updates run together."""
    needed = labels_needed(schedule, labels)
    if user_id in queue:
        place = queue.index(user_id)
        if place < at_once:
            return Forecast(needed, 0, "now", "your update is being worked on")
        minutes = place // at_once * TYPICAL_MINUTES
        together = "one runs at a time" if at_once == 1 else f"{at_once} run at a time"
        return Forecast(needed, place, f"in about {minutes} minutes", f"{_others(place)} before yours; {together}")
    if schedule.mode == "off":
        missing = max(MIN_LABELS - labels.total, 0)
        when = f"when you ask, after {_labels(missing)}" if missing else "when you ask"
        return Forecast(missing, None, when, "updates do not start by themselves on this server")
    if needed:
        why = f"an update starts by itself at {schedule.new_labels} new labels; you gave {labels.new} since the last"
        return Forecast(needed, None, f"after {_labels(needed)}", why)
    if wait:
        hours = math.ceil(wait / 3600)
        return Forecast(0, None, f"in {hours} h", "you had as many updates today as one person may have here")
    ahead = len(queue) + rivals
    free, why = may_start(schedule, machine)
    if ahead >= at_once:
        return Forecast(0, ahead + 1, f"after {_others(ahead)}", "people take turns; who waited longest comes first")
    if free:
        return Forecast(0, 1, "within a minute", why)
    return Forecast(0, 1, _opening(schedule), why)


def _opening(schedule: Schedule) -> str:
    return f"at {schedule.window[0]:%H:%M}" if schedule.window else "as soon as the machine is idle"


def _others(count: int) -> str:
    return "one other" if count == 1 else f"{count} others"


def _labels(count: int) -> str:
    return "1 more label" if count == 1 else f"{count} more labels"
