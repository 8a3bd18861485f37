"""Updates on a real Ray cluster: nodes are lost, come back late, run out of memory; the server dies. See `make
test-ecosystem`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import count, pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from adapters.base_model import BaseFiles
from assistant.mynah import Mynah
from assistant.ray_executor import RayExecutor
from assistant.trainer import MAX_CRASHES
from assistant.updates import Updates
from assistant.worker_process import read_report
from feedback.errors import InvalidInput
from feedback.store import Store
from feedback.types import Update, User
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings, teach
from tests.assistant.serving import wait_for as wait_for_seconds
from tests.ecosystem.ray_cluster import ROOT, Node, RayCluster

pytestmark = [pytest.mark.ecosystem, pytest.mark.timeout(1800)]
PATIENCE = 900.0  # beside other programs
NUMBERS = count(1)


def wait_for(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Until something is true, or the test fails."""
    wait_for_seconds(true, seconds)


@pytest.fixture(scope="module")
def cluster(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    made = RayCluster(base_files, tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def without_nodes(cluster: RayCluster) -> Iterator[None]:
    """Every test begins with the head alone."""
    yield
    cluster.clear()


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    """All services of a server whose updates run on the cluster, without its line: each test runs its own."""
    folder = tmp_path_factory.mktemp("server")
    models = own_models(base_files, folder / "models")
    opened = open_mynah(
        settings(models, folder / "data", executor="ray", ray_address=cluster.address), run_updates=False
    )
    yield opened
    opened.close()


def updates_of(mynah: Mynah) -> Updates:
    """The line, as after a restart."""
    numbers = mynah.updates.numbers
    return Updates(mynah.store, mynah.learning, mynah.engine, mynah.versions, mynah.files, mynah.config, numbers)


def somebody(mynah: Mynah) -> User:
    """With enough labels for an update."""
    made = mynah.accounts.add(f"person {next(NUMBERS)}", PASSWORD)
    teach(mynah, made, 10)
    return made


def now(mynah: Mynah, update: Update) -> Update:
    return mynah.store.versions.update(update.user_id, update.id)


def ended(mynah: Mynah, update: Update) -> bool:
    return now(mynah, update).state in ("promoted", "rejected", "failed", "cancelled")


def place_of(cluster: RayCluster, update: Update) -> Node:
    """The node that an update is on, as soon as it is."""
    wait_for(lambda: any(node.has(update.id) for node in cluster.nodes))
    return next(node for node in cluster.nodes if node.has(update.id))


def over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_job_goes_on_elsewhere_from_its_checkpoint_when_its_node_is_lost(
    mynah: Mynah, cluster: RayCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add()
    ada = somebody(mynah)
    with closing(updates_of(mynah)) as updates:
        updates.start()
        update = updates.request(ada)
        job = mynah.config.jobs / update.id
        wait_for(lambda: (job / "checkpoint" / "warm_start").exists())
        before = [row for row in read_report(job).metrics["steps"] if row["stage"] == "warm_start"]
        assert before, "metrics come back while it runs"
        cluster.kill(place_of(cluster, update))
        wait_for(lambda: f"{update.id}, attempt 1: The node that trained it was lost" in caplog.text)
        cluster.add()
        wait_for(lambda: ended(mynah, update))
    assert (now(mynah, update).state, now(mynah, update).reason) == ("promoted", "")
    (version,) = mynah.store.versions.versions(ada.id)
    steps = version.metrics["steps"]
    assert [row for row in steps if row["stage"] == "warm_start"] == before, "what was done was not done again"
    assert {row["stage"] for row in steps} >= {"warm_start", "ppo"}
    assert mynah.versions.check(version).is_dir() and not job.exists()


def test_a_node_that_comes_back_late_changes_nothing(mynah: Mynah, cluster: RayCluster) -> None:
    """It stands still until it counts as dead and its job was done elsewhere, and then goes on where it stood."""
    late = cluster.add()
    ada = somebody(mynah)
    with closing(updates_of(mynah)) as updates:
        updates.start()
        update = updates.request(ada)
        place_of(cluster, update)
        wait_for(lambda: bool(late.workers))
        stopped, (worker,) = late.processes, late.workers
        for process in stopped:
            process.suspend()
        try:
            cluster.add()
            wait_for(lambda: ended(mynah, update))
            assert now(mynah, update).state == "promoted"
            (version,) = mynah.store.versions.versions(ada.id)
        finally:
            for process in reversed(stopped):
                process.resume()
        wait_for(lambda: over(worker) and not late.jobs)
        assert [version] == mynah.store.versions.versions(ada.id)
        assert mynah.active(ada) == version
        assert not (mynah.config.jobs / update.id).exists()


def test_a_cancelled_job_ends_on_its_node_and_leaves_nothing_there(mynah: Mynah, cluster: RayCluster) -> None:
    """So does that of somebody who is removed; and one that still waits for a node goes as quietly."""
    node = cluster.add()
    ada, bob, eve = somebody(mynah), somebody(mynah), somebody(mynah)
    with closing(updates_of(mynah)) as updates:
        updates.start()
        for user in (ada, bob):
            update = updates.request(user)
            place_of(cluster, update)
            wait_for(lambda: bool(node.workers))
            (worker,) = node.workers
            waits = updates.request(eve)
            assert updates.forecast(eve).position == 1
            updates.cancel(eve, waits.id)
            if user == ada:
                updates.cancel(ada, update.id)
            else:
                mynah.remove_person(bob)
            wait_for(lambda worker=worker: over(worker) and not node.jobs, 60)  # type: ignore[misc]
            wait_for(lambda update=update: not (mynah.config.jobs / update.id).exists(), 60)  # type: ignore[misc]
    assert mynah.store.versions.versions(ada.id) == []


def test_a_node_without_memory_ends_it_with_its_reason_and_chat_goes_on(mynah: Mynah, cluster: RayCluster) -> None:
    """Ray's own watch over memory, told that next to nothing is too much."""
    cluster.add(RAY_memory_usage_threshold="0.01", RAY_memory_monitor_refresh_ms="100")
    ada = somebody(mynah)
    with closing(updates_of(mynah)) as updates:
        updates.start()
        update = updates.request(ada)
        wait_for(lambda: ended(mynah, update))
    assert now(mynah, update).state == "failed"
    expected = f"The node that trained it ran out of memory; it was tried {MAX_CRASHES} times."
    assert now(mynah, update).reason == expected
    assert mynah.engine.policy.adapters == [] or mynah.active(ada) is None


def test_a_worker_that_is_killed_goes_on_but_not_for_ever(mynah: Mynah, cluster: RayCluster) -> None:
    node = cluster.add()
    ada = somebody(mynah)
    killed: set[int] = set()
    with closing(updates_of(mynah)) as updates:
        updates.start()
        update = updates.request(ada)
        for _ in range(MAX_CRASHES):
            wait_for(lambda: any(worker.pid not in killed for worker in node.workers))
            (worker,) = [worker for worker in node.workers if worker.pid not in killed]
            killed.add(worker.pid)
            worker.kill()
        wait_for(lambda: ended(mynah, update))
    assert now(mynah, update).state == "failed" and "exit code -9" in now(mynah, update).reason
    assert len(killed) == MAX_CRASHES and not node.jobs


def test_a_node_with_another_base_says_so(mynah: Mynah, cluster: RayCluster) -> None:
    node = cluster.add()
    (base,) = [path for path in (node.data.parent / "models").iterdir() if path.is_dir()]
    base.rename(base.with_name("another-000000000000"))
    about = mynah.files.folder / "base.json"
    whole = about.read_text()
    about.write_text('{"name": "x", "source": "/nowhere/model", "identity": "x"}')
    ada = somebody(mynah)
    with closing(updates_of(mynah)) as updates:
        updates.start()
        update = updates.request(ada)
        wait_for(lambda: ended(mynah, update))
    about.write_text(whole)
    assert now(mynah, update).state == "failed"
    assert "cannot do it" in now(mynah, update).reason and "no such folder" in now(mynah, update).reason


def test_twenty_people_and_a_node_that_is_lost(
    mynah: Mynah, cluster: RayCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody's update is done, nobody's twice."""
    first = cluster.add()
    cluster.add()
    people = [somebody(mynah) for _ in range(20)]
    with closing(updates_of(mynah)) as updates:
        asked = [updates.request(user) for user in people]
        updates.start()
        jobs = mynah.config.jobs

        def in_the_middle() -> bool:
            """Six are done, and one on the first node has got somewhere."""
            there = (u for u in asked if first.has(u.id) and (jobs / u.id / "checkpoint" / "warm_start").exists())
            return sum(ended(mynah, update) for update in asked) >= 6 and any(there)

        wait_for(in_the_middle)
        cluster.kill(first)
        wait_for(lambda: "attempt 1: The node that trained it was lost" in caplog.text)
        cluster.add()
        wait_for(lambda: all(ended(mynah, update) for update in asked))
    assert [now(mynah, update).state for update in asked] == ["promoted"] * 20
    for user, update in zip(people, asked, strict=True):
        (version,) = mynah.store.versions.versions(user.id)
        assert (version.number, version.update_id) == (1, update.id) and mynah.active(user) == version
    began = [datetime.fromisoformat(now(mynah, update).started_at or "") for update in asked]
    at_once = timedelta(seconds=1)  # two nodes are given a job each
    assert all(a - at_once <= b for a, b in pairwise(began)), "the oldest request first"
    assert caplog.text.count(", attempt ") == 1
    assert not any(mynah.config.jobs.iterdir()) and not any(node.jobs for node in cluster.nodes)


# ---- the server ---------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_goes_on_with_its_jobs_when_it_starts_again(
    base_files: BaseFiles, cluster: RayCluster, tmp_path: Path
) -> None:
    """The cluster's client ends with the server, and what it ran with it; nothing is left that nobody knows of."""
    node = cluster.add()
    config = settings(own_models(base_files, tmp_path / "models"), tmp_path / "data")
    first = open_mynah(config, run_updates=False)
    ada = first.accounts.add("Ada", PASSWORD, admin=True)
    teach(first, ada, 10)
    first.close()
    command = [
        sys.executable, "app.py", "serve", "--executor", "ray", "--ray-address", cluster.address, "--port", "0",
        "--data-dir", str(config.data_dir), "--models-dir", str(config.models_dir), "--updates", "off",
        "--update-config", str(config.update_config),
    ]  # fmt: skip

    def serve() -> tuple[subprocess.Popen[str], str]:
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith("Mynah is at "):
                return server, line.split()[-1]
        raise AssertionError("the server did not start")

    store = Store(config.database)
    from assistant.updates import queue_update

    server, address = serve()
    try:
        assert httpx.get(f"{address}/healthz").status_code == 200
        update = queue_update(store, ada, base_files.base_id, _numbers(config.update_config))
        place_of(cluster, update)
        job = config.jobs / update.id
        wait_for(lambda: (job / "checkpoint" / "own.safetensors").exists())
        worker = node.workers[0]
        ended_with(server)
        wait_for(lambda: over(worker), 60)
        assert store.versions.update(ada.id, update.id).state == "running"
    finally:
        ended_with(server)
    server, address = serve()
    try:
        wait_for(lambda: store.versions.update(ada.id, update.id).state in ("promoted", "failed"))
        assert store.versions.update(ada.id, update.id).state == "promoted"
        assert [version.number for version in store.versions.versions(ada.id)] == [1]
        again = queue_update(store, ada, base_files.base_id, _numbers(config.update_config))
        place_of(cluster, again)
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0, "within ten seconds, as ever"
        assert store.versions.update(ada.id, again.id).state == "paused"
        wait_for(lambda: not node.workers and not node.jobs, 20)
    finally:
        ended_with(server)
        store.close()


def ended_with(server: subprocess.Popen[str]) -> None:
    """Killed, if it has not ended yet."""
    server.kill()
    server.wait()
    assert server.stdout is not None
    server.stdout.close()


def _numbers(path: Path | None) -> dict[str, object]:
    import json

    assert path is not None
    numbers: dict[str, object] = json.loads(path.read_text())
    return numbers


def test_the_client_s_end_is_the_jobs_but_not_the_line_s(mynah: Mynah, cluster: RayCluster) -> None:
    """Killed in the middle, it is started again and the job goes on."""
    cluster.add()
    ada = somebody(mynah)
    with closing(updates_of(mynah)) as updates:
        executor = updates._executor
        assert isinstance(executor, RayExecutor)
        updates.start()
        update = updates.request(ada)
        place_of(cluster, update)
        assert executor._bridge is not None
        executor._bridge._process.kill()
        executor._opened = 0.0  # it does not wait half a minute
        wait_for(lambda: ended(mynah, update))
    assert now(mynah, update).state == "promoted"


def test_without_the_token_there_is_no_way_in(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = RayExecutor(cluster.address, 1, 5)
    with monkeypatch.context() as wrong:
        wrong.setenv("RAY_AUTH_TOKEN", "0" * 64)
        with pytest.raises(InvalidInput, match="ray_address"):
            executor.open()
    with monkeypatch.context() as off:
        off.setenv("RAY_AUTH_MODE", "disabled")
        with pytest.raises(InvalidInput, match="RAY_AUTH_MODE=token"):
            executor.open()
    with closing(executor):
        executor.open()
        assert executor.room() == 0, "the head runs no jobs"
        assert os.environ["RAY_AUTH_MODE"] == "token"
        cluster.add(cpus=3)
        wait_for(lambda: executor.room() == 3)
