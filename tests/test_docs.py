"""What README.md and docs/ tell people to type is typed here.

Every command of theirs, in a block or between backticks, is either in STEPS, and run as it stands there beside a server
that the quick start has started; or it fits a line of NOT_RUN, which says why it is not, and what is looked at instead.
One that is in neither fails, and so does a line of the tables that no guide needs any more.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.base_model import BaseFiles
from assistant.api.reference import page
from assistant.cli import build_parser
from assistant.config import Config
from assistant.exports import check_format
from tests.adapters.jobs import SMALL
from tests.assistant.serving import OPEN_GATE, PASSWORD, own_models
from tests.assistant.test_cli import Here, Place, Server
from tests.guides import GUIDES, ROOT, blocks, is_option, read, spans

COMMAND = re.compile(r"(\w+=\S+ )*(python|make|docker|curl|ray|vllm|sh|\.venv/bin/\w+) .+", re.DOTALL)


def commands(guide: Path) -> Iterator[str]:
    """Every command of a guide, without comments; a Python block is one, too."""
    for block in blocks(guide, "sh"):
        lines = block.replace("\\\n", " ").splitlines()
        yield from (" ".join(re.sub(r"(^|\s+)#.*", "", line).split()) for line in lines if line.strip())
    yield from (span for span in spans(guide) if COMMAND.fullmatch(span))
    yield from blocks(guide, "python")


ALL = dict.fromkeys(command for guide in GUIDES for command in commands(guide) if command)


# ---- commands that are run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A command as a guide has it. put: what stands here for a guide's placeholders; says: what it must print, whose
    named groups stand for placeholders from then on (NAMED)."""

    command: str
    says: str
    put: dict[str, str] = field(default_factory=dict)
    stdin: str = ""


NAMED = {"key": "mynah-…", "reply": "r_…"}  # what a group stands for in the guides
AS_ADA = '-H "Authorization: Bearer $KEY"'
POST = f'{AS_ADA} -H "Content-Type: application/json" -d'
BEES = '{"model": "mynah", "messages": [{"role": "user", "content": "How do I keep bees?"}], "max_tokens": 64}'
STREAM = '{"model": "mynah", "messages": [{"role": "user", "content": "How do I keep bees?"}], "stream": true}'

# In this order; the server is the one that `make run` starts. NAME is Ada.
STEPS = [
    Step("python app.py serve --help", "--data-dir"),
    Step("python app.py user add NAME --password-stdin", "Added Ada", stdin=PASSWORD),
    Step("python app.py user list", "Ada\tuser\t0 labels"),
    Step("python app.py user passwd NAME --password-stdin", "is changed", stdin=PASSWORD),
    Step("python app.py key create NAME", r"^(?P<key>mynah-\S+)$"),
    Step("export MYNAH=http://127.0.0.1:7860/v1 KEY=mynah-…", ""),
    Step(f"curl $MYNAH/chat/completions {POST} '{BEES}'", r'"content":"[^"]+.*"reply_id":"(?P<reply>\w+)"'),
    Step(f"curl http://127.0.0.1:7860/v1/chat/completions {POST} '{STREAM}'", r"data: .*data: \[DONE\]"),
    Step(f'curl $MYNAH/feedback {POST} \'{{"reply_id": "r_…", "thumb": 1}}\'', '"labels":1,'),
    Step(f"curl $MYNAH/me/profile {AS_ADA}", '"traits":.*"evidence":1'),
    Step(blocks(ROOT / "README.md", "python")[0], r"\w", {'"…"': '"mynah-…"'}),
    Step(
        "python app.py import-feedback FILE",
        "8 preferences were taken in",
        {"FILE": "pairs.csv --server http://127.0.0.1:7860"},
        stdin="mynah-…",
    ),
    Step(
        "python app.py import-feedback FILE --server http://127.0.0.1:7860",
        "2 preferences were taken in",
        {"FILE": "thumbs.jsonl"},
        stdin="mynah-…",
    ),
    Step("python app.py update NAME", "v1 passed the gate and is served to Ada now."),
    Step(
        "python app.py export NAME --version v3 --format peft --out FILE",
        "Wrote v1 of Ada",
        {"v3": "v1", "FILE": "peft.zip"},
    ),
    Step(
        "python app.py import-adapter NAME FOLDER_OR_ZIP",
        "v2 of Ada is there and not in use",
        {"FOLDER_OR_ZIP": "peft.zip"},
    ),
    Step("python app.py backup FILE", "Wrote one.zip", {"FILE": "one.zip"}),
    Step("python app.py backup mynah-backup.zip", "Wrote mynah-backup.zip"),
    Step("python app.py backup mynah.zip", "Wrote mynah.zip"),
    Step(f"curl -X POST $MYNAH/me/updates {AS_ADA}", '"update_id"'),
    Step("python app.py user disable NAME", "Ada is disabled"),
    Step("python app.py user remove NAME", "Removed Ada: .* adapter versions"),
]
# With the server stopped, each into an empty data folder.
RESTORING = [
    Step("python app.py restore mynah.zip", "Restored"),
    Step("python app.py restore mynah-backup.zip", "Restored"),
    Step("python app.py doctor", "2 adapter versions are whole"),
]


