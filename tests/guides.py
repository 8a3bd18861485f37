"""README.md and docs/ as the tests read them."""

from __future__ import annotations

import re
from pathlib import Path

from assistant.config import Config

ROOT = Path(__file__).resolve().parent.parent
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def read(guide: Path) -> str:
    return guide.read_text("utf-8")


def blocks(guide: Path, language: str) -> list[str]:
    """What stands in a guide's blocks of one language."""
    return [text for of, text in FENCE.findall(read(guide)) if of == language]


def spans(guide: Path) -> list[str]:
    """What stands between backticks, as one line each."""
    return [" ".join(text.split()) for text in SPAN.findall(FENCE.sub("", read(guide)))]


def is_option(variable: str) -> bool:
    return variable.startswith("MYNAH_") and variable.removeprefix("MYNAH_").lower() in Config.__dataclass_fields__
