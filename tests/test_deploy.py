"""What deploy/ and the guides name is there: commands, options, paths, metrics."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from assistant.cli import CANNOT, build_parser
from assistant.config import Config

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(guide: Path) -> list[str]:
    """The lines of a guide's shell blocks, and what its tables show as a command, without comments."""
    text = guide.read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`(python app\.py [^`]*)`", text)
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


def ours(start: str) -> list[tuple[str, str]]:
    """(guide, command) of all that begin like this."""
    return [(guide.name, line) for guide in GUIDES for line in commands(guide) if line.startswith(start)]


@pytest.mark.parametrize(("guide", "line"), ours("python app.py"))
def test_a_command_in_a_guide_is_one(guide: str, line: str) -> None:
    words = [word for word in shlex.split(line.replace("…", "x"))[2:] if word != "--help"]
    assert build_parser()[0].parse_args(words) is not None, f"{guide}: {line}"


@pytest.mark.parametrize(("guide", "line"), ours("make"))
def test_a_make_target_in_a_guide_is_one(guide: str, line: str) -> None:
    target = shlex.split(line)[-1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE), f"{guide}: {line}"


def test_the_guides_name_commands() -> None:
    assert len(ours("python app.py")) >= 10 and len(ours("make")) >= 3


def test_the_container_copies_what_is_there_and_all_that_runs() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = {source for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for source in line.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    assert {"adapters", "assistant", "feedback", "data", "app.py", "requirements.lock"} <= copied


def test_services_set_options_that_exist() -> None:
    known = {f"MYNAH_{name.upper()}" for name in Config.__dataclass_fields__}
    named = {name for path in DEPLOY.iterdir() for name in re.findall(r"MYNAH_[A-Z_]+", path.read_text("utf-8"))}
    assert named - {"MYNAH_TEST_CHROMIUM"} <= known and {"MYNAH_DATA_DIR", "MYNAH_MODELS_DIR"} <= named


def test_the_unit_starts_what_is_there_and_gives_up_where_trying_again_is_of_no_use() -> None:
    unit = (DEPLOY / "mynah.service").read_text("utf-8")
    service: dict[str, str] = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    home = PurePosixPath(service["WorkingDirectory"])
    python, script, *words = service["ExecStart"].split()
    assert PurePosixPath(python).is_relative_to(home) and (ROOT / script).is_file()
    assert build_parser()[0].parse_args(words) is not None
    assert int(service["RestartPreventExitStatus"]) == CANNOT
    assert str(home) in (ROOT / "docs" / "OPERATING.md").read_text("utf-8")
    folders = dict(word.split("=") for word in service["Environment"].split())
    assert folders["MYNAH_DATA_DIR"] == f"/var/lib/{service['StateDirectory']}"
    assert folders["MYNAH_MODELS_DIR"].startswith(f"/var/cache/{service['CacheDirectory']}/")


def test_the_lock_names_every_file_by_hash_but_torchs() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if not line.startswith("#")]
    locked = {line.split("==")[0]: number for number, line in enumerate(lines) if "==" in line}
    for name, number in locked.items():
        assert re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", lines[number + 1]), name
    assert len(locked) > 60 and "torch" not in locked
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.split(r"[^\w-]", each)[0] for each in wanted} - {"torch"} <= set(locked)
    assert re.fullmatch(r"torch==[\d.]+\n", (DEPLOY / "torch.txt").read_text("utf-8"))
    for maker in (ROOT / "Makefile", DEPLOY / "Dockerfile"):
        assert "--no-deps --require-hashes -r requirements.lock" in maker.read_text("utf-8")
