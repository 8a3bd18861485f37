"""What a node of a cluster does with a job, without the cluster (tests/ecosystem/test_ray.py has one)."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import psutil
import pytest

from adapters.base_model import BaseFiles
from adapters.files import alone, code_version, read_json
from adapters.job import write_job
from assistant import ray_node
from assistant.ray_node import NodeJob, pack, unpack
from assistant.worker_process import DONE, REFUSED
from feedback.population import Population, load_population
from tests.adapters.jobs import tiny_job
from tests.assistant.serving import own_models, wait_for


@pytest.fixture
def node(base_files: BaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a models folder and a data folder of its own; the latter."""
    monkeypatch.setenv("MYNAH_MODELS_DIR", str(own_models(base_files, tmp_path / "node-models")))
    monkeypatch.setenv("MYNAH_DATA_DIR", str(tmp_path / "node-data"))
    return tmp_path / "node-data"


@pytest.fixture
def sent(base_files: BaseFiles, tmp_path: Path) -> dict[str, bytes]:
    """A tiny job as the server sends it: its base lies where the node has nothing."""
    population: Population = load_population(16)
    write_job(tmp_path / "job", tiny_job(base_files, population))
    return pack(tmp_path / "job")


def order(**changes: str) -> dict[str, str]:
    return {"source": "smollm2-135m-instruct", "code": code_version(), **changes}


def heard(job: NodeJob, seen: str = "") -> tuple[dict[str, bytes], int, str, dict[str, bytes] | None]:
    """All that a job says until it ends: the last checkpoint, the code, why it was lost, the result."""
    checkpoint: dict[str, bytes] = {}
    while True:
        said = job.poll(seen)
        if said["checkpoint"] is not None:
            checkpoint, seen = said["checkpoint"], said["stamp"]
        if said["code"] is not None:
            return checkpoint, said["code"], said["lost"], said["result"]


def test_a_node_does_a_job_by_its_own_base_and_leaves_nothing(
    node: Path, sent: dict[str, bytes], tmp_path: Path
) -> None:
    """It goes on from a checkpoint that came back from another; what a dead process left there is swept away."""
    (node / "node" / "dead").mkdir(parents=True)
    first = NodeJob(sent, 1, 5, order())
    assert not (node / "node" / "dead").exists()
    checkpoint: dict[str, bytes] = {}
    seen = ""
    while "warm_start/manifest.json" not in checkpoint:
        said = first.poll(seen)
        assert said["code"] is None
        if said["checkpoint"] is not None:
            checkpoint, seen = said["checkpoint"], said["stamp"]
    metrics = said["files"]["metrics.jsonl"]
    worker = psutil.Process(int((first.folder / "pid").read_text()))
    first.end()
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert [path for path in (node / "node").iterdir() if path.is_dir()] == []

    goes_on = {**sent, "metrics.jsonl": metrics, **{f"checkpoint/{name}": data for name, data in checkpoint.items()}}
    second = NodeJob(goes_on, 1, 5, order())
    base = read_json(second.folder / "job.json")["base"]["base_id"]
    last, code, lost, result = heard(second)
    assert (code, lost) == (DONE, "")
    assert last["warm_start/adapter_model.safetensors"] == checkpoint["warm_start/adapter_model.safetensors"]
    assert result is not None and "adapter_model.safetensors" in result and base in result["about.json"].decode()
    told = second.poll("")["files"]["metrics.jsonl"].decode().splitlines()
    assert told[: len(metrics.splitlines())] == metrics.decode().splitlines(), "nothing was done twice"
    second.end()


@pytest.mark.parametrize(
    ("changes", "words"), [({"code": "0"}, "same release"), ({"source": "/nowhere/model"}, "no such folder")]
)
def test_a_node_that_cannot_do_it_says_why(
    node: Path,
    sent: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changes: dict[str, str],
    words: str,
) -> None:
    monkeypatch.setenv("MYNAH_MODELS_DIR", str(tmp_path / "empty"))
    job = NodeJob(sent, 1, 5, order(**changes))
    _, code, lost, result = heard(job)
    assert code == REFUSED and words in lost and result is None
    job.end()


def test_a_job_that_nobody_asks_about_ends_by_itself(
    node: Path, sent: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_node, "SILENCE_SECONDS", 0.0)
    job = NodeJob(sent, 1, 5, order())
    wait_for(lambda: not job.folder.exists(), 60)
    wait_for(lambda: job.poll("")["code"] is not None, 60)


def test_names_that_lead_out_of_a_job_are_refused(tmp_path: Path) -> None:
    for name in ("../x", "/x", "a/../../x", ""):
        with pytest.raises(ValueError, match="holds no file"):
            unpack(tmp_path / "job", {name: b""})
    unpack(tmp_path / "job", {"a/b": b"1", "c": b"2"})
    assert pack(tmp_path / "job") == {"a/b": b"1", "c": b"2"}
    (tmp_path / "job" / ".tmp-a").mkdir()
    (tmp_path / "job" / ".tmp-a" / "half").touch()
    assert set(pack(tmp_path / "job")) == {"a/b", "c"}


def test_what_is_written_meanwhile_is_no_reason_to_fail(tmp_path: Path) -> None:
    """A worker makes, renames and removes folders while its node looks for what is there."""
    over, written = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            draft, whole = tmp_path / f".tmp-{number}", tmp_path / f"step-{number % 7}" / "deep"
            draft.mkdir()
            (draft / "file").write_text("whole")
            shutil.rmtree(whole, ignore_errors=True)
            whole.parent.mkdir(exist_ok=True)
            draft.rename(whole)
            written.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(60)
        seen = [pack(tmp_path) for _ in range(300)]
    finally:
        over.set()
        writer.join()
    assert any(seen) and {data for files in seen for data in files.values()} == {b"whole"}


def test_a_lock_is_let_go_with_its_holder(tmp_path: Path) -> None:
    with alone(tmp_path / "lock") as mine, alone(tmp_path / "lock") as other:
        assert mine and not other
    with alone(tmp_path / "lock") as mine:
        assert mine
