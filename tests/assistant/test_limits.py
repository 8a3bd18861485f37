"""What one person may take: too much is refused in words, with the time to wait, and others are served."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.versions import VersionFiles
from assistant.api.errors import describe
from assistant.chat import Chat, ChatRequest
from assistant.config import Config
from assistant.limits import MEASURED_FOR, Limits
from feedback.errors import Busy, OverQuota
from feedback.types import User
from tests.assistant.conftest import Maker, Service, said
from tests.conftest import WallClock


class Clock:
    """Time that passes when told to."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits_of(service: Service, files: VersionFiles, clock: Clock, **most: Any) -> Limits:
    return Limits(service.store, files, Config(**most), clock)


def ask(service: Service, limits: Limits, user: User) -> str:
    chat = Chat(service.store, service.engine, service.learning, limits, max_tokens=2)
    return chat.start(user, ChatRequest(said("Hello"), arm="base")).replies()[0].text


def test_requests_in_a_minute(service: Service, version_files: VersionFiles, clock: Clock) -> None:
    limits = limits_of(service, version_files, clock, requests_per_minute=2)
    ask(service, limits, service.ada)
    clock.seconds += 20
    ask(service, limits, service.ada)
    with pytest.raises(Busy, match=r"asked 2 times within a minute.*try again in 41 s") as refused:
        ask(service, limits, service.ada)
    assert refused.value.retry_after == 41
    ask(service, limits, service.bob)
    clock.seconds += 41
    ask(service, limits, service.ada)


def test_a_request_that_is_wrong_counts_for_nothing(
    service: Service, version_files: VersionFiles, clock: Clock
) -> None:
    limits = limits_of(service, version_files, clock, requests_per_minute=1)
    chat = Chat(service.store, service.engine, service.learning, limits)
    for _ in range(3):
        with pytest.raises(ValueError, match="temperature"):
            chat.start(service.ada, ChatRequest(said("Hello"), temperature=9))
    ask(service, limits, service.ada)


def test_room_on_the_disk(service: Service, maker: Maker, version_files: VersionFiles, clock: Clock) -> None:
    limits = limits_of(service, version_files, clock, storage_mb=1)
    reply = service.chat.start(service.ada, ChatRequest(said("Hello"), arm="base", max_tokens=2)).replies()[0]
    before = service.store.people.bytes_kept(service.ada.id)
    limits.keep(service.ada)
    long = [replace(reply, id=f"r_long{number}", text="ä" * 30_000) for number in range(20)]  # two bytes each
    service.store.chats.add_replies(long)
    added = service.store.people.bytes_kept(service.ada.id) - before
    assert added == pytest.approx(1_200_000, rel=0.05)
    limits.keep(service.ada)  # what was measured is believed for a while
    clock.seconds += MEASURED_FOR + 1
    with pytest.raises(OverQuota, match=r"You keep 1 MB here and may keep 1 MB; delete chats") as refused:
        ask(service, limits, service.ada)
    assert refused.value.retry_after >= 120
    ask(service, limits, service.bob)
    maker.version(service.bob.id, 97)
    try:
        limits.forget(service.bob.id)
        with pytest.raises(OverQuota):
            limits.keep(service.bob)
    finally:
        version_files.remove(service.bob.id)


def test_updates_in_a_day(service: Service, version_files: VersionFiles, clock: Clock, wall: WallClock) -> None:
    limits = limits_of(service, version_files, clock, updates_per_day=2)
    store, base_id = service.store.versions, service.engine.base_id
    untrained = store.queue(service.ada.id, base_id, "asked", 0, None, (0, 0), {})
    store.set_state(untrained.id, "running")
    store.set_state(untrained.id, "rejected", gate=[{"check": "foretold", "passed": False}])
    for _ in range(2):
        limits.train(service.ada)
        update = store.queue(service.ada.id, base_id, "asked", 0, None, (0, 0), {})
        assert limits.training_wait(service.ada.id) == 0.0, "what only waits has taken nothing"
        store.set_state(update.id, "running")
        store.set_state(update.id, "failed", "It was only a test.")
    with pytest.raises(OverQuota, match=r"2 updates within a day.*in 24 h") as refused:
        limits.train(service.ada)
    assert 86_000 < refused.value.retry_after <= 86_400
    limits.train(service.bob)
    wall.put(hours=23, minutes=30)
    assert limits.training_wait(service.ada.id) == pytest.approx(1800, abs=5)
    wall.put(days=-4000)  # what is still to begin, by this clock, does not count
    assert limits.training_wait(service.ada.id) == 0.0
    wall.put(days=1, minutes=1)
    limits.train(service.ada)


def test_the_answer_over_http() -> None:
    status, body, headers = describe(OverQuota("You keep too much.", retry_after=180))
    assert (status, headers["Retry-After"]) == (429, "180")
    assert body["error"]["code"] == "insufficient_quota"
