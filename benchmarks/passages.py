"""Passages to summarize, from a packaged manual: data/passages.jsonl.

    apt-get download sqlite3-doc && dpkg -x sqlite3-doc_*.deb FOLDER
    python -m benchmarks.passages FOLDER

SQLite's documentation is in the public domain. Of every page that has some the passage is taken whose length is
nearest to a middling one: whole paragraphs under one heading, nothing but prose. Their order is that of a hash, so that
any run of lines is a mixture of subjects.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from adapters.prompts import DATA

FEWEST, MIDDLING, MOST = 90, 140, 190  # words
NO_PROSE = frozenset(["script", "style", "pre", "table", "ul", "ol", "dl", "blockquote", "svg"])
ENDS = re.compile(r"[.!?](?=\s|$)")
LEFT_OUT = re.compile(r"[{}\\]|Figure \d|https?:|:\s*$")


class Sections(HTMLParser):
    """Paragraphs of a page, in runs that nothing else stands between; `runs` holds (heading, paragraphs)."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[tuple[str, list[str]]] = []
        self._heading, self._inside = "", 0
        self._open: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in NO_PROSE:
            self._end()
            self._inside += 1
            self.runs.append((self._heading, []))
        elif not self._inside and (tag in ("p", "div") or re.fullmatch(r"h\d", tag)):
            self._end()
            self._open = (tag, [])

    def handle_endtag(self, tag: str) -> None:
        if tag in NO_PROSE:
            self._inside = max(0, self._inside - 1)
        elif not self._inside and self._open and tag == self._open[0]:
            self._end()

    def handle_data(self, data: str) -> None:
        if self._open and not self._inside:
            self._open[1].append(data)

    def _end(self) -> None:
        tag, parts = self._open or ("", [])
        self._open = None
        text = " ".join("".join(parts).split())
        if tag.startswith("h"):
            self._heading = re.sub(r"^[\d.\s]+", "", text)
            self.runs.append((self._heading, []))
        elif tag == "p" and text and self.runs:
            self.runs[-1][1].append(text)


def passages_of(page: Path) -> list[tuple[str, str]]:
    """(heading, passage) of a page: as many whole paragraphs of a run as make a passage."""
    parser = Sections()
    parser.feed(page.read_text("utf-8", errors="replace"))
    found = []
    for heading, paragraphs in parser.runs:
        taken: list[str] = []
        for paragraph in [*paragraphs, ""]:
            if not paragraph or len(" ".join([*taken, paragraph]).split()) > MOST:
                found.append((heading, " ".join(taken)))
                taken = []
            taken.append(paragraph)
    return [(heading, text) for heading, text in found if heading and fits(text)]


def fits(text: str) -> bool:
    """Whether it is prose of a fair length, in several sentences."""
    return FEWEST <= len(text.split()) <= MOST and len(ENDS.findall(text)) >= 3 and not LEFT_OUT.search(text)


def main() -> None:
    """Read the pages, write the passages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the Debian package sqlite3-doc was unpacked")
    pages = sorted((parser.parse_args().folder / "usr/share/doc/sqlite3").glob("*.html"))
    rows = []
    for page in pages:
        if found := passages_of(page):
            heading, text = min(found, key=lambda each: abs(len(each[1].split()) - MIDDLING))
            rows.append({"id": page.stem, "heading": heading, "text": text})
    texts = {row["text"]: row for row in rows}  # a page may be there under two names
    rows = sorted(texts.values(), key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())
    (DATA / "passages.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    print(f"{len(rows)} passages from {len(pages)} pages")


if __name__ == "__main__":
    main()
