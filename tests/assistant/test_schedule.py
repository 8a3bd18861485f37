"""Who trains when, without a clock or a model."""

from __future__ import annotations

from dataclasses import replace
from datetime import time

import pytest

from assistant.schedule import (
    Labels,
    Machine,
    Schedule,
    forecast,
    in_turn,
    labels_needed,
    may_start,
    parse_updates,
    queue_order,
    within,
)
from feedback.errors import InvalidInput
from feedback.store import Store
from feedback.types import Update

QUIET = Machine(time(12, 0), chat_idle_seconds=600, load=0.1)
IDLE = Schedule()
NIGHT = Schedule("window", (time(22, 0), time(6, 0)))
OFF = Schedule("off")


def test_the_option_is_off_idle_or_a_window() -> None:
    assert parse_updates("off") == ("off", None)
    assert parse_updates("idle") == ("idle", None)
    assert parse_updates("22:00-6:30") == ("window", (time(22, 0), time(6, 30)))
    for bad in ("", "on", "22-6", "22:00", "22:00-24:00", "22:00-06:00-07:00"):
        with pytest.raises(InvalidInput):
            parse_updates(bad)


def test_a_window_may_run_past_midnight() -> None:
    night, day = (time(22, 0), time(6, 0)), (time(9, 0), time(17, 0))
    assert within(night, time(23, 59)) and within(night, time(0, 0)) and not within(night, time(6, 0))
    assert within(day, time(9, 0)) and not within(day, time(8, 59)) and not within(day, time(17, 0))


def test_when_an_automatic_update_may_start() -> None:
    assert may_start(IDLE, QUIET)[0]
    assert not may_start(IDLE, replace(QUIET, chat_idle_seconds=5))[0]
    assert not may_start(IDLE, replace(QUIET, load=0.9))[0]
    assert not may_start(OFF, QUIET)[0]
    assert not may_start(NIGHT, QUIET)[0]
    assert may_start(NIGHT, replace(QUIET, clock=time(3, 0), chat_idle_seconds=0, load=1.0))[0]


@pytest.mark.parametrize(("total", "new", "needed"), [(0, 0, 20), (25, 5, 15), (20, 20, 0), (40, 30, 0)])
def test_labels_until_the_next_update(total: int, new: int, needed: int) -> None:
    assert labels_needed(IDLE, Labels(total, new)) == needed


def test_people_take_turns_whoever_waited_longest_first() -> None:
    finished = {"a": 3, "b": 1, "c": 2}
    assert in_turn(["a", "b", "c", "new"], finished) == ["new", "b", "c", "a"]


def test_the_interrupted_come_first_then_who_asked_then_the_rest(store: Store) -> None:
    def live(name: str, trigger: str, state: str) -> Update:
        user = store.people.add(name, name, "-")
        update = store.versions.queue(user.id, "base", trigger, 0, None, (1, 20), {})
        if state != "queued":
            store.versions.set_state(update.id, state)  # type: ignore[arg-type]
        return store.versions.update(user.id, update.id)

    automatic = live("automatic", "automatic", "queued")
    often, seldom = live("often", "asked", "queued"), live("seldom", "asked", "queued")
    paused = live("paused", "automatic", "paused")
    finished = {often.user_id: 2, seldom.user_id: 1}
    order = queue_order(store.versions.live_updates(), finished)
    assert [u.id for u in order] == [paused.id, seldom.id, often.id, automatic.id]


def test_the_forecast_says_when_and_why() -> None:
    few, enough = Labels(12, 12), Labels(30, 25)
    assert forecast(IDLE, QUIET, few, [], "me").labels_needed == 8
    assert "8 more labels" in forecast(IDLE, QUIET, few, [], "me").when
    assert forecast(IDLE, QUIET, enough, ["me"], "me").position == 0
    assert forecast(IDLE, QUIET, enough, [], "me", wait=5000.0).when == "in 2 h"
    assert forecast(IDLE, QUIET, few, [], "me", wait=5000.0).labels_needed == 8, "labels first: they take longer"
    waiting = forecast(IDLE, QUIET, enough, ["x", "me"], "me")
    assert waiting.position == 1 and "one other before yours" in waiting.why
    assert "idle" in forecast(IDLE, replace(QUIET, load=1.0), enough, [], "me").when
    assert "22:00" in forecast(NIGHT, QUIET, enough, [], "me").when
    assert "one other" in forecast(IDLE, QUIET, enough, [], "me", rivals=1).when
    asked = forecast(OFF, QUIET, Labels(4, 4), [], "me")
    assert asked.labels_needed == 6 and "ask" in asked.when
