"""Memory: whether something went wrong for want of it, which every library says in words of its own; giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import errno

import torch

TOO_LITTLE = (
    "There was too little memory to train; close other programs or give the machine more, then ask for a new update."
)


def ran_out(error: BaseException | None) -> bool:
    """Whether memory is behind an error, or behind what caused it."""
    if error is None:
        return False
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return known or says_so(str(error)) or ran_out(error.__cause__ or error.__context__)


def says_so(words: str) -> bool:
    """Whether the words of an error are those of too little memory."""
    known = (
        "can't allocate memory",
        "Cannot allocate memory",
        "MemoryError",
        "bad_alloc",
        "out of memory",
        "failed to map",
        "could not create a primitive",  # oneDNN, which does not say for want of what
    )
    return any(each in words for each in known)


def give_back() -> None:
    """Return freed memory to the system: some milliseconds.

    glibc keeps what many small blocks were cut from, in each thread's arena, however much that was at most (LOG.md).
    Other C libraries have no such call.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_no_large_blocks() -> None:
    """From now on blocks of 4 MB or more are pages of their own, and gone when they are freed.

    For a process that trains, whose heap grows by holes that nothing fits (LOG.md). By itself glibc takes blocks of up
    to 32 MB from its heap once it has seen one freed. The heap's own end may still be 64 MB that nobody uses, as it is
    by itself then: shortened at every turn, a training step takes a twelfth longer.
    """
    threshold, trim = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL(None)
        glibc.mallopt(threshold, 4 * 2**20)
        glibc.mallopt(trim, 64 * 2**20)
