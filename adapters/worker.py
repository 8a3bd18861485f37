"""One update from a frozen job to a judged candidate, in a process of its own.

    python -m adapters.worker JOB_DIR

It reads what `adapters/job.py` wrote and adds to the folder:

    status.json, metrics.jsonl    where it is (adapters/progress.py)
    checkpoint/                   what is finished; a killed job goes on from there
    result/                       the candidate as a version folder without a number (adapters/versions.py)
    gate.json                     the gate's checks, written last: with it the job is done

Exit status: 0 done, 1 failed (status.json says why), 3 paused by SIGTERM, 4 cancelled by a file `cancel` in the folder,
5 another worker has this job, 6 frozen elsewhere and not to be done on this machine (status.json says why). A file
`threads` holds how many threads to use; it is read again between batches. With --tied it ends as soon as its standard
input does, so that it does not outlive whoever started it.

Left out on purpose: the database, promotion, and any use of a person's name.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Literal

from adapters.base_model import describe
from adapters.files import alone, sweep
from adapters.job import JobSpec, PoolJob, UpdateConfig, pool_ready, read_job, settle, write_job, write_pool_job
from adapters.memory import TOO_LITTLE, keep_no_large_blocks, ran_out
from adapters.policy import Policy
from adapters.progress import Cancelled, JobRun, Journal, Pace, Paused, Stage
from adapters.update import ADAPTER, Update, prepare_shared, shared_files
from feedback.errors import MynahError

__all__ = ["JobSpec", "PoolJob", "UpdateConfig", "main", "pool_ready", "run_job", "write_job", "write_pool_job"]

Outcome = Literal["done", "failed", "paused", "cancelled", "busy", "refused"]
EXIT: dict[Outcome, int] = {"done": 0, "failed": 1, "paused": 3, "cancelled": 4, "busy": 5, "refused": 6}

# Seconds a token on two cores, for the first estimate of the time left.
WRITE, LEARN, READ = 0.005, 0.006, 0.002


def run_job(folder: Path, policy: Policy | None = None) -> Outcome:
    """Run a job to its end, or to where it is stopped. policy: one that is loaded already, with the job's base."""
    with alone(folder / "lock") as mine:
        if not mine:
            return "busy"
        if (folder / "gate.json").exists():
            return "done"
        sweep(folder)
        journal: Journal | None = None
        outcome: Outcome = "refused"
        reason = ""
        try:
            settle(folder)
            outcome = "failed"
            job = read_job(folder)
            journal = Journal(folder, Pace(_expected_seconds(job)), tensorboard=job.config.tensorboard)
            journal.state("running")
            run = JobRun(folder, journal)
            policy = policy or Policy.load(job.base, job.config.adapter)
            if isinstance(job, PoolJob):
                prepare_shared(run, policy, job)
            else:
                Update(run, job, policy).complete()
            outcome = "done"
        except Paused:
            outcome = "paused"
        except Cancelled:
            outcome = "cancelled"
        except Exception as error:  # the process is the boundary: whatever it was, the person gets a sentence
            reason = _reason(error)
            if not isinstance(error, MynahError):  # else it is as it was: refused until the job is this machine's
                outcome = "failed"
        finally:
            if policy is not None and ADAPTER in policy.adapters:
                policy.drop_adapter(ADAPTER)
        (journal or Journal(folder, Pace({}))).close(outcome, reason)
        return outcome


def _reason(error: Exception) -> str:
    """Why it failed, for the person whose update it was."""
    if ran_out(error):
        return TOO_LITTLE
    if isinstance(error, MynahError):
        return error.message
    if isinstance(error, OSError):
        return f"The disk refused ({error.strerror or error}); free some space and try again."
    traceback.print_exc()
    return f"The update met something unexpected ({type(error).__name__}: {error})."


def _expected_seconds(job: JobSpec | PoolJob) -> dict[Stage, float]:
    """How long each stage should take, from the number of tokens it writes, learns from and reads."""
    config, measured = job.config, job.config.gate.measured
    split = config.adapter.first_layer(int(describe(job.base)["layers"]))
    pool, gate = shared_files(job, split)
    each = config.pool.replies * config.pool.max_tokens
    written = (1 - pool.ready) * len(pool.prompts) * each
    asked = (
        (gate.prompts, measured.replies),
        (gate.provoking, measured.provoking_replies),
        (gate.limits, measured.limits_replies),
    )
    judged = sum(len(each.prompts) * replies for each, replies in asked) * measured.max_tokens
    expected: dict[Stage, float] = {"pool": 2.0 + written * (WRITE + READ) + (not gate.ready) * judged * (WRITE + READ)}
    if isinstance(job, PoolJob):
        return expected | {"warm_start": 0.0, "ppo": 0.0, "gate": 0.0}
    own = min(len(job.prompts), config.own_prompts)
    learned = config.warm_start.replies * config.pool.max_tokens * (len(pool.prompts) + own)
    batch = config.ppo.prompts * config.ppo.replies * config.ppo.max_tokens
    stage_end = len(gate.prompts.prompts) * measured.replies * measured.max_tokens * (WRITE + 2 * READ)
    expected["pool"] += own * config.own_replies * config.pool.max_tokens * (WRITE + READ)
    expected["warm_start"] = 3.0 + learned * LEARN + stage_end / 2
    expected["ppo"] = config.ppo.batches * batch * (WRITE + 2 * READ + config.ppo.epochs * LEARN) + stage_end
    expected["gate"] = judged * WRITE + 60 * READ * len(gate.asked)
    return expected


def _end_with_input() -> None:
    """Whoever started this process holds the other end for as long as it lives."""
    while os.read(0, 1024):  # not sys.stdin, whose lock must be free when Python ends
        pass
    os._exit(EXIT["paused"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job in the folder that is named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m adapters.worker", description="Run one update from its job folder."
    )
    parser.add_argument("job", type=Path, help="the job folder")
    parser.add_argument("--tied", action="store_true", help="end when standard input does")
    given = parser.parse_args(arguments)
    folder: Path = given.job

    def stop(signum: int, frame: FrameType | None) -> None:
        for number in signals:  # once is enough; what follows must not be torn
            signal.signal(number, signal.SIG_IGN)
        raise Cancelled if (folder / "cancel").exists() else Paused

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        signal.signal(number, stop)
    if given.tied:
        threading.Thread(target=_end_with_input, daemon=True).start()
    if not (folder / "job.json").is_file():
        parser.error(f"{folder} holds no job.json")
    keep_no_large_blocks()
    return EXIT[run_job(folder)]


if __name__ == "__main__":
    sys.exit(main())
