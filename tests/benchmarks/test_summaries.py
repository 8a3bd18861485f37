"""Tastes in summaries see the passage, and the passages are what they should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.prompts import DATA
from benchmarks.base_replies import SUMMARIZE, prompts_of
from benchmarks.passages import FEWEST, MOST, fits, passages_of
from benchmarks.summaries import JUDGE_FROM, REPORT, SETTINGS, TUNE, Summary, over_people

PASSAGE = (
    "The first release of FTS3 was made in 2007 by a group at Google. It indexes every word of a column, so that a "
    "search takes milliseconds where a scan would take seconds. The index takes about as much room as the text itself."
)
PAIRS = {  # the better one first
    "short": ("FTS3 is an index.", "FTS3 is an index that a group of people once made for searching texts."),
    "facts": ("Google made FTS3 in 2007.", "It is an index of words."),
    "plain": ("It is a list of all the words.", "It constitutes comprehensive indexing infrastructure."),
    "own_words": ("Somebody built a way to find words fast.", "It indexes every word of a column, so that it is fast."),
    "short_with_facts": ("Google made FTS3 in 2007.", "It is an index of all the words that there are in a column."),
    "one_plain_sentence": ("It finds words fast.", "It finds words. It is fast. It is big."),
    "all_of_it": ("A release indexes every column: search takes milliseconds, a scan seconds.", "It is an index."),
    "no_jargon": ("It finds words fast.", "FTS3 uses sqlite3_step() and BLOB."),
    "facts_first": ("Google made FTS3 in 2007. It is fast.", "It is fast. Google made FTS3 in 2007."),
    "retold_in_short": ("It finds words fast.", "It indexes every word of a column, so that a search is fast."),
    "points": ("- Release in 2007\n- Indexes words\n- Takes room", "It was released in 2007."),
    "short_sentences": ("It is an index. It is fast.", "It is an index that is fast for all those who search words."),
}


@pytest.mark.parametrize("name", [*TUNE, *REPORT])
def test_a_taste_tells_summaries_of_a_passage_apart(name: str) -> None:
    worth = (TUNE | REPORT)[name].worth
    better, worse = (worth(Summary(text, PASSAGE)) for text in PAIRS[name])
    assert better > worse
    assert worth(Summary("", PASSAGE)) is not None, "a reply may be empty"


def test_a_fact_counts_only_if_the_passage_has_it() -> None:
    worth = TUNE["facts"].worth
    assert worth(Summary("Google made FTS3 in 2007.", PASSAGE)) > worth(Summary("Oracle made SQL9 in 1999.", PASSAGE))


def test_the_shipped_passages() -> None:
    rows = [json.loads(line) for line in (DATA / "passages.jsonl").read_text("utf-8").splitlines()]
    assert len({row["text"] for row in rows}) == len({row["id"] for row in rows}) == len(rows)
    assert len(rows) >= JUDGE_FROM + SETTINGS.prompts and SETTINGS.label_prompts <= JUDGE_FROM
    assert all(fits(row["text"]) and FEWEST <= len(row["text"].split()) <= MOST for row in rows)
    assert prompts_of("passages")[3] == (rows[3]["id"], SUMMARIZE + rows[3]["text"])


def test_passages_are_runs_of_whole_paragraphs(tmp_path: Path) -> None:
    words, page = "Words are counted. They are many. " * 8, tmp_path / "page.html"  # 48 each
    page.write_text(
        f"<h1>1.0 One</h1><p>{words}</p><p>{words}</p><pre>code</pre><p>{words}</p>"
        f"<h2>Two</h2><ul><li><p>{words * 3}</p></ul><p>{words}<p>{words}<p>{words}<p>{words}"
    )
    found = passages_of(page)
    assert [heading for heading, _ in found] == ["One", "Two"], "no lists, no code, nothing too short"
    assert [len(text.split()) for _, text in found] == [96, 144]


def test_people_count_once() -> None:
    found = {who: {"way": {"base": value}} for who, value in (("a", 0.4), ("b", 0.6))}
    assert over_people(found)["way"]["base"].mean == pytest.approx(0.5)
