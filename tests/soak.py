"""How many cases a test tries: a tenth in `make test`, all of them in `make soak`, which sets MYNAH_SOAK."""

from __future__ import annotations

import os

SOAK = bool(os.environ.get("MYNAH_SOAK"))


def cases(whole: int) -> int:
    """The whole count, or a tenth of it."""
    return whole if SOAK else -(-whole // 10)
