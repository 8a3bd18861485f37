"""The command line as people use it: processes, exit codes, what is printed where."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from adapters.base_model import BaseFiles
from assistant.cli import main
from assistant.config import Config
from assistant.lock import DataLock, holder
from feedback.store import Store
from tests.assistant.serving import OPEN_GATE, PASSWORD, own_models, tiny_numbers, wait_for

ROOT = Path(__file__).resolve().parents[2]


class Place:
    """A data folder and the environment that names it."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        numbers = folder / "update.json"
        numbers.write_text(json.dumps(tiny_numbers(OPEN_GATE)))
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "MYNAH_DATA_DIR": str(self.data),
            "MYNAH_MODELS_DIR": str(models),
            "MYNAH_UPDATE_CONFIG": str(numbers),
            "MYNAH_UPDATES": "off",
            "MYNAH_THREADS": "1",
            "MYNAH_NICE": "5",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command in the background."""
        return subprocess.Popen(
            [sys.executable, "app.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, stdin: str = "", expect: int = 0) -> tuple[str, str]:
        """A command to its end: what it printed on stdout and stderr."""
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=240)
        assert process.returncode == expect, (out, err)
        assert "Traceback" not in err
        return out, err

    def refuses(self, *arguments: str, stdin: str = "") -> str:
        """Exit code 2 and one sentence on stderr."""
        _, err = self.run(*arguments, stdin=stdin, expect=2)
        assert err.count("\n") == 1 and err.endswith("\n"), err
        return err


@pytest.fixture(scope="module")
def models(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_models(base_files, tmp_path_factory.mktemp("models") / "models")


@pytest.fixture
def place(tmp_path: Path, models: Path) -> Place:
    return Place(tmp_path, models)


class Here:
    """Commands in this process, which is quicker; standard input is a file."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch, self.capture = patch, capture

    def run(self, *arguments: str, stdin: str = "", expect: int = 0) -> tuple[str, str]:
        """What a command printed on stdout and stderr."""
        with io.StringIO(stdin) as file:
            self.patch.setattr(sys, "stdin", file)
            before = signal.getsignal(signal.SIGTERM)
            try:
                code = main(arguments)
            except SystemExit as left:
                code = int(str(left.code))
            finally:
                signal.signal(signal.SIGTERM, before)
        out, err = self.capture.readouterr()
        assert code == expect, (out, err)
        return out, err

    def refuses(self, *arguments: str, stdin: str = "") -> str:
        """Exit code 2 and one sentence on stderr."""
        _, err = self.run(*arguments, stdin=stdin, expect=2)
        assert err.count("\n") == 1 and err.endswith("\n"), err
        return err


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return Here(monkeypatch, capsys)


class Server:
    """A running server, and what its first start printed."""

    def __init__(self, place: Place, *arguments: str) -> None:
        self.place = place
        self.process = place.start(*(arguments or ("--port", "0")))
        self.lines: list[str] = []
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("Mynah is at"):
                break
        self.address = self.lines[-1].removeprefix("Mynah is at ")

    def stop(self) -> float:
        """SIGTERM; the seconds it took."""
        begun = monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return monotonic() - begun


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    running = Server(Place(tmp_path_factory.mktemp("server"), models))
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.communicate()


def test_people_and_keys_without_a_server(here: Here, place: Place) -> None:
    assert "no data folder" in here.refuses("user", "list")
    assert (
        here.run("user", "add", "Ada", "--admin", "--password-stdin", stdin=f"{PASSWORD}\n")[0]
        == "Added Ada (admin).\n"
    )
    assert "named 'ADA' already" in here.refuses("user", "add", "ADA", "--password-stdin", stdin=PASSWORD)
    assert "needs 8" in here.refuses("user", "add", "Bob", "--password-stdin", stdin="short\n")
    assert "--password-stdin" in here.refuses("user", "add", "Bob")
    assert "Ada\tadmin\t0 labels" in here.run("user", "list")[0]
    key, nothing = here.run("key", "create", "ada")
    assert re.fullmatch(r"mynah-[\w-]{43}\n", key) and nothing == ""
    (line,) = here.run("key", "list", "Ada")[0].splitlines()
    assert key.strip() not in line and "never used" in line
    here.run("key", "revoke", line.split("\t")[0])
    assert here.run("key", "list", "Ada")[0] == ""
    assert "no API key k_x" in here.refuses("key", "revoke", "k_x")
    here.run("user", "passwd", "Ada", "--password-stdin", stdin="another password\n")
    assert "last admin" in here.refuses("user", "remove", "Ada")
    assert "no UTF-8" in here.refuses("key", "create", "Ada\udcff")
    assert "no UTF-8" in here.refuses("user", "add", "Bob", "--password-stdin", stdin="long enough\udcff\n")
    assert "no person named 'Eve'" in here.refuses("user", "remove", "Eve")
    store = Store(place.data / "mynah.db")
    assert PASSWORD not in "\n".join(store.database._db.conn.iterdump())
    store.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "unrecognized arguments: fly"),
        (["--port", "many"], "port is 'many'"),
        (["--port", "70000"], "0 to 65535"),
        (["serve", "--updates", "sometimes"], "off, idle"),
        (["serve", "--port", "0", "--base-model", "/nowhere"], "no such folder"),
        (["serve", "--data-dir", "/proc/mynah"], "cannot be used"),
        (["serve", "--host", "256.0.0.1"], "host"),
        (["user"], "required"),
        (["restore", "/nowhere.zip"], "no file"),
        (["backup", "/tmp/none.zip"], "nothing to back up"),
        (["update", "Ada"], "no data folder"),
        (["user", "add", "Ada", "--password-stdin", "--data-dir", "/dev/null/x"], "cannot be made: Not a directory"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    here: Here, place: Place, arguments: list[str], words: str
) -> None:
    assert words in here.refuses(*arguments)
    assert holder(place.data) is None


