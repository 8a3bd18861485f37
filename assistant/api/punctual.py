"""HTTP/1.1 as uvicorn speaks it, but who does not finish asking is hung up on: slow clients must not stop a server.

uvicorn waits for the rest of a request for ever, and every open connection takes a file descriptor. How long an answer
takes is another matter and not limited here.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 60.0  # from the first byte, or from nothing, to the last byte of a request
CONNECTIONS = 16_384  # file descriptors that are asked for


class PunctualProtocol(H11Protocol):
    """One connection."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request, not for ever."""
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Part of a request, or all of it."""
        super().data_received(data)
        if self.conn.their_state is not h11.SEND_BODY and self.conn.their_state is not h11.IDLE:
            self._forgive()

    def on_response_complete(self) -> None:
        """Wait for the next request. A silent connection is closed sooner, by uvicorn's keep-alive."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._forgive()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._forgive()
        self._late = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _forgive(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def allow_many_connections() -> None:
    """Raise the number of open files as far as this process may, where the system counts them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if hard == resource.RLIM_INFINITY else min(CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
