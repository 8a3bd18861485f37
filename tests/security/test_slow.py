"""Slow clients: a thousand that never finish asking stop nobody and are hung up on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from assistant.api import punctual
from assistant.api.punctual import PunctualProtocol, allow_many_connections
from tests.soak import cases

PATIENCE = 1.5  # seconds, in place of REQUEST_SECONDS


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads a request to its end; /slow takes longer to answer than one may take to ask."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP is spoken here")
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * PATIENCE)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(punctual, "REQUEST_SECONDS", PATIENCE)
    allow_many_connections()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, lifespan="off", http=PunctualProtocol, timeout_keep_alive=60
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join()


def hung_up(one: socket.socket) -> bool:
    """Whether the other side closes within some seconds."""
    one.settimeout(20)
    with contextlib.suppress(ConnectionResetError):
        return one.recv(1) == b""
    return True


BEGINNINGS = (
    b"",
    b"GET / HT",
    b"GET / HTTP/1.1\r\nHost: x\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /again HTTP/1.1\r\n",  # the second of two is slow
)


def test_who_never_finishes_asking_stops_nobody(address: tuple[str, int]) -> None:
    count = cases(1000)
    slow = [socket.create_connection(address) for _ in range(count)]
    try:
        for number, one in enumerate(slow):
            one.sendall(BEGINNINGS[number % len(BEGINNINGS)])
        answers = [httpx.post(f"http://{address[0]}:{address[1]}/", content=b"x" * 1000) for _ in range(5)]
        assert [answer.text for answer in answers] == ["1000"] * 5
        for number, one in enumerate(slow):
            if number % len(BEGINNINGS) == 4:
                assert b"200 OK" in one.recv(1000), "the first of the two is answered"
            assert hung_up(one), BEGINNINGS[number % len(BEGINNINGS)]
    finally:
        for one in slow:
            one.close()


def test_a_slow_answer_is_waited_for_and_a_connection_is_used_again(address: tuple[str, int]) -> None:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=30) as client:
        assert client.get("/slow").text == "0"
        assert client.post("/", content=b"ab").text == "2"
        assert client.get("/slow").text == "0"
