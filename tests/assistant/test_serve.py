"""The server's process: what its threads have freed is of use to all of them."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from assistant.serve import ARENAS

ROOT = Path(__file__).resolve().parents[2]
THREADS = """
import ctypes, sys, threading
from assistant.serve import _share_freed_memory

if sys.argv[1] == "shared":
    _share_freed_memory()
together = threading.Barrier(13)

def work():
    kept = [bytearray(25_000) for _ in range(50)]
    together.wait()

threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
together.wait()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives threads arenas of their own")
def test_threads_share_arenas_of_memory(tmp_path: Path) -> None:
    arenas = {}
    for how in ("shared", "own"):
        told = tmp_path / how
        subprocess.run([sys.executable, "-c", THREADS, how, str(told)], cwd=ROOT, check=True)
        arenas[how] = told.read_text().count("<heap nr=")
    assert arenas["shared"] <= ARENAS < arenas["own"]
