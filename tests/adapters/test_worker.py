"""Updates as jobs: frozen and read back, run to a verdict, killed and resumed, paused, cancelled, refused."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters import update as update_module
from adapters.base_model import BaseFiles
from adapters.files import read_json
from adapters.job import HEADS, JobSpec, PoolJob, UpdateConfig, pool_ready, read_job, write_job, write_pool_job
from adapters.policy import Policy
from adapters.progress import read_metrics
from adapters.rendering import Renderer
from adapters.update import Update, mix_prompts, own_prompts, wins_more
from adapters.versions import VersionFiles, verify
from adapters.worker import main, run_job
from feedback.errors import CorruptFile, InvalidInput
from feedback.foretelling import Split
from feedback.population import Population
from feedback.reward_head import Act, fit
from tests.adapters.jobs import TINY, tiny_job

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def prepared(job_base: BaseFiles, loaded_policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tiny pool and gate set, made once for all jobs here, by a job of its own."""
    folder = tmp_path_factory.mktemp("pool")
    config = UpdateConfig.from_dict(TINY)
    assert not pool_ready(job_base, config)
    write_pool_job(folder, job_base, config)
    assert read_job(folder) == PoolJob(job_base, config)
    assert run_job(folder, loaded_policy) == "done"
    assert pool_ready(job_base, config)


@pytest.fixture
def job(job_base: BaseFiles, population: Population, tmp_path: Path) -> Path:
    """A folder with a tiny job."""
    write_job(tmp_path / "job", tiny_job(job_base, population))
    return tmp_path / "job"


