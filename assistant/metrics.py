"""What a Prometheus server asks for: counts, gauges and sums as plain text.

Names and help texts stand in one table each. Left out on purpose: anything that names a person.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping

import psutil

from assistant.mynah import Mynah
from feedback.types import UpdateState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES: tuple[UpdateState, ...] = ("queued", "running", "paused", "promoted", "rejected", "failed", "cancelled")
_TABLES = {
    "users": "People with an account.",
    "sessions": "Signed-in browsers.",
    "conversations": "Conversations kept.",
    "replies": "Replies kept.",
    "preferences": "Labels that count now.",
    "versions": "Adapter versions of all people.",
}


class Traffic:
    """Requests answered since the start; filled by the HTTP layer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds = 0.0
        self.clicks = 0
        self.head_seconds = 0.0

    def answered(self, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        with self._lock:
            self.requests[method, status] += 1
            self.seconds += seconds

    def clicked(self, head_ms: float) -> None:
        """Count one act of feedback and the time its head took."""
        with self._lock:
            self.clicks += 1
            self.head_seconds += head_ms / 1000


def render(mynah: Mynah, traffic: Traffic) -> str:
    """The whole page."""
    return "\n".join([*_lines(mynah, traffic), ""])


def _lines(mynah: Mynah, traffic: Traffic) -> Iterator[str]:
    counts = mynah.store.counts()
    for table, words in _TABLES.items():
        yield from _metric(f"mynah_{table}", "gauge", words, {"": counts[table]})
    by_state = {f'{{state="{state}"}}': counts.get(f"updates.{state}", 0) for state in STATES}
    yield from _metric("mynah_updates", "gauge", "Updates by state.", by_state)
    live = [update.progress for update in mynah.store.versions.live_updates() if update.state == "running"]
    yield from _metric(
        "mynah_update_progress", "gauge", "Share done of the running update.", {"": max(live, default=0)}
    )
    yield from _metric(
        "mynah_engine_busy", "gauge", "Requests the model works on or that wait for it.", {"": mynah.engine.busy}
    )
    yield from _metric(
        "mynah_engine_idle_seconds", "gauge", "Time since the last reply.", {"": mynah.engine.idle_seconds}
    )
    with traffic._lock:
        requests = {
            f'{{method="{method}",status="{status}"}}': n for (method, status), n in sorted(traffic.requests.items())
        }
    yield from _metric("mynah_http_requests_total", "counter", "Requests answered.", requests)
    yield from _metric(
        "mynah_http_seconds_total", "counter", "Time until their answers were complete.", {"": traffic.seconds}
    )
    yield from _metric("mynah_head_updates_total", "counter", "Acts of feedback taken.", {"": traffic.clicks})
    yield from _metric("mynah_head_seconds_total", "counter", "Time to refit reward heads.", {"": traffic.head_seconds})
    process = psutil.Process()
    yield from _metric("process_start_time_seconds", "gauge", "When the server started.", {"": process.create_time()})
    yield from _metric("process_resident_memory_bytes", "gauge", "Memory in use.", {"": process.memory_info().rss})
    times = process.cpu_times()
    yield from _metric("process_cpu_seconds_total", "counter", "Processor time.", {"": times.user + times.system})


def _metric(name: str, kind: str, words: str, values: Mapping[str, float]) -> Iterator[str]:
    """values: label set in braces (empty for none) → number."""
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{labels} {value:.10g}"