def test_options_of_any_command_can_come_from_the_environment(here: Here) -> None:
    here.patch.setenv("MYNAH_PASSWORD_STDIN", "1")
    here.patch.setenv("MYNAH_ADMIN", "no")
    assert here.run("user", "add", "Ada", stdin=PASSWORD)[0] == "Added Ada.\n"
    here.patch.setenv("MYNAH_ADMIN", "yes")
    assert here.run("user", "add", "Bob", stdin=PASSWORD)[0] == "Added Bob (admin).\n"
    here.patch.setenv("MYNAH_ADMIN", "Ada")
    assert "MYNAH_ADMIN is 'ada'; it can be 1 or 0" in here.refuses("user", "add", "Eve", stdin=PASSWORD)
    assert "required: --out" in here.refuses("export", "Ada")
    here.patch.setenv("MYNAH_OUT", "/tmp/nothing.zip")
    here.patch.setenv("MYNAH_VERSION", "v9")
    assert "v9" in here.refuses("export", "Ada")


def test_help_names_every_option_and_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", "--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in Config.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text and f"MYNAH_{name.upper()}" in text


def test_the_first_run_says_all_that_is_needed(server: Server) -> None:
    folder, base, admin, at = server.lines
    assert folder == f"Data folder: {server.place.data}"
    assert base.startswith("Base model: smollm2-135m-instruct@")
    assert re.fullmatch(r"Admin account: admin, password: \S{12,} \(shown only now\)", admin)
    assert re.fullmatch(r"Mynah is at http://127\.0\.0\.1:\d+", at)
    assert httpx.get(f"{server.address}/healthz").status_code == 200
    assert (server.place.data.stat().st_mode & 0o077) == 0, "nobody else reads the data folder"


def test_a_second_server_leaves_at_once_and_names_the_first(server: Server) -> None:
    begun = monotonic()
    sentence = server.place.refuses("serve", "--port", "0")
    assert monotonic() - begun < 20  # two seconds on a machine that is not running a test suite
    assert str(server.process.pid) in sentence and server.address in sentence
    assert httpx.get(f"{server.address}/healthz").status_code == 200