def start(job: Path) -> subprocess.Popen[bytes]:
    """A real worker process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "adapters.worker", str(job)], cwd=ROOT, env=environment)


def wait_for(job: Path, stage: str, worker: subprocess.Popen[bytes], seconds: float = 300) -> None:
    """Until the first line of a stage is in the metrics."""
    deadline = time.monotonic() + seconds
    while not any(row["stage"] == stage for row in read_metrics(job)):
        assert worker.poll() is None and time.monotonic() < deadline, "the worker ended too early, or hangs"
        time.sleep(0.02)


# ---- the job itself -----------------------------------------------------------------------------------------------


def test_a_job_is_read_back_as_it_was_written(job_base: BaseFiles, population: Population, tmp_path: Path) -> None:
    version = VersionFiles(tmp_path / "adapters").path("u_1", 3)
    version.mkdir(parents=True)
    (version / "about.json").write_text("{}")
    spec = tiny_job(job_base, population, parent=version)
    write_job(tmp_path / "job", spec)
    back = read_job(tmp_path / "job")
    assert isinstance(back, JobSpec)
    assert back.parent == tmp_path / "job" / "parent" / "v3" and (back.parent / "about.json").exists()
    for mine, theirs in ((getattr(spec.heads, name), getattr(back.heads, name)) for name in HEADS):
        assert np.array_equal(mine.mean, theirs.mean) and np.array_equal(mine.cov, theirs.cov)
        assert (mine.threshold, mine.labels) == (theirs.threshold, theirs.labels)
    assert back.heads.foretold == spec.heads.foretold == 5.0
    plain = dict.fromkeys(("heads", "parent"))
    assert replace(back, **plain) == replace(spec, **plain)  # type: ignore[arg-type]


def test_a_fitted_head_survives_the_job(job_base: BaseFiles, population: Population, tmp_path: Path) -> None:
    """Its covariance is a view of a larger matrix, which safetensors would write with the wrong values."""
    random = np.random.default_rng(0)
    acts = [Act("ranking", random.standard_normal((2, len(population.names))), ((0,), (1,))) for _ in range(6)]
    head = fit(acts, population.prior)
    write_job(tmp_path, tiny_job(job_base, population, heads=Split(head, head, head, 0.0)))
    back = read_job(tmp_path)
    assert isinstance(back, JobSpec) and np.array_equal(back.heads.judge.cov, head.cov)
    assert np.linalg.eigvalsh(back.heads.judge.cov).min() > 0


def test_a_config_survives_json_and_names_what_is_wrong() -> None:
    config = UpdateConfig.from_dict(TINY)
    assert UpdateConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    assert config.pool.prompts == 4 and config.pool.temperature == UpdateConfig().pool.temperature
    assert UpdateConfig.from_dict({"ppo": {"learning_rate": 1}}).ppo.learning_rate == 1.0


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], r"config is \[\]; it must be an object"),
        ({"speed": 1}, "config has no 'speed'"),
        ({"ppo": {"batch": 1}}, "config.ppo has no 'batch'"),
        ({"ppo": {"batches": 1.5}}, "config.ppo.batches is 1.5; it must be a int"),
        ({"ppo": {"batches": True}}, "config.ppo.batches is True"),
        ({"ppo": {"batches": -1}}, "ppo.batches is -1"),
        ({"ppo": {"advantage": "best"}}, "it can be leave_one_out, gae"),
        ({"start": "middle"}, "it can be fresh, parent"),
    ],
)
def test_a_wrong_config_is_invalid_input(raw: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        UpdateConfig.from_dict(raw)


def test_a_damaged_job_is_one_clear_error(job: Path) -> None:
    (job / "heads.safetensors").write_bytes(b"half")
    with pytest.raises(CorruptFile, match="start a new update"):
        read_job(job)
    assert run_job(job) == "failed"
    assert "start a new update" in read_json(job / "status.json")["reason"]


# ---- small decisions ----------------------------------------------------------------------------------------------


def test_own_prompts_are_taken_once_and_shortened_to_fit(
    job_base: BaseFiles, population: Population, policy: Policy
) -> None:
    long = [
        {"role": "user", "content": "Tell me a story. " * 40},
        {"role": "assistant", "content": "Once upon a time. " * 40},
        {"role": "user", "content": "And then?"},
    ]
    hopeless = [{"role": "user", "content": "word " * 2000}]
    plain = [{"role": "user", "content": "How do I plant a tree?"}]
    spec = tiny_job(job_base, population, prompts=[long, hopeless, plain, plain])
    own = own_prompts(spec, policy.renderer)
    assert [text for text, _ in own] == ["And then?", "How do I plant a tree?"]
    assert all(len(ids) <= spec.config.own_tokens for _, ids in own)
    assert own[1][1] == Renderer(policy.tokenizer).prompt(plain).ids  # type: ignore[arg-type]
    assert len(own_prompts(replace(spec, config=replace(spec.config, own_prompts=1)), policy.renderer)) == 1


def test_at_least_half_of_the_prompts_come_from_the_pool() -> None:
    own, pool = [[i] for i in range(100, 120)], [[i] for i in range(50)]
    mixed = mix_prompts(own, pool, 16, seed=1)
    assert len(mixed) == 16 and len({tuple(prompt) for prompt in mixed}) == 16
    assert [prompt for prompt in mixed if prompt[0] >= 100] == own[:8], "the newest of one's own"
    assert mixed == mix_prompts(own, pool, 16, seed=1) != mix_prompts(own, pool, 16, seed=2)
    assert len(mix_prompts([], pool, 16, seed=1)) == 16
    assert len(mix_prompts(own[:2], pool, 16, seed=1)) == 16


# ---- whole runs ---------------------------------------------------------------------------------------------------


def test_a_job_ends_in_a_version_and_a_verdict(job: Path, policy: Policy, tmp_path: Path) -> None:
    assert run_job(job, policy) == "done"
    verify(job / "result")
    about = read_json(job / "result" / "about.json")
    assert about["labels"] == 30 and about["held_out"] == 6 and about["seed"] == 5 and about["parent"] is None
    assert str(tmp_path) not in json.dumps(about)
    checks = read_json(job / "gate.json")
    assert {"check", "value", "bound", "passed", "words"} == set(checks[0])
    rows = read_metrics(job)
    assert {row["stage"] for row in rows} == {"warm_start", "ppo"}
    assert [row["progress"] for row in rows] == sorted(row["progress"] for row in rows)
    for stage in ("warm_start", "ppo"):
        last = [row for row in rows if row["stage"] == stage][-1]
        assert 0 <= last["win_rate/judge"] <= 1 and 0 <= last["win_rate/head"] <= 1
    assert {"objective/kl", "policy/approxkl_avg", "policy/clipfrac_avg", "val/ratio"} <= set(
        next(row for row in rows if row["stage"] == "ppo")
    )
    assert read_json(job / "status.json")["state"] == "done" and policy.adapters == []
    assert run_job(job) == "done", "a finished job is not run again"
    # The result loads, and the adapter is not the one it started from.
    policy.load_adapter("result", job / "result")
    assert any(value.abs().sum() > 0 for name, value in policy.adapter_state("result").items() if "lora_B" in name)


def test_gae_a_parent_and_no_prompts_of_ones_own_work_as_well(
    job_base: BaseFiles, population: Population, policy: Policy, tmp_path: Path
) -> None:
    files = VersionFiles(tmp_path / "adapters")
    policy.new_adapter("parent")
    state = {name: torch.full_like(value, 1e-4) for name, value in policy.adapter_state("parent").items()}
    files.write("u_1", 2, state, policy.lora_config(), {})
    config = UpdateConfig.from_dict(
        {**TINY, "start": "parent", "ppo": {**TINY["ppo"], "batches": 1, "advantage": "gae"}}
    )
    spec = tiny_job(job_base, population, config=config, parent=files.path("u_1", 2), prompts=[])
    write_job(tmp_path / "job", spec)
    assert run_job(tmp_path / "job", policy) == "done"
    assert read_json(tmp_path / "job" / "result" / "about.json")["parent"] == "v2"
    (row,) = [row for row in read_metrics(tmp_path / "job") if "loss/value_avg" in row]
    assert row["loss/value_avg"] > 0


def test_a_candidate_that_went_too_far_is_drawn_back(
    job: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_job(job)
    assert isinstance(spec, JobSpec)
    ppo = replace(spec.config.ppo, batches=2, epochs=2, learning_rate=0.02, max_approx_kl=100.0)
    config = replace(spec.config, ppo=ppo)
    write_job(job, replace(spec, config=config))
    seen: list[float] = []
    draw = update_module.draw_sample

    def watched(*arguments: Any) -> Any:
        sample = draw(*arguments)
        seen.append(sample.kl)
        return sample

    monkeypatch.setattr(update_module, "draw_sample", watched)
    assert run_job(job, policy) == "done"
    assert max(seen) > 0.1 and seen[-1] < 0.5 * max(seen) and len(seen) >= 3


def test_a_killed_worker_goes_on_to_a_result(job: Path, policy: Policy) -> None:
    worker = start(job)
    wait_for(job, "ppo", worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert not (job / "gate.json").exists()
    marks = {path: path.stat().st_mtime_ns for path in (job / "checkpoint" / "warm_start").iterdir()}
    before = read_metrics(job)

    assert run_job(job, policy) == "done"
    assert {path: path.stat().st_mtime_ns for path in (job / "checkpoint" / "warm_start").iterdir()} == marks
    rows = read_metrics(job)
    assert rows[: len(before)] == before, "what was finished before the kill is not done again"
    assert [row["step"] for row in rows if row["stage"] == "ppo"] == [1, 2, 3]
    verify(job / "result")


def test_sigterm_pauses_and_cancel_ends(job: Path) -> None:
    worker = start(job)
    wait_for(job, "warm_start", worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 3
    assert read_json(job / "status.json")["state"] == "paused"
    (job / "cancel").touch()
    assert main([str(job)]) == 4
    assert read_json(job / "status.json")["state"] == "cancelled"
    assert not (job / "gate.json").exists() and not (job / "result").exists()


def test_two_workers_never_share_a_job(job: Path) -> None:
    with (job / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_job(job) == "busy"
    assert not (job / "status.json").exists(), "nothing was touched"


def test_a_failure_is_one_sentence(
    job: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Update, "warm_start", full)
        assert run_job(job, policy) == "failed"
    assert read_json(job / "status.json")["reason"] == (
        "The disk refused (No space left on device); free some space and try again."
    )

    def wrong(*arguments: object) -> None:
        raise ZeroDivisionError("division by zero")

    with monkeypatch.context() as patch:
        patch.setattr(Update, "warm_start", wrong)
        assert run_job(job, policy) == "failed"
    assert "something unexpected (ZeroDivisionError" in read_json(job / "status.json")["reason"]
    assert "Traceback" in capsys.readouterr().err
    assert policy.adapters == []


def test_a_job_of_another_prior_is_refused(job: Path, policy: Policy) -> None:
    spec = read_job(job)
    assert isinstance(spec, JobSpec)
    write_job(job, replace(spec, population="older/16"))
    assert run_job(job, policy) == "failed"
    assert "prepared under the shared prior older/16" in read_json(job / "status.json")["reason"]


def test_tensorboard_is_optional(job: Path, policy: Policy) -> None:
    spec = read_job(job)
    assert isinstance(spec, JobSpec)
    write_job(job, replace(spec, config=replace(spec.config, tensorboard=True)))
    outcome = run_job(job, policy)
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        assert outcome == "failed" and "TensorBoard is not installed" in read_json(job / "status.json")["reason"]
    else:
        assert outcome == "done" and any((job / "tensorboard").iterdir())


def test_a_folder_without_a_job_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path)])
    assert exit_.value.code == 2 and "holds no job.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("head", "judge", "kept"), [(0.7, 0.6, True), (0.7, 0.5, False), (0.6, 0.6, False), (0.5, 0.7, False)]
)
def test_what_ppo_adds_must_convince_the_judge_too(head: float, judge: float, kept: bool) -> None:
    before = {"win_rate/head": 0.6, "win_rate/judge": 0.5}
    assert wins_more({"win_rate/head": head, "win_rate/judge": judge, "win_rate/kl": 0.1}, before) is kept
