"""One update outside the server: the product's job, worker process and files, watched for time and memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from adapters.base_model import BaseFiles
from adapters.files import read_json
from adapters.job import JobSpec, UpdateConfig, write_job, write_pool_job
from adapters.rendering import ChatMessage
from assistant.worker_process import read_report
from benchmarks.work import ROOT, PeakMemory
from feedback.errors import MynahError
from feedback.foretelling import Split

PAUSE_SECONDS = 20


def run_update(
    job: Path,
    files: BaseFiles,
    population: str,
    prompts: list[list[ChatMessage]],
    heads: Split,
    config: UpdateConfig,
    seed: int,
) -> dict[str, Any]:
    """Train one person's adapter; `job` then holds `result/`. A job that was stopped goes on from its checkpoint.

    Returns state, minutes, memory_gb, gate and steps. The minutes are those of the worker from start to exit, loading
    included; of a resumed job those of all its runs.
    """
    if not (job / "job.json").exists():
        spec = JobSpec(
            update_id=job.name,
            base=files,
            population=population,
            seed=seed,
            prompts=prompts,
            heads=heads,
            config=config,
        )
        write_job(job, spec)
    memory = run_worker(job)
    gate = read_json(job / "gate.json")
    spent = [float(line) for line in (job / "spent").read_text().split()]
    return {
        "state": "promoted" if all(check["passed"] for check in gate) else "rejected",
        "minutes": sum(spent) / 60,
        "runs": len(spent),
        "memory_gb": memory / 2**30,
        "gate": gate,
        "steps": read_report(job).metrics["steps"],
    }


def prepare_pool(folder: Path, files: BaseFiles, config: UpdateConfig) -> float:
    """Make what all updates share (the pool, the gate's base replies); returns the minutes it took."""
    started = time.monotonic()
    write_pool_job(folder, files, config)
    run_worker(folder)
    return (time.monotonic() - started) / 60


def run_worker(job: Path) -> int:
    """Run `python -m adapters.worker` to its end; returns its peak memory in bytes. Raises MynahError if it fails.

    Its time is appended to the job's file `spent`. Ctrl-C pauses it, so that the same call goes on later.
    """
    started = time.monotonic()
    with (job / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "adapters.worker", str(job)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with PeakMemory(worker.pid) as memory:
            code = worker.wait()
    except BaseException:
        worker.send_signal(signal.SIGTERM)
        worker.wait(PAUSE_SECONDS)
        raise
    finally:
        with (job / "spent").open("a") as spent:
            print(f"{time.monotonic() - started:.1f}", file=spent)
            os.fsync(spent.fileno())
    if code:
        raise MynahError(
            f"The update {job.name} ended with exit code {code}: {read_report(job).reason or 'see its log'}"
        )
    return memory.peak
