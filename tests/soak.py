"""How often a test of chance is repeated: a tenth of its count in `make test`, all of it in `make soak`."""

from __future__ import annotations

import os


def rounds(full: int) -> int:
    """The number of rounds in this run."""
    return full if os.environ.get("MYNAH_SOAK") == "1" else max(1, full // 10)
