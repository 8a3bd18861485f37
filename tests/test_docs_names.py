"""What README.md and docs/ name is there: options, variables, routes, files, links, and what is in a tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assistant.api.reference import document
from assistant.config import Config
from tests.guides import FENCE, GUIDES, ROOT, blocks, is_option, read, spans

CODE = ("adapters", "assistant", "feedback", "benchmarks", "tests", "deploy", "data", "docs")
OPTIONS = {f"--{name.replace('_', '-')}" for name in Config.__dataclass_fields__} | {"--help", "--person"}
ROUTES = [
    re.compile(re.sub(r"\{\w+\}", r"[^/\\s]+", f"{method.upper()} {path}"))
    for path, methods in {**document()["paths"], "/v1/openapi.json": ["get"]}.items()
    for method in methods
]
FOREIGN_OPTIONS = {"--gpu-memory-utilization": "vLLM's"}
FOREIGN_ROUTES = {"GET /api/v1/evaluations/feedbacks/all/export": "Open WebUI's"}
FOREIGN_VARIABLES = {"MYNAH_SOAK": "the tests'"}
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def anchors(guide: Path) -> set[str]:
    """What a link into a page can name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", read(guide)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_block_says_what_it_is(guide: Path) -> None:
    languages = {language for language, _ in FENCE.findall(read(guide))} - {"ini", "yaml"}
    assert languages <= {"sh", "python", "text", "mermaid", "ini", "yaml"}, (
        "a block without a language could hide commands"
    )
    assert len(re.findall(r"^```", read(guide), re.MULTILINE)) == 2 * len(FENCE.findall(read(guide)))


@pytest.mark.parametrize("guide", [*GUIDES, ROOT / "CHANGELOG.md", ROOT / "LOG.md"], ids=lambda guide: guide.name)
def test_links_lead_somewhere(guide: Path) -> None:
    for target in (one or other for one, other in LINK.findall(FENCE.sub("", read(guide)))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (guide.parent / path).resolve() if path else guide
        assert linked.is_relative_to(ROOT) and linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_and_picture_is_shown() -> None:
    linked = {
        (guide.parent / (one or other).partition("#")[0]).resolve()
        for guide in GUIDES
        for one, other in LINK.findall(read(guide))
    }
    assert {*GUIDES[1:], *(ROOT / "docs" / "images").iterdir()} <= linked


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_what_is_named_is_there(guide: Path) -> None:
    """Options, variables, routes, files."""
    for span in spans(guide):
        if option := re.match(r"--[\w-]+", span):
            assert option[0] in OPTIONS or option[0] in FOREIGN_OPTIONS, span
        for variable in re.findall(r"\bMYNAH_[A-Z_]+\b", span):
            assert is_option(variable) or variable in FOREIGN_VARIABLES, span
        if route := re.match(r"(GET|POST|PUT|PATCH|DELETE) /[^\s?]+", span):
            assert route[0] in FOREIGN_ROUTES or any(known.fullmatch(route[0]) for known in ROUTES), span
        if re.fullmatch(rf"({'|'.join(CODE)})/[\w./-]*", span):
            assert (ROOT / span).exists(), span


WORDS_AT = 24  # the column from which the tree says what is where


def test_the_tree_in_readme_is_the_tree() -> None:
    tree = next(block for block in blocks(ROOT / "README.md", "text") if "app.py" in block)
    folder = ROOT
    for line in tree.splitlines():
        named = line[:WORDS_AT].strip()
        if not line.startswith(" "):
            folder = ROOT / named
            assert folder.exists(), line
            continue
        for name in (each for each in named.split(", ") if each != "…"):
            pattern = name.replace("…", "*")
            assert list(folder.glob(pattern)) or list(folder.glob(f"{pattern}.py")), line


NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?")


def test_the_names_in_the_architecture_are_those_of_the_code() -> None:
    """A function or class that it speaks of, `Turn.replies`, is called so somewhere in the code."""
    used = {word for name in CODE for path in (ROOT / name).rglob("*.py") for word in re.findall(r"\w+", read(path))}
    for span in spans(ROOT / "docs" / "ARCHITECTURE.md"):
        if NAME.fullmatch(span):
            assert set(re.findall(r"\w+", span)) <= used, span
