"""Too little memory is known by any of its names."""

from __future__ import annotations

import errno

import pytest
import torch

from adapters.memory import ran_out
from feedback.errors import CorruptFile


def refused(bytes_: int) -> Exception:
    """What torch says when it cannot have so much."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(bytes_, dtype=torch.uint8)
    return caught.value


def test_it_is_known_whoever_says_it() -> None:
    assert ran_out(refused(2**60))
    assert ran_out(MemoryError()) and ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert ran_out(OSError(errno.ENOMEM, "Cannot allocate memory"))
    damaged = CorruptFile("chunk-000.safetensors is damaged")
    damaged.__cause__ = OSError(errno.ENOMEM, "mmap")
    assert ran_out(damaged), "it is not the file that was wrong"


def test_nothing_else_is_taken_for_it() -> None:
    assert not ran_out(None) and not ran_out(ZeroDivisionError("division by zero"))
    assert not ran_out(OSError(errno.ENOSPC, "No space left on device"))
    assert not ran_out(CorruptFile("half a file"))
