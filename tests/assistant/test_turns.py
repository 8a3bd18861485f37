"""Whose turn it is: fair between people, bounded by room, Busy when the queue is full."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from assistant.turns import Turns
from feedback.errors import Busy


@dataclass(eq=False)
class Piece:
    """A job with nothing to do."""

    user_id: str
    positions: int = 10
    stopped: bool = False


def queue(*jobs: Piece, room: int = 1000, most: int = 16) -> Turns[Piece]:
    turns: Turns[Piece] = Turns(room, most)
    for job in jobs:
        turns.join(job, retry_after=3)
    return turns


def test_ten_requests_get_no_more_steps_than_one() -> None:
    many, one = [Piece("ada") for _ in range(4)], Piece("bob")
    turns = queue(*many, one)
    order = [turns.next() for _ in range(16)]
    assert order.count(one) == 8
    assert [order.count(job) for job in many] == [2, 2, 2, 2]


def test_only_what_there_is_room_for_runs() -> None:
    first, second, third = Piece("ada", 60), Piece("bob", 60), Piece("cy", 20)
    turns = queue(first, second, third, room=100)
    assert {turns.next() for _ in range(6)} == {first}  # bob is next and does not fit; cy does not jump the queue
    turns.leave(first)
    assert {turns.next() for _ in range(6)} == {second, third}
    assert len(turns) == 2


def test_a_job_larger_than_the_room_runs_alone() -> None:
    large, small = Piece("ada", 500), Piece("bob", 10)
    turns = queue(large, small, room=100)
    assert {turns.next() for _ in range(4)} == {large}


def test_a_stopped_one_leaves_at_once_however_full_it_is() -> None:
    running, waiting = Piece("ada", 100), Piece("bob", 100)
    turns = queue(running, waiting, room=100)
    assert turns.next() is running
    waiting.stopped = True
    assert waiting in {turns.next(), turns.next()}


def test_who_waits_may_leave() -> None:
    running, waiting = Piece("ada", 100), Piece("ada", 100)
    turns = queue(running, waiting, room=100)
    assert turns.next() is running
    turns.leave(waiting)
    turns.leave(running)
    assert len(turns) == 0
    assert turns.next() is None


def test_a_full_queue_says_when_to_come_back() -> None:
    turns = queue(*(Piece(f"person {number}") for number in range(16)), most=16)
    with pytest.raises(Busy, match="16 requests are waiting") as caught:
        turns.join(Piece("late"), retry_after=7)
    assert caught.value.retry_after == 7


def test_one_person_cannot_fill_the_queue() -> None:
    turns = queue(*(Piece("ada") for _ in range(4)), most=16)
    with pytest.raises(Busy, match="of your own"):
        turns.join(Piece("ada"), retry_after=1)
    turns.join(Piece("bob"), retry_after=1)
