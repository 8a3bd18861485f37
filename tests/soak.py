"""How many cases a test tries: a tenth in `make test`, all of them in `make soak`, which sets MYNAH_SOAK."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SOAK = bool(os.environ.get("MYNAH_SOAK"))


def cases(whole: int) -> int:
    """The whole count, or a tenth of it."""
    return whole if SOAK else -(-whole // 10)


def generated(whole: int) -> settings:
    """How hypothesis draws them: the same ones every time, but for `make soak`."""
    return settings(
        max_examples=cases(whole),
        deadline=None,
        database=None,
        derandomize=not SOAK,
        suppress_health_check=list(HealthCheck),
    )
