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
    rows: int = 0
    ready: bool = True


def queue(*jobs: Piece, room: int = 1000, most: int = 16, share: int | None = None) -> Turns[Piece]:
    turns: Turns[Piece] = Turns(room, most, share)
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


def test_a_job_with_nothing_to_do_gets_no_turn_and_loses_none() -> None:
    first, second, other = Piece("ada", ready=False), Piece("ada"), Piece("bob")
    turns = queue(first, second, other)
    assert [turns.next() for _ in range(4)] == [second, other, second, other]
    second.ready = other.ready = False
    assert turns.next() is None and turns.round(8) == [] and len(turns) == 3
    first.ready = True
    assert turns.next() is first


def test_one_person_runs_no_more_than_a_share_and_others_go_by() -> None:
    mine = [Piece("ada", 30) for _ in range(4)]
    turns = queue(*mine, room=100, share=60)
    assert {turns.next() for _ in range(6)} == set(mine[:2])
    turns.join(other := Piece("bob", 40), retry_after=3)
    assert {turns.next() for _ in range(6)} == {*mine[:2], other}
    turns.leave(mine[0])
    assert {turns.next() for _ in range(6)} == {*mine[1:3], other}
    large = queue(Piece("cy", 90), room=100, share=60)
    assert large.next() is not None, "a single job always may"


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


def test_others_go_along_one_of_each_first_then_ones_own() -> None:
    mine = [Piece("ada", rows=1) for _ in range(3)]
    bob, cy, dee, many = Piece("bob", rows=2), Piece("cy", rows=0), Piece("dee", rows=1), Piece("eve", rows=6)
    turns = queue(*mine, bob, cy, dee, many)
    assert turns.round(0) == [mine[0]]  # no joint steps here: one after the other
    assert turns.round(8) == [bob, dee, mine[1], mine[2], mine[0]]  # cy reads a prompt, eve's six do not fit
    assert turns.round(8) == [cy]
    assert turns.round(8) == [many, bob]  # there is no room for dee or ada
    assert turns.round(8) == [dee, mine[1], many]


def test_who_goes_along_gets_no_turn_more() -> None:
    small, large = [Piece(f"small-{number}", rows=1) for number in range(4)], Piece("large", rows=6)
    turns = queue(*small, large)
    went = [job for _ in range(12) for job in turns.round(8)]
    assert went.count(large) == pytest.approx(went.count(small[0]), abs=6)
    assert min(map(went.count, small)) >= 6 and went.count(large) >= 4
