"""Means over people, targets reached or not, and the two reports made from them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.personalize import Settings
from benchmarks.report import columns, page, text_report, write_report
from benchmarks.summary import Measured, arm_row, over_seeds, summarize, target
from benchmarks.work import Work

PROMPTS = [("p1", "What is <b>tea</b>?"), ("p2", "Why do cats purr?")]


def test_seeds_are_averaged_prompt_by_prompt() -> None:
    found = over_seeds([{"wins": [1.0, 0.0], "kl": 0.02}, {"wins": [0.5, 0.5], "kl": 0.04}])
    assert found.wins == [0.75, 0.25] and found.kl == pytest.approx(0.03)


def test_people_weigh_the_same_and_the_losers_are_named() -> None:
    people = {"ada": Measured([1.0, 1.0, 0.5], 0.1), "bo": Measured([0.0, 0.1, 0.0, 0.1], 0.3)}
    row = arm_row("adapter", 30, people, target=0.65)
    assert row["mean"] == pytest.approx((2.5 / 3 + 0.05) / 2)
    assert row["kl"] == pytest.approx(0.2)
    assert row["below"] == ["bo"]
    assert row["low"] < row["mean"] < row["high"]


@pytest.mark.parametrize(
    ("value", "least", "passed"), [(0.68, True, True), (0.67, True, False), (None, True, None), (0.69, False, False)]
)
def test_a_target(value: float | None, least: bool, passed: bool | None) -> None:
    found = target("wins", value, 0.68, "{:.0%}", least=least)
    assert found["passed"] is passed
    assert found["value"] == ("–" if value is None else f"{value:.0%}")


def unit(wins: list[float], **more: Any) -> dict[str, Any]:
    over = {"asked": wins[::-1], "pasted": [1.0, 1.0]}
    whole = {"wins": [0.75, 0.25], "kl": 0.02}
    return {
        "wins": wins,
        "over": over,
        "whole": whole,
        "control": [0.5, 0.5],
        "kl": 0.03,
        "texts": ["short & <sweet>", "purr"],
    } | more


def run_of(people: tuple[str, ...], trained: tuple[str, ...], state: str = "promoted") -> dict[str, Any]:
    update = {
        "state": state,
        "minutes": 5.0,
        "runs": 1,
        "memory_gb": 1.4,
        "gate": [{"check": "kl", "value": 0.08, "bound": 0.1, "passed": state == "promoted", "words": "stays close"}],
        "steps": [
            {"stage": "warm_start", "win_rate/head": 0.71, "win_rate/judge": 0.59, "win_rate/kl": 0.04},
            {"stage": "ppo", "objective/scores": 0.1, "objective/kl": 1.0},
            {"stage": "ppo", "objective/scores": 0.4, "objective/kl": 2.0},
        ],
    }
    adapted = unit([1.0, 0.5], broken=0.1, coined=0.02, reranked=unit([1.0, 1.0]), first=unit([0.5, 0.5]))
    served = "adapter+rerank" if state == "promoted" else "rerank"
    return {
        "found": {
            "answering": {"memory_gb": 0.9, "seconds": {"base": 1.0, "rerank": 4.0}},
            "rivals": {name: {"asked": unit([0.25, 0.5]), "pasted": unit([0.5, 0.0])} for name in people},
            "few": {name: [unit([1.0, 0.5]), unit([0.5, 0.5])] for name in people},
            "many": {name: {"rerank": unit([1.0, 1.0]), "context": unit([0.5, 0.0])} for name in trained},
            "trained": {name: {"update": update, "adapted": adapted, "served": served} for name in trained},
        },
        "pool_minutes": 4.0,
        "opponents": ["the base's reply", "mew"],
    }


def results_of(tmp_path: Path, state: str = "promoted") -> dict[str, Any]:
    settings = Settings(people=("ada", "bo"), trained=("ada",), prompts=2, seeds=2)
    work = Work("trial", {}, tmp_path, code="abc")
    footprint = {"click_ms": 60.0, "memory_gb": 3.4}
    return summarize(settings, run_of(("ada", "bo"), ("ada",), state), PROMPTS, work, footprint, quick=False)


def test_a_summary_counts_what_was_measured(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    means = {row["key"]: row["mean"] for row in results["arms"]}
    assert means == {
        "base@0": 0.5, "rerank@10": 0.625, "whole drafts re-ranked@10": 0.5,
        "prompt by hand@0": 0.375, "liked replies pasted@30": 0.25, "context@30": 0.25, "rerank@30": 1.0,
        "whole drafts re-ranked@30": 0.5,
        "stage one@30": 0.5, "adapter@30": 0.75, "adapter+rerank@30": 1.0,
    }  # fmt: skip
    reached = {each["words"].split(",")[0]: each["passed"] for each in results["targets"]}
    assert reached["rerank wins after 10 labels"] is False  # 62.5% of 78%
    assert reached["adapter wins after 30 labels"] is True  # 75%
    assert reached["longest update"] is True
    assert reached["a click is in the head"] is True
    assert reached["peak memory of server and training"] is False
    over = {row["arm"]: (row["asked"]["mean"], row["pasted"]["mean"]) for row in results["rivals"]}
    assert over == {"rerank@10": (0.625, 1), "rerank@30": (1, 1), "adapter@30": (0.75, 1), "adapter+rerank@30": (1, 1)}
    assert [person["served"] for person in results["people"]] == ["adapter+rerank@30", "rerank@10"]
    assert [sample["after"] for sample in results["samples"]] == ["short & <sweet>", "purr"]


def test_a_rejected_adapter_is_measured_but_not_served(tmp_path: Path) -> None:
    results = results_of(tmp_path, "rejected")
    assert results["people"][0]["served"] == "rerank@30"
    assert results["people"][0]["wins"]["adapter@30"] == 0.75
    assert any("rejected ada" in note for note in results["notes"])


class Tags(HTMLParser):
    """Whether every tag is closed in order, and whether anything is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "line", "circle", "path", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("line", "circle", "path", "polyline"):
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    text = page(results)
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and tags.loads == []
    assert "http://" not in text.replace("http://www.w3.org", "") and "@import" not in text
    assert "<h2>Against a prompt by hand</h2>" in text and "62.5%" in text
    assert "short &amp; &lt;sweet&gt;" in text and "<sweet>" not in text  # what models write is text, never markup
    assert "What is &lt;b&gt;tea&lt;/b&gt;?" in text


