"""What a run found, to read: a table for the terminal and one self-contained HTML page.

    python -m benchmarks.report [RESULTS.json]        # writes RESULTS.html beside it

Both are made from the results file alone, so a page can be made again without measuring again. Nothing is judged
here: the numbers, and whether a target was reached, stand in the file. The page loads nothing from anywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from adapters.files import read_json, write_whole
from benchmarks.charts import Bar, curve, interval_chart, nice_bounds
from benchmarks.judging import Interval
from benchmarks.work import RESULTS

Results = Mapping[str, Any]
SCORE, KL = "objective/scores", "objective/kl"
JUDGE, HEAD, MOVED = "win_rate/judge", "win_rate/head", "win_rate/kl"  # measured after each stage of training
RIVAL_HEAD = ("arm", "wins over a prompt by hand", "over liked replies pasted")
ARM_HEAD = ("arm", "labels", "people", "wins", "KL, nats a token", "minutes", "peak GB", "significantly below base")


# ---- the terminal -------------------------------------------------------------------------------------------------


def text_report(results: Results) -> str:
    """The figures as plain text."""
    arms, people = results["arms"], results["people"]
    parts = [f"{results['title']}\n{results['about']}", columns(ARM_HEAD, [_arm_row(arm) for arm in arms])]
    if people:
        names = arm_names(results)
        rows = [
            [each["name"], *(share(each["wins"].get(arm)) for arm in names), each["served"], _update_words(each)]
            for each in people
        ]
        parts.append(columns(["person", *names, "served", "update"], rows))
    if results.get("rivals"):
        parts.append(columns(RIVAL_HEAD, _rival_rows(results["rivals"])))
    if results.get("targets"):
        parts.append("\n".join(f"{_mark(t['passed']):12}  {t['words']}: {t['value']}" for t in results["targets"]))
    if results.get("steps"):
        rows = [
            [s["person"], s["step"], "done" if s["passed"] else "NOT REACHED", s["words"]] for s in results["steps"]
        ]
        parts.insert(1, columns(["person", "step", "", "in words"], rows, left=4))
    return "\n\n".join([*parts, *results.get("notes", [])])


def columns(head: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A table with aligned columns, the first `left` of them to the left."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    texts = [
        "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def share(value: float | None) -> str:
    """A share as a percentage, "–" where it was not measured."""
    return "–" if value is None else f"{value:.0%}"


def number(value: float | None, digits: int) -> str:
    """A number, "–" where it was not measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def arm_names(results: Results) -> list[str]:
    """Arms measured for anybody, in the order of the summary."""
    return [arm["key"] for arm in results["arms"] if any(arm["key"] in person["wins"] for person in results["people"])]


def _arm_row(arm: Mapping[str, Any]) -> list[Any]:
    return [
        arm["arm"],
        arm["labels"],
        arm["people"],
        _range(arm),
        number(arm.get("kl"), 3),
        number(arm.get("minutes"), 1),
        number(arm.get("memory_gb"), 2),
        ", ".join(arm.get("below", [])).replace("_", " ") or "nobody",
    ]


def _rival_rows(rivals: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [[each["arm"], *(str(Interval(**each[rival])) for rival in ("asked", "pasted"))] for each in rivals]


def _range(arm: Mapping[str, Any]) -> str:
    return str(Interval(arm["mean"], arm.get("low"), arm.get("high"), arm["people"]))


def _mark(passed: bool | None) -> str:
    return {True: "reached ", False: "MISSED  ", None: "not measured"}[passed]


def _update_words(person: Mapping[str, Any]) -> str:
    update = person.get("update")
    if not update:
        return "none"
    failed = [check["check"] for check in update["gate"] if not check["passed"]]
    return f"{update['state']}, {update['minutes']:.1f} min" + (f" (failed: {', '.join(failed)})" if failed else "")


# ---- the page -----------------------------------------------------------------------------------------------------


def page(results: Results) -> str:
    """The whole report as one HTML file."""
    body = [
        f"<header><h1>{escape(results['title'])}</h1><p class='about'>{escape(results['about'])}</p></header>",
        _targets(results.get("targets", [])),
        _steps(results.get("steps", [])),
        _win_rates(results["arms"]),
        _rivals(results.get("rivals", [])),
        _people(results),
        _curves(results["people"]),
        _samples(results.get("samples", [])),
        _gates(results["people"]),
        _notes(results.get("notes", [])),
    ]
    style = Path(__file__).with_name("report.css").read_text("utf-8")
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(results['title'])}</title><style>{style}</style>"
    )
    return f"<!doctype html>\n<html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _section(title: str, lead: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p class='lead'>{escape(lead)}</p>{''.join(parts)}</section>"


def _targets(targets: Sequence[Mapping[str, Any]]) -> str:
    if not targets:
        return ""
    cards = "".join(
        f"<div class='card {_class(t['passed'])}'><b>{escape(str(t['value']))}</b><span>{escape(t['words'])}</span>"
        f"<em>{_mark(t['passed']).strip().lower()}</em></div>"
        for t in targets
    )
    return f"<section><h2>Targets</h2><div class='cards'>{cards}</div></section>"


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            escape(step["person"].replace("_", " ")),
            escape(step["step"]),
            f"<span class='{_class(step['passed'])}'>{'done' if step['passed'] else 'not reached'}</span>",
            escape(step["words"]),
        ]
        for step in steps
    ]
    lead = "Every step as it came out, over HTTP and the command line of a real server on an empty data folder."
    return _section("What was done", lead, _table(["person", "step", "", "in words"], rows, safe=True)) if rows else ""


