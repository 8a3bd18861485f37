"""Settings out of docs/CLIENTS.md, so that what is tried is what is documented."""

from __future__ import annotations

import re

from benchmarks.peers import ROOT


def block(section: str, language: str) -> str:
    """The one block of code in a language below a heading."""
    text = (ROOT / "docs" / "CLIENTS.md").read_text("utf-8")
    (below,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", below, re.M | re.S)
    return str(code)