class Terminal:
    """Runs what a guide says in a folder of its own; our own commands in this process, which is quicker."""

    def __init__(self, here: Here, address: str) -> None:
        self.here = here
        self.put = {"NAME": "Ada", "http://127.0.0.1:7860": address}
        self.environment = {"PATH": "/usr/bin:/bin"}

    def type(self, step: Step) -> None:
        """One command; fails when it does not say what it must."""
        text = self._filled(step.command, step.put)
        out = self._run(text, self._filled(step.stdin, {}))
        said = re.search(step.says, out, re.MULTILINE | re.DOTALL)
        assert said, f"{text}\nsaid {out!r}\nand not {step.says!r}"
        self.put |= {NAMED[group]: value for group, value in said.groupdict().items()}

    def _filled(self, text: str, put: dict[str, str]) -> str:
        for placeholder, value in (*put.items(), *self.put.items()):
            text = text.replace(placeholder, value)
        return text

    def _run(self, text: str, stdin: str) -> str:
        if text.startswith("python app.py "):
            return self.here.run(*shlex.split(text)[2:], stdin=stdin)[0]
        if text.startswith("export "):
            self.environment |= dict(pair.split("=", 1) for pair in shlex.split(text)[1:])
            return ""
        command = ["sh", "-c", text] if text.startswith("curl ") else [sys.executable, "-c", text]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, (text, done.stderr)
        return done.stdout


