"""Whose turn it is on the one model: fair between people, first come first served within a person's own.

Jobs that run take one step each in turn, so a long reply never blocks a short one, and a person with ten requests gets
no more turns than a person with one. Jobs that can take a step together go along on each other's turns, one of every
other person first. How many run at once is bounded by the memory their key/value caches take. Not
thread-safe: the engine holds its lock around every call.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from typing import Generic, Protocol, TypeVar

from feedback.errors import Busy


class Job(Protocol):
    """What is queued.

    positions: places in a key/value cache, over all its drafts; rows: how many of a joint step's it needs, 0 when its
    next turn is its own; ready: a turn would find something to do; stopped: wants to leave.
    """

    user_id: str
    positions: int

    @property
    def rows(self) -> int: ...

    @property
    def ready(self) -> bool: ...

    @property
    def stopped(self) -> bool: ...


J = TypeVar("J", bound=Job)


class Turns(Generic[J]):
    """Jobs that wait and jobs that run."""

    def __init__(self, room: int, max_waiting: int, share: int | None = None) -> None:
        """room: cache positions of all running jobs together (a larger one still runs, alone).

        share: the same for one person's, where jobs that run do not wait for a turn: None where taking turns is enough.
        """
        self.room, self.max_waiting, self.share = room, max_waiting, share
        self.waiting: list[J] = []
        self._running: OrderedDict[str, deque[J]] = OrderedDict()  # by person; the first is next

    def __len__(self) -> int:
        return len(self.waiting) + sum(map(len, self._running.values()))

    def all(self) -> list[J]:
        """Every job, running ones first."""
        return [job for jobs in self._running.values() for job in jobs] + self.waiting

    def join(self, job: J, retry_after: int) -> None:
        """Queue a job. Raises Busy when the queue is full, or a quarter full of this person's own jobs."""
        own = sum(other.user_id == job.user_id for other in self.waiting)
        if len(self.waiting) >= self.max_waiting or own >= max(1, self.max_waiting // 4):
            whose = "of your own requests" if len(self.waiting) < self.max_waiting else "requests"
            count = own if len(self.waiting) < self.max_waiting else len(self.waiting)
            raise Busy(
                f"Mynah is busy: {count} {whose} are waiting already. Try again in {retry_after} s.",
                retry_after=retry_after,
            )
        self.waiting.append(job)

    def next(self) -> J | None:
        """Let in what there is room for; then the job whose turn it is, or None when none has anything to do."""
        self._admit()
        for person, jobs in self._running.items():
            job = next((job for job in jobs if job.ready), None)
            if job is not None:
                jobs.remove(job)
                jobs.append(job)
                self._running.move_to_end(person)
                return job
        return None

    def round(self, rows: int) -> list[J]:
        """The job whose turn it is, and those that can go along in a joint step of so many rows."""
        first = self.next()
        if first is None or not first.rows:
            return [] if first is None else [first]
        others = [jobs for person, jobs in self._running.items() if person != first.user_id]
        others.append(deque(job for job in self._running[first.user_id] if job is not first))
        going, left = [first], rows - first.rows
        for job in filter(None, itertools.chain(*itertools.zip_longest(*others))):
            if 0 < job.rows <= left:
                going.append(job)
                left -= job.rows
        for job in going[1:]:  # who went along waits as long for the next turn as who had it
            self._running.move_to_end(job.user_id)
        return going

    def leave(self, job: J) -> None:
        """Take a job out, wherever it is."""
        if job in self.waiting:
            self.waiting.remove(job)
        elif job in (jobs := self._running.get(job.user_id, deque())):
            jobs.remove(job)
            if not jobs:
                del self._running[job.user_id]

    def _admit(self) -> None:
        while waiting := [job for job in self.waiting if self._may_run(job)]:
            # Stopped ones only need to be told goodbye; else whoever has least running, in order of arrival.
            job = min(waiting, key=lambda j: (not j.stopped, len(self._running.get(j.user_id, ()))))
            taken = sum(other.positions for jobs in self._running.values() for other in jobs)
            if taken and taken + job.positions > self.room and not job.stopped:
                return
            self.waiting.remove(job)
            self._running.setdefault(job.user_id, deque()).append(job)

    def _may_run(self, job: J) -> bool:
        """Whether a person's share is not taken up by what runs of theirs; a single job always may."""
        if self.share is None or job.stopped:
            return True
        own = sum(other.positions for other in self._running.get(job.user_id, ()))
        return not own or own + job.positions <= self.share