def _win_rates(arms: Sequence[Mapping[str, Any]]) -> str:
    bars = [
        Bar(f"{a['arm']}, {a['labels']} labels", a["mean"], a.get("low"), a.get("high"), a.get("target")) for a in arms
    ]
    table = _table(ARM_HEAD, [_arm_row(arm) for arm in arms])
    lead = (
        "How often a reply of the arm beats a base reply to the same unseen prompt, by the person's hidden taste. "
        "A broken reply loses to a sound one; equal texts count half. Bars are 95% intervals over people, triangles "
        "the targets."
    )
    return _section("Win rates", lead, interval_chart(bars, "Win rate of each arm against the base"), table)


def _rivals(rivals: Sequence[Mapping[str, Any]]) -> str:
    if not rivals:
        return ""
    lead = (
        "The same arms against what people do without them: the base with a system prompt that states the taste, "
        "written by hand, and the base with the last replies that the person liked in its prompt."
    )
    return _section("Against a prompt by hand", lead, _table(RIVAL_HEAD, _rival_rows(rivals)))


def _people(results: Results) -> str:
    arms = arm_names(results)
    rows = [
        [
            person["name"].replace("_", " "),
            *(_cell(person["wins"].get(arm), arm in person["below"], arm == person["served"]) for arm in arms),
            escape(person["served"]),
            escape(_update_words(person)),
        ]
        for person in results["people"]
    ]
    lead = "Win rate of every arm; bold is the arm this person is served, red is significantly below the base."
    return _section("Person by person", lead, _table(["person", *arms, "served", "update"], rows, safe=True))


def _cell(rate: float | None, below: bool, served: bool) -> str:
    words = share(rate)
    words = f"<span class='bad'>{words}</span>" if below else words
    return f"<b>{words}</b>" if served else words


def _curves(people: Sequence[Mapping[str, Any]]) -> str:
    trained = [person for person in people if person.get("update") and person["update"]["steps"]]
    if not trained:
        return ""
    series = {name: [_series(person, name) for person in trained] for name in (SCORE, KL)}
    score_bounds, kl_bounds = nice_bounds(series[SCORE]), nice_bounds(series[KL], floor=0.0)
    figures = [
        f"<figure><figcaption>{escape(person['name'].replace('_', ' '))}</figcaption><h4>reward</h4>"
        + curve(scores, f"reward of {person['name']} by step", bounds=score_bounds)
        + "<h4>KL to the base</h4>"
        + curve(kls, f"KL of {person['name']} by step", bounds=kl_bounds)
        + "</figure>"
        for person, scores, kls in zip(trained, series[SCORE], series[KL], strict=True)
    ]
    lead = (
        "Each person's PPO steps: above, the mean score of the replies just written (the reward head's lower bound, in "
        "logits of a click, against base replies to the same prompts); below, KL to the base in nats a reply."
    )
    return _section("Reward and KL over the steps of each update", lead, f"<div class='grid'>{''.join(figures)}</div>")


def _series(person: Mapping[str, Any], name: str) -> list[float]:
    return [float(step[name]) for step in person["update"]["steps"] if name in step]


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    parts = [
        f"<article><h3>{escape(s['person'].replace('_', ' '))} <small>{escape(s['arm'])}: {escape(s['verdict'])}"
        f"</small></h3><p class='prompt'>{escape(s['prompt'])}</p><div class='pair'>"
        f"<div><h4>before</h4><pre>{escape(s['before'])}</pre></div>"
        f"<div><h4>after</h4><pre>{escape(s['after'])}</pre></div></div></article>"
        for s in samples
    ]
    lead = "The base's reply and the served arm's to the same unseen prompt: the first prompts, not the best ones."
    return _section("Before and after", lead, *parts)


def _gates(people: Sequence[Mapping[str, Any]]) -> str:
    updated = [person for person in people if person.get("update")]
    if not updated:
        return ""
    parts = [
        f"<details><summary>{escape(person['name'].replace('_', ' '))}: {escape(person['update']['state'])}</summary>"
        f"{_stages(person['update']['steps'])}{_checks(person['update']['gate'])}</details>"
        for person in updated
    ]
    lead = (
        "What each stage of training reached on the gate's prompts, by the head that was learned from and by the judge "
        "that knows only held-out labels (what PPO adds must win more by both); then every check a version has to pass "
        "before anybody is served by it."
    )
    return _section("Stages and gate", lead, *parts)


def _stages(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [step["stage"].replace("_", " "), share(step[HEAD]), share(step[JUDGE]), number(step[MOVED], 3)]
        for step in steps
        if JUDGE in step
    ]
    return _table(["after", "wins by the head", "wins by the judge", "KL, nats a token"], rows) if rows else ""


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            escape(check["check"]),
            number(check["value"], 3),
            number(check["bound"], 3),
            f"<span class='{_class(check['passed'])}'>{'passed' if check['passed'] else 'failed'}</span>",
            escape(check.get("words", "")),
        ]
        for check in checks
    ]
    return _table(["check", "value", "bound", "", "in words"], rows, safe=True)


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<section><h2>Notes</h2><ul>{items}</ul></section>" if notes else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, safe: bool = False) -> str:
    """An HTML table; `safe` cells are HTML already."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{cell if safe else escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"


def _class(passed: bool | None) -> str:
    return {True: "good", False: "bad", None: "open"}[passed]


def write_report(results: Results, path: Path) -> Path:
    """Write the page beside a results file; returns where it lies."""
    out = path.with_suffix(".html")
    write_whole(out, page(results).encode("utf-8"))
    return out


def main() -> None:
    """Make a page again from its results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS / "personalize.json")
    path = parser.parse_args().results
    results = read_json(path)
    print(text_report(results))
    print(f"\nThe page is {write_report(results, path)}")


if __name__ == "__main__":
    main()