def recipe(target: str) -> list[str]:
    """What `make` would do for a target."""
    done = subprocess.run(["make", "--dry-run", "-C", ROOT, target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def server(base_files: BaseFiles, tmp_path: Path) -> Iterator[Server]:
    """What the quick start starts, on a port that is free."""
    start = next(line for line in recipe("run") if line.endswith("python app.py serve"))
    place = Place(tmp_path, own_models(base_files, tmp_path / "models"))
    place.environment |= {"MYNAH_PORT": "0", "MYNAH_MAX_TOKENS": "32"}
    quick = {**SMALL, "gate": {**SMALL["gate"], **OPEN_GATE}, "own_prompts": 1}
    (tmp_path / "update.json").write_text(json.dumps(quick))
    running = Server(place, *shlex.split(start)[2:])
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.communicate()


@pytest.fixture
def terminal(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    for name, value in server.place.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(server.place.folder)
    return Terminal(Here(monkeypatch, capsys), server.address)


def test_what_the_guides_say_is_done_works(
    server: Server, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert any(line.startswith("Admin account: admin, password: ") for line in server.lines)
    give_feedback(tmp_path)
    for step in STEPS:
        terminal.type(step)
    server.stop()
    for number, step in enumerate(RESTORING):
        if "restore" in step.command:
            monkeypatch.setenv("MYNAH_DATA_DIR", str(tmp_path / f"restored-{number}"))
        terminal.type(step)


def give_feedback(folder: Path) -> None:
    """Files as docs/FAQ.md describes them: pairs as CSV, thumbs as JSON Lines."""
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["prompt", "chosen", "rejected"])
        rows.writeheader()
        for number in range(8):
            rows.writerow({"prompt": f"What is {number}?", "chosen": "You can count to it!", "rejected": "A number."})
    thumbs = [{"prompt": f"Who is {name}?", "reply": "You tell me!", "thumb": 1} for name in ("Ada", "Bob")]
    (folder / "thumbs.jsonl").write_text("\n".join(map(json.dumps, thumbs)))


# ---- commands that are not run ----------------------------------------------------------------------------------


def would_be_made(command: str) -> None:
    """The target is there, and so is every module and script that it would run."""
    for line in recipe(command.split()[-1]):
        for module in re.findall(r"python -m ((?:benchmarks|tests)\.[\w.]+)", line):
            assert importlib.util.find_spec(module), line
        for script in re.findall(r"\bsh (\S+\.sh)", line):
            assert (ROOT / script).is_file(), line


def takes_help(command: str, patch: pytest.MonkeyPatch) -> None:
    """The module is there and its options can be read."""
    words = shlex.split(command)
    main = importlib.import_module(words[words.index("-m") + 1]).main
    patch.setattr(sys, "argv", [*words[2:], "--help"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0


def is_understood(command: str) -> None:
    """Our own parser takes it, and the values are allowed."""
    given = {"HOST:PORT": "10.0.0.1:6379", "FOLDER": "/srv/model"}
    for placeholder, value in given.items():
        command = command.replace(placeholder, value)
    parsed = vars(build_parser()[0].parse_args(shlex.split(command)[2:]))
    Config.build(parsed, {})
    if "format" in parsed:
        check_format(parsed["format"])


def is_in_deploy(command: str) -> None:
    """The files that it names below /opt/mynah or deploy/ are there; and so is the unit or the service."""
    unit, compose = (read(ROOT / "deploy" / name) for name in ("mynah.service", "compose.yaml"))
    for named in re.findall(r"(?:/opt/mynah/|\B|(?<=\s))(deploy/\S+)", command):
        assert (ROOT / named).is_file(), named
    if command.startswith("useradd"):
        assert "User=mynah" in unit and "/var/lib/mynah" in unit
    if (named := command.split()[-1]).startswith("mynah") and command.startswith("docker"):
        assert f"\n  {named}:" in compose


def is_as_the_unit(command: str) -> None:
    """The same user, folders and interpreter as the service's."""
    unit = read(ROOT / "deploy" / "mynah.service")
    _, _, user, _, *folders, python, script, word = command.split()
    assert f"User={user}\n" in unit and all(folder in unit for folder in folders) and len(folders) == 2
    assert f"ExecStart={python} " in unit and script == "/opt/mynah/app.py"
    build_parser()[0].parse_args([word])


def names_what_ray_hears(command: str) -> None:
    """One address everywhere, a version that is pinned, and names that Mynah or its tests of Ray know."""
    assert set(re.findall(r"10\.\d\S+", command)) <= {"10.0.0.1", "10.0.0.1:6379"}
    for named in re.findall(r"deploy/\S+", command):
        assert (ROOT / named).is_file()
    known = [
        *(ROOT / "assistant").glob("ray_*.py"),
        ROOT / "assistant" / "config.py",
        *ROOT.glob("tests/ecosystem/*.py"),
    ]
    for variable in re.findall(r"\b([A-Z]+(?:_[A-Z]+)+)=", command):
        assert is_option(variable) or any(variable in read(path) for path in known), variable


def starts_as_tested(command: str) -> None:
    """The options are those that tests/ecosystem/test_vllm.py starts vLLM with; the base is the one that ships."""
    tested = read(ROOT / "tests" / "ecosystem" / "test_vllm.py")
    words = shlex.split(command)
    assert all(f'"{word}"' in tested for word in words if word.startswith("--"))
    assert words[0].partition("=")[0] in tested


def shows_this_page(command: str) -> None:
    """It would write over the page; what it prints is compared with it instead."""
    assert page() == read(ROOT / "docs" / "API.md"), f"make it anew: {command}"


def files_are_there(command: str) -> None:
    """What is to be tested is there."""
    assert all((ROOT / word).is_file() for word in command.split() if word.endswith(".py"))


@dataclass(frozen=True)
class Rule:
    """Commands that are not run here, why, and what is looked at."""

    pattern: str
    why: str
    check: Callable[..., None]


NOT_RUN = [
    Rule(r"make (-C /opt/mynah )?(setup|lock|audit)", "installs, or asks PyPI", would_be_made),
    Rule(
        r"make (test(-ecosystem)?|soak|lint|demo|bench-speed|bench-learning)", "takes minutes to hours", would_be_made
    ),
    Rule(r"python -m benchmarks\.\w+( --labels 100| --updates)?", "takes long; parts are tested", takes_help),
    Rule(r"python -m adapters\.worker .+", "is what an update runs; STEPS has one", takes_help),
    Rule(r"python -m assistant\.api\.reference > docs/API\.md", "would write over what it is about", shows_this_page),
    Rule(r"MYNAH_SOAK=1 \S+ -m pytest tests/\S+", "is a test itself", files_are_there),
    Rule(r"python app\.py serve( --\S+ \S+)+", "STEPS has a server; these differ in options", is_understood),
    Rule(r"python app\.py export .+ --format gguf .+", "takes long; STEPS has another format", is_understood),
    Rule(r"(useradd|cp|systemctl|journalctl) .+", "needs root and systemd", is_in_deploy),
    Rule(r"sudo -u mynah env .+ doctor", "needs root and systemd", is_as_the_unit),
    Rule(r"docker compose .+", "needs Docker", is_in_deploy),
    Rule(r"\.venv/bin/(ray .+|python -m pip .+ deploy/ray\.txt)", "needs Ray (tests/ecosystem)", names_what_ray_hears),
    Rule(r"export (RAY_AUTH_MODE|MYNAH_MODELS_DIR)=.+", "is for Ray's nodes", names_what_ray_hears),
    Rule(r"VLLM\S+ vllm serve .+", "needs vLLM (tests/ecosystem)", starts_as_tested),
]
RUN = {"make run", *(step.command for step in (*STEPS, *RESTORING))}


def rules_for(command: str) -> list[Rule]:
    return [rule for rule in NOT_RUN if re.fullmatch(rule.pattern, command)]


@pytest.mark.parametrize("command", ALL)
def test_a_command_is_run_or_looked_at(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = rules_for(command)
    assert (command in RUN) + len(rules) == 1, "say in STEPS how it is run, or in NOT_RUN why not"
    for rule in rules:
        rule.check(command, *([monkeypatch] if rule.check is takes_help else []))


def test_nothing_is_said_of_commands_that_no_guide_has() -> None:
    assert set(ALL) >= RUN, RUN - set(ALL)
    assert all(any(re.fullmatch(rule.pattern, command) for command in ALL) for rule in NOT_RUN)


def test_vllm_is_started_with_the_base_that_ships(base_files: BaseFiles) -> None:
    (command,) = (each for each in ALL if " vllm serve " in each)
    assert f"/models/{base_files.folder.name}/full" in command and base_files.full.name == "full"
