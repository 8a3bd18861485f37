"""Progress, honest estimates and metrics that survive a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.files import read_json
from adapters.progress import TRUSTED, Cancelled, JobRun, Journal, Pace, Stage, read_metrics

EXPECTED: dict[Stage, float] = {"pool": 10.0, "warm_start": 20.0, "ppo": 60.0, "gate": 10.0}


class Clock:
    """Seconds, set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_estimate_starts_unknown_and_follows_the_pace() -> None:
    clock = Clock()
    pace = Pace(EXPECTED, clock)
    assert pace.at("pool", 0.0) == (0.0, None)
    clock.now = 10.0  # half the stage took as long as all of it should: everything seems to take longer
    progress, left = pace.at("pool", 0.5)
    assert progress == pytest.approx(0.05)
    overall = (10 + TRUSTED) / (5 + TRUSTED)
    assert left == pytest.approx((10 + TRUSTED * overall) / (5 + TRUSTED) * 5 + overall * 90)
    assert 95 < left < 2 * 95
    clock.now = 20.0
    pace.at("pool", 1.0)
    pace.at("warm_start", 0.0)
    clock.now = 25.0  # this stage is faster than expected: 5 s for 10; over all 25 s for 20
    progress, left = pace.at("warm_start", 0.5)
    assert progress == pytest.approx(0.2)
    overall = (25 + TRUSTED) / (20 + TRUSTED)
    assert left == pytest.approx((5 + TRUSTED * overall) / (10 + TRUSTED) * 10 + overall * 70)


def test_what_was_found_ready_promises_no_early_end() -> None:
    clock = Clock()
    pace = Pace(EXPECTED, clock)
    pace.at("pool", 0.0)
    clock.now = 0.1
    assert (pace.at("pool", 0.95)[1] or 0) > 0.5 * 90


def test_a_slow_machine_is_believed_in_the_end() -> None:
    clock = Clock()
    pace = Pace({"pool": 0.0, "warm_start": 1000.0, "ppo": 1000.0, "gate": 0.0}, clock)
    pace.at("warm_start", 0.0)
    clock.now = 2500.0  # five times as slow
    assert pace.at("warm_start", 0.5)[1] == pytest.approx(5 * 1500, rel=0.05)


def test_a_resumed_job_counts_progress_but_not_the_pace_of_the_dead() -> None:
    clock = Clock()
    pace = Pace(EXPECTED, clock)
    assert pace.at("ppo", 0.5) == (pytest.approx(0.6), None)
    clock.now = 6.0  # a tenth of the stage in 6 s: as expected
    progress, left = pace.at("ppo", 0.6)
    assert progress == pytest.approx(0.66)
    assert left == pytest.approx(24 + 10)


def test_the_estimate_ends_at_nothing() -> None:
    clock = Clock()
    pace = Pace(EXPECTED, clock)
    pace.at("gate", 0.0)
    clock.now = 5.0
    assert pace.at("gate", 1.0) == (pytest.approx(1.0), 0.0)


def test_metrics_are_lines_and_a_step_done_again_replaces_the_old_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path, Pace(EXPECTED))
    journal.report("warm_start", 1.0, 1, {"loss": 0.5})
    for step in (1, 2, 3):
        journal.report("ppo", step / 4, step, {"objective/scores": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "ppo", "st')  # killed in the middle of a line

    resumed = Journal(tmp_path, Pace(EXPECTED))
    assert [row["step"] for row in resumed.rows] == [1, 1, 2, 3]
    resumed.report("ppo", 0.5, 2, {"objective/scores": 9.0})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [("warm_start", 1), ("ppo", 1), ("ppo", 2)]
    assert resumed.of("ppo", "objective/scores") == [1.0, 9.0]
    assert rows == resumed.rows == read_metrics(tmp_path)
    assert {"stage", "step", "progress", "eta_seconds"} <= set(rows[0])


def test_the_status_file_follows(tmp_path: Path) -> None:
    journal = Journal(tmp_path, Pace(EXPECTED))
    journal.report("ppo", 0.5)
    status = read_json(tmp_path / "status.json")
    assert status == {"state": "running", "stage": "ppo", "progress": 0.6, "eta_seconds": None, "reason": ""}
    journal.close("failed", "The disk refused.")
    assert read_json(tmp_path / "status.json") | {"state": "failed", "reason": "The disk refused."} == read_json(
        tmp_path / "status.json"
    )
    journal.close("done", "")
    assert read_json(tmp_path / "status.json")["progress"] == 1.0


def test_a_run_listens_for_cancel_and_for_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    run = JobRun(tmp_path, Journal(tmp_path, Pace(EXPECTED)))
    run.tell("pool", 0.1)
    for content in ("2", "many", "0"):
        (tmp_path / "threads").write_text(content)
        run.tell("pool", 0.2)
    assert chosen == []
    (tmp_path / "threads").write_text("1")
    run.tell("pool", 0.2)
    assert chosen == [1]
    (tmp_path / "cancel").touch()
    with pytest.raises(Cancelled):
        run.tell("pool", 0.3)