def test_the_page_shows_every_stage_and_check(tmp_path: Path) -> None:
    text = page(results_of(tmp_path))
    assert "<td>warm start</td><td>71%</td><td>59%</td><td>0.040</td>" in text
    assert "<td>kl</td><td>0.080</td><td>0.100</td>" in text and "stays close" in text


def test_the_page_says_what_was_missed(tmp_path: Path) -> None:
    text = page(results_of(tmp_path, "rejected"))
    assert "class='card bad'" in text and "missed" in text and "failed" in text


def test_the_terminal_shows_the_same_figures(tmp_path: Path) -> None:
    text = text_report(results_of(tmp_path))
    assert "62.5%" in text and "MISSED" in text and "reached" in text
    assert "wins over a prompt by hand" in text
    assert "adapter+rerank@30" in text and "promoted, 5.0 min" in text


def test_a_demo_that_reached_nothing_still_has_a_report(tmp_path: Path) -> None:
    results = {
        "title": "A demo",
        "about": "two people",
        "arms": [],
        "people": [{"name": "ada", "wins": {}, "below": [], "served": "base", "update": None}],
        "steps": [{"person": "ada", "step": "the way through", "words": "stopped: no disk", "passed": False}],
        "samples": [],
    }
    path = write_report(results, tmp_path / "demo.json")
    assert path == tmp_path / "demo.html"
    text = path.read_text("utf-8")
    assert "not reached" in text and "stopped: no disk" in text
    assert "the way through  NOT REACHED  stopped: no disk" in text_report(results)


def test_columns_are_aligned() -> None:
    assert columns(["arm", "wins"], [["rerank", "68%"], ["x", "7%"]]) == (
        "arm     wins\n------------\nrerank   68%\nx         7%"
    )
