"""What deploy/ and the guides name is there: commands, options, paths, metrics."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from assistant.cli import build_parser
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


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "mynah.service").read_text("utf-8").replace("/opt/mynah/.venv/bin/python", "/bin/sh")
    (tmp_path / "mynah.service").write_text(unit.replace("User=mynah", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "mynah.service")], capture_output=True, text=True
    )
    assert "mynah.service" not in done.stderr, done.stderr
