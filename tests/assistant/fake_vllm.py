"""A small server that speaks vLLM's protocol, to see what Mynah does with what such a server may answer.

What it writes tells who wrote it: the name of the model and the seed, over and over, counted. The real vLLM is in
tests/ecosystem/test_vllm.py.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from assistant.vllm_base import OwnBase

BASE = "base-there"


class FakeVllm:
    """What a test may turn: each attribute below. `kill` and `start` leave the address as it is."""

    def __init__(self, base: OwnBase) -> None:
        self.files, self.base = base.files, base
        self.tokenizer = AutoTokenizer.from_pretrained(self.files.full, local_files_only=True)
        self.lock = threading.Lock()  # of the tokenizer
        self.port = 0
        self.as_new()
        self.start()

    def as_new(self) -> None:
        """Undo what a test has turned."""
        self.root, self.context = str(self.files.full), 8192
        self.updating = True  # VLLM_ALLOW_RUNTIME_LORA_UPDATING
        self.off = 0.0  # nats added to every log-probability
        self.tokens: list[int] | None = None  # what /tokenize finds instead
        self.pause = 0.0  # seconds between two tokens
        self.signs_as: str | None = None  # the model that answers claim to be from
        self.lists_root: str | None = None  # the folder of every adapter that is listed
        self.breaks_after: int | None = None  # tokens after which a stream ends as if the process had died
        self.ends_after: int | None = None  # tokens after which a reply ends by itself
        self.garbage: str | None = None  # instead of every chunk
        self.status: dict[str, int] = {}  # by path, what is answered instead
        self.asked: list[dict[str, Any]] = []  # bodies of completions
        self.loads: list[str] = []  # names, ever
        self.broken_off = 0  # streams whose reader went away

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Answer, having loaded nothing."""
        self.adapters: dict[str, str] = {}
        self.connections: set[socket.socket] = set()
        self.alive = True
        self.server = _Server(("127.0.0.1", self.port), _Handler, self)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def kill(self) -> None:
        """End as a killed process does: all connections break."""
        self.alive = False
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.thread.join()

    def encode(self, text: str) -> list[int]:
        with self.lock:
            return list(self.tokenizer.encode(text, add_special_tokens=False))

    def cards(self) -> list[dict[str, Any]]:
        base = {"id": BASE, "root": self.root, "parent": None, "max_model_len": self.context}
        loaded = [
            {"id": name, "root": self.lists_root or path, "parent": BASE, "max_model_len": None}
            for name, path in self.adapters.items()
        ]
        return [base, *loaded]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], fake: FakeVllm) -> None:
        self.fake = fake
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.fake = self.server.fake
        self.fake.connections.add(self.connection)

    def finish(self) -> None:
        self.fake.connections.discard(self.connection)
        super().finish()

    def log_message(self, *words: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if not self._told_otherwise():
            self._answer(200, {"data": self.fake.cards()})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._told_otherwise():
            return
        if self.path == "/tokenize":
            self._answer(200, {"tokens": self.fake.tokens or self.fake.encode(body["prompt"])})
        elif self.path == "/v1/load_lora_adapter" and self.fake.updating:
            self._load(body["lora_name"], body["lora_path"])
        elif self.path == "/v1/unload_lora_adapter" and self.fake.updating:
            gone = self.fake.adapters.pop(body["lora_name"], None)
            self._answer(200 if gone else 404, {})
        elif self.path == "/v1/completions" and "prompt_logprobs" in body:
            found = [{str(i): {"logprob": p + self.fake.off}} for i, p in self._probed()]
            self._answer(200, {"choices": [{"prompt_logprobs": [None, *found]}]})
        elif self.path == "/v1/completions":
            self._complete(body)
        else:
            self._answer(404, {"detail": "Not Found"})

    def _probed(self) -> zip[tuple[int, float]]:
        return zip(self.fake.base.ids[1:], self.fake.base.logprobs, strict=True)

    def _load(self, name: str, path: str) -> None:
        fits = name and (Path(path) / "adapter_config.json").is_file() and name not in self.fake.adapters
        if fits:
            self.fake.adapters[name] = path
            self.fake.loads.append(name)
        self._answer(200 if fits else 400, {})

    def _complete(self, body: dict[str, Any]) -> None:
        fake, name = self.fake, body["model"]
        if name != BASE and name not in fake.adapters:
            self._answer(404, {"error": {"message": f"The model `{name}` does not exist."}})
            return
        fake.asked.append(body)
        text = "".join(f"{name} with {body['seed']} goes on and on {i}. " for i in range(200))
        ids = fake.encode(text)[: body["max_tokens"]]
        if fake.ends_after is not None and fake.ends_after <= len(ids):
            ids = [*ids[: fake.ends_after - 1], body["stop_token_ids"][0]]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for place, token in enumerate(ids):
                if place == fake.breaks_after or not fake.alive:
                    return
                last = place == len(ids) - 1
                finish = None if not last else "stop" if token in body["stop_token_ids"] else "length"
                choice = {"index": 0, "text": "", "finish_reason": finish, "token_ids": [token]}
                chunk = json.dumps({"model": fake.signs_as or name, "choices": [choice]})
                self.wfile.write(f"data: {fake.garbage or chunk}\n\n".encode())
                time.sleep(fake.pause)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            fake.broken_off += 1

    def _told_otherwise(self) -> bool:
        status = self.fake.status.get(self.path)
        if status is not None:
            self._answer(status, {"detail": "told to"})
        return status is not None

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
