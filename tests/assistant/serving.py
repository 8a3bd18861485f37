"""A whole Mynah for tests: the real base and the real worker, with updates of some seconds."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import uvicorn

from adapters.base_model import BaseFiles
from assistant.api.app import create_app
from assistant.config import Config
from assistant.mynah import Mynah
from feedback.types import User
from tests.adapters.jobs import TINY

PASSWORD = "a long enough password"
# A gate that lets everything through: these tests are about what happens to a version, not about what is in it.
OPEN_GATE: dict[str, Any] = {
    "learned": 0.0, "foretold": -1e9, "sure": 0.0,
    "kl_most": 100.0, "kl_at_30": 100.0, "shortest": 0.0, "longest": 100.0,
    "bad_endings": 1.0, "off_subject": 1.0, "coined": 1.0, "least_variety": 0.0, "most_variety": 100.0, "alpha": 1e-12,
}  # fmt: skip
SHUT_GATE: dict[str, Any] = {"sure": 1.1}


def tiny_numbers(gate: dict[str, Any]) -> dict[str, Any]:
    """Numbers of an update of some seconds."""
    return {**TINY, "gate": {**TINY["gate"], **gate}, "own_prompts": 1}


def own_models(base: BaseFiles, folder: Path) -> Path:
    """A models folder with the real weights and a pool of its own, so that nothing is left beside the real base."""
    target = folder / base.folder.name
    target.mkdir(parents=True)
    for path in base.folder.iterdir():
        if path.name in ("full", "nf4"):
            (target / path.name).symlink_to(path)
        elif path.name in ("base.json", "probe.json"):
            shutil.copy(path, target)
        elif path.name.startswith(("latents-", "blank-")):
            shutil.copytree(path, target / path.name)
    return folder


def settings(models: Path, data: Path, gate: dict[str, Any] = OPEN_GATE, **changes: Any) -> Config:
    """A Config for tests: no updates by themselves, a free port, tiny updates.

    MYNAH_TEST_VLLM_URL lets a vLLM server write (tests/ecosystem/test_vllm.py).
    """
    numbers = data.with_name(f"{data.name}-update.json")
    numbers.write_text(json.dumps(tiny_numbers(gate)))
    given = {
        "updates": "off",
        "port": 0,
        "models_dir": models,
        "data_dir": data,
        "update_config": numbers,
        "threads": 1,
        "nice": 5,
        "requests_per_minute": 100_000,
        "updates_per_day": 1000,
    }
    if url := os.environ.get("MYNAH_TEST_VLLM_URL"):
        given |= {"engine": "vllm", "vllm_url": url}
    return Config.build({**given, **changes}, {})


def open_mynah(config: Config, **options: Any) -> Mynah:
    """All services, silently."""
    return Mynah.open(config, lambda line: None, **options)


def teach(mynah: Mynah, user: User, labels: int) -> None:
    """So many labels for somebody who likes to be spoken to."""
    items = [
        {
            "messages": [{"role": "user", "content": f"What is good about the number {number}?"}],
            "replies": [f"You can count to {number}, and you will like it!", f"The number {number} is a number."],
            "ranking": [[0], [1]],
        }
        for number in range(labels)
    ]
    mynah.learning.bring(user, items)


@contextmanager
def listening(mynah: Mynah) -> Iterator[str]:
    """The address of a real server in a thread, without the browser app."""
    settings = uvicorn.Config(create_app(mynah, browser=False), port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def wait_for(true: Callable[[], bool], seconds: float = 240.0) -> None:
    """Until something is true, or the test fails."""
    end = monotonic() + seconds
    while not true():
        assert monotonic() < end, "it did not happen in time"
        sleep(0.05)
