"""The shape of the project: imports go one way only, and nothing loads a pickle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("feedback", "adapters", "assistant", "app")  # each may import itself and what stands before it
PRODUCT = [path for name in ORDER for path in sorted((ROOT / name).rglob("*.py"))] + [ROOT / "app.py"]


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a module imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    names = set(imported(path))
    forbidden = set(ORDER[ORDER.index(here) + 1 :]) | {"tests", "benchmarks"}
    assert not names & forbidden, f"{path.relative_to(ROOT)} imports {names & forbidden}"
    if here == "feedback":
        assert not names & {"torch", "transformers", "peft", "gradio"}, "feedback never loads a language model"


def test_nothing_that_trains_opens_the_database() -> None:
    """So that a job can run anywhere, and its crash touches nobody."""
    assert not [
        path for path in sorted((ROOT / "adapters").rglob("*.py")) if "feedback.store" in path.read_text("utf-8")
    ]


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles(path: Path) -> None:
    source = path.read_text("utf-8")
    assert "pickle" not in set(imported(path))
    assert "torch.load(" not in source and "torch.save(" not in source


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_wall_clock_is_read_in_one_place(path: Path) -> None:
    """So that tests can move it; what lasts so long is measured by a monotonic clock."""
    reads = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    } & {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.localtime"}
    assert reads == ({"datetime.now"} if path == ROOT / "feedback" / "types.py" else set())


def test_only_config_reads_the_environment_for_settings() -> None:
    def reads(source: str) -> bool:
        return "os.environ" in source and "MYNAH_" in source

    readers = [str(path.relative_to(ROOT)) for path in PRODUCT if reads(path.read_text("utf-8"))]
    assert readers == ["assistant/config.py"]
