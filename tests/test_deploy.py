"""What deploy/ names is there: commands, options, paths; the guides' commands are in tests/test_docs.py."""

from __future__ import annotations

import contextlib
import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path, PurePosixPath

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from assistant.cli import CANNOT, build_parser
from assistant.config import Config

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


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


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_has_what_packages_need_on_later_pythons_too(python: str) -> None:
    """pip installs what is locked and nothing else; Python 3.13, for one, left modules out that others need."""
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    locked = [line.removesuffix("\\") for line in lines if "==" in line and not line.startswith((" ", "#"))]
    here = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    wanted = [each for each in map(Requirement, locked) if each.marker is None or each.marker.evaluate(here)]
    have = {canonicalize_name(each.name) for each in wanted} | {"torch"}
    for each in wanted:
        with contextlib.suppress(PackageNotFoundError):  # what only another Python needs is not installed here
            needs = map(Requirement, requires(each.name) or [])
            now = {canonicalize_name(need.name) for need in needs if not need.marker or need.marker.evaluate(here)}
            assert now <= have, f"{each.name} on Python {python}"