def test_a_taken_port_is_one_sentence(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in place.refuses("serve", "--port", port)
    assert holder(place.data) is None


def test_beside_a_running_server(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People, keys, a backup that restores elsewhere, refusals; tests/test_docs.py has an update and an export."""
    place, here = server.place, Here(monkeypatch, capsys)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    here.run("user", "add", "Ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    key = here.run("key", "create", "Ada")[0].strip()
    http = httpx.Client(base_url=server.address, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    assert http.get("/v1/me").json()["name"] == "Ada"
    assert "10 labels" in here.refuses("update", "Ada")
    item = {
        "messages": [{"role": "user", "content": "Who are you?"}],
        "replies": ["You and I will find out!", "A program."],
        "ranking": [[0], [1]],
    }
    assert http.post("/v1/me/preferences", json=[item] * 10).status_code == 201

    saved = place.folder / "saved.zip"
    here.run("backup", str(saved))
    assert "exists already" in here.refuses("backup", str(saved))
    assert "in use by another Mynah" in here.refuses("restore", str(saved))
    elsewhere = str(place.folder / "elsewhere")
    here.run("restore", str(saved), "--data-dir", elsewhere)
    assert "not empty" in here.refuses("restore", str(saved), "--data-dir", elsewhere)
    assert "Ada\tuser\t10 labels" in here.run("user", "list", "--data-dir", elsewhere)[0]
    assert "problem" not in here.run("doctor", "--data-dir", elsewhere)[0]

    here.run("user", "remove", "Ada")
    assert http.get("/v1/me").status_code == 401
    http.close()


def test_sigterm_ends_it_in_time_with_the_update_paused(server: Server) -> None:
    """The last test with this server."""
    place = server.place
    place.run("user", "add", "Bob", "--admin", "--password-stdin", stdin=f"{PASSWORD}\n")
    key = place.run("key", "create", "Bob")[0].strip()
    http = httpx.Client(base_url=server.address, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    item = {"messages": [{"role": "user", "content": "Hi"}], "replies": ["You!", "It."], "ranking": [[0], [1]]}
    http.post("/v1/me/preferences", json=[item] * 10)
    update_id = http.post("/v1/me/updates").json()["update_id"]
    wait_for((place.data / "jobs" / update_id / "pid").exists)
    asked: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Tell me a very long story."}],
        "max_tokens": 1500,
    }
    asked |= {"model": "base", "n": 4}  # of four stories one is long
    with ThreadPoolExecutor() as pool, ExitStack() as streams:
        for seed in range(9):
            stream = http.stream("POST", "/v1/chat/completions", json={**asked, "stream": True, "seed": seed})
            lines = (line.removeprefix("data: ") for line in streams.enter_context(stream).iter_lines() if line)
            if "[DONE]" not in (first := list(islice(lines, 40))):
                break
        plain = pool.submit(http.post, "/v1/chat/completions", json=asked)
        wait_for(lambda: "mynah_engine_busy 2" in http.get("/metrics").text)
        assert "[DONE]" not in list(islice(lines, 10))  # they take turns: by now the other is being written, too
        stopped = pool.submit(server.stop)
        *rest, done = lines
        assert done == "[DONE]" and stopped.result() < 10
    assert "length" in [json.loads(each)["choices"][0]["finish_reason"] for each in rest[-4:]]
    shown = {json.loads(first[0])["choices"][0]["reply_id"], plain.result().json()["choices"][0]["reply_id"]}
    http.close()
    store = Store(place.data / "mynah.db")
    (update,) = store.versions.live_updates()
    assert update.id == update_id and update.state == "paused"
    assert {reply.id for reply in store.chats.all_replies(update.user_id)} >= shown, "what was read is kept"
    store.close()
    assert holder(place.data) is None
    assert (place.data / "jobs" / update_id / "job.json").exists()


def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(here: Here, place: Place) -> None:
    here.run("user", "add", "Ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    (place.data / "adapters" / "u_gone" / "v1").mkdir(parents=True)
    out, _ = here.run("doctor", "--base-model", "other/model", expect=1)
    assert "u_gone belongs to nothing" in out and "there is no admin" in out
    assert "other/model (nf4) is not in" in out and out.count("mend: ") == 3
    (place.data / "mynah.db").write_bytes(b"no database at all, but long enough to look like one" * 100)
    assert "restore a backup" in here.run("doctor", expect=1)[0]
    assert "damaged" in here.refuses("user", "list")


def test_a_lock_tells_who_holds_it(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    lock = DataLock(tmp_path, "a test")
    lock.tell(purpose="a test", address="http://here")
    found = holder(tmp_path)
    assert found is not None and found["address"] == "http://here"
    lock.release()
    lock.release()
    assert holder(tmp_path) is None


def test_what_the_command_line_does_is_in_the_audit_log(place: Place, here: Here, tmp_path: Path) -> None:
    here.run("user", "add", "Root", "--admin", "--password-stdin", stdin=PASSWORD)
    here.run("user", "add", "Ada", "--password-stdin", stdin=PASSWORD)
    here.run("user", "passwd", "Ada", "--password-stdin", stdin="another long password")
    here.run("key", "create", "Ada")
    key = here.run("key", "list", "Ada")[0].split("\t")[0]
    here.run("key", "revoke", key)
    here.run("user", "disable", "Ada")
    assert "Ada\tdisabled" in here.run("user", "list")[0]
    assert "last admin" in here.refuses("user", "disable", "Root")
    here.run("user", "enable", "Ada")
    here.run("user", "remove", "Ada")
    here.run("backup", str(tmp_path / "backup.zip"))
    store = Store(place.data / "mynah.db")
    told = [entry.action for entry in reversed(store.server.audit()) if entry.admin == "the command line"]
    store.close()
    assert told == [
        "added", "added", "set the password of", "made an API key for", "revoked an API key", "disabled", "enabled",
        "removed", "made a backup",
    ]  # fmt: skip
