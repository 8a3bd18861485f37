"""Too little memory is known by any of its names; what is freed is given back, and a cache's without being asked."""

from __future__ import annotations

import errno
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adapters.memory import ran_out
from feedback.errors import CorruptFile

ROOT = Path(__file__).resolve().parents[2]


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


FREED = """
import psutil
from adapters.memory import give_back

blocks = [bytearray(50_000) for _ in range(4_000)]
ends = blocks[::400]  # between what is freed, so that the heap cannot shrink from its end
del blocks
before = psutil.Process().memory_info().rss
give_back()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such call")
def test_what_is_freed_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) > 150_000_000


CACHES = """
import psutil
import torch
from adapters.cache import GrowingLayer

def resident():
    return psutil.Process().memory_info().rss / 2**20

large = torch.zeros(7_500_000)
del large  # from now on glibc takes blocks of up to 30 MB from its heap
state = torch.zeros(68, 3, 65, 64)  # 3.2 MB, twice a layer, with room for 127 positions more
layers, pins = [GrowingLayer() for _ in range(31)], []
layers[-1].update(state, state)
layers.pop().select(torch.arange(34))  # what loads code of torch's
before = resident()
for layer in layers:
    layer.update(state, state)
    pins.append(torch.ones(1000))  # what stays, between what goes
print(resident() - before)
for layer in layers:
    layer.select(torch.arange(34))
print(resident() - before)
layers.clear()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep other things")
def test_a_cache_takes_what_is_written_and_leaves_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", CACHES], cwd=ROOT, check=True, capture_output=True, text=True)
    written, halved, after = map(float, done.stdout.split())
    assert 190 < written < 300, "194 MB of keys and values, in whole pages a head; not the 573 that there is room for"
    assert halved < 0.75 * written and after < 25


LARGE = """
import psutil
import torch
from adapters.memory import keep_no_large_blocks

def resident():
    return psutil.Process().memory_info().rss / 2**20

def kept():
    before, blocks, pins = resident(), [], []
    for _ in range(20):
        blocks.append(torch.ones(2_000_000))  # 8 MB
        pins.append(torch.ones(1000))
    blocks.clear()
    return resident() - before

large = torch.ones(7_500_000)
del large  # from now on glibc takes blocks of up to 30 MB from its heap
print(kept())
keep_no_large_blocks()
print(kept())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep other things")
def test_large_blocks_go_where_small_ones_stay() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], cwd=ROOT, check=True, capture_output=True, text=True)
    before, after = map(float, done.stdout.split())
    assert before > 100 and after < 10
