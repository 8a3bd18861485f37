"""A door in front of the server that can be shut, as if the server were off, and opened again."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Door:
    """Hands on whatever comes to a port of its own, while it is open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._behind = (parts.hostname, parts.port)
        self._held: list[socket.socket] = []
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        """Where the server is, through the door."""
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Let people in; after `shut`, at the same address."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._receive, args=(self._listening,), daemon=True).start()

    def shut(self) -> None:
        """Refuse everybody, and end what is under way."""
        for one in (self._listening, *self._held):
            with suppress(OSError):  # ended by the other side
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._held.clear()

    def _receive(self, listening: socket.socket) -> None:
        with suppress(OSError):  # shut
            while True:
                came, _ = listening.accept()
                on = socket.create_connection(self._behind)
                self._held += [came, on]
                for ends in ((came, on), (on, came)):
                    threading.Thread(target=_hand_on, args=ends, daemon=True).start()


def _hand_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # shut
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
