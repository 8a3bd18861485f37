"""What the tests share: the real base model, prepared once a machine, and the policy over it, loaded once a run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.base_model import DEFAULT_BASE, BaseFiles, prepare_base
from adapters.latents import Latents, latents_for
from adapters.policy import Policy
from feedback import types
from feedback.store import Store


class WallClock:
    """The wall clock, as somebody has set it who may set it again at any time."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def put(self, **ahead: float) -> None:
        """So far ahead of the real time: days=1, hours=-5, …"""
        self.ahead = timedelta(**ahead)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Where prepared bases lie: the same folder that `make run` uses, so that the download happens once."""
    from assistant.config import default_models_dir

    return default_models_dir()


@pytest.fixture(scope="session")
def base_files(models_dir: Path) -> BaseFiles:
    """The embedded base in NF4."""
    return prepare_base(DEFAULT_BASE, models_dir, "nf4")


@pytest.fixture(scope="session")
def loaded_policy(base_files: BaseFiles) -> Policy:
    """The one policy of the run; tests take `policy`, which cleans up."""
    return Policy.load(base_files)


@pytest.fixture
def policy(loaded_policy: Policy) -> Iterator[Policy]:
    """The real policy without any adapter; whatever a test adds is dropped afterwards."""
    yield loaded_policy
    for name in loaded_policy.adapters:
        loaded_policy.drop_adapter(name)


@pytest.fixture(scope="session")
def latents(base_files: BaseFiles, loaded_policy: Policy) -> Latents:
    """Directions fitted to the embedded base."""
    return latents_for(base_files, loaded_policy)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """The clock that everything reads, for a test to move."""
    clock = WallClock()
    monkeypatch.setattr(types, "wall", clock)
    return clock


@pytest.fixture
def store() -> Iterator[Store]:
    """A store in memory."""
    opened = Store(None)
    yield opened
    opened.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that none of it is left for one process alone in the end."""
    items.sort(key=lambda item: not ({"security", "browser"} & set(item.path.parts)))
