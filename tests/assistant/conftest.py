"""A real engine over the real base, started once for all tests here, and the services over a store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from adapters.base_model import BaseFiles
from adapters.policy import Policy
from adapters.rendering import ChatMessage
from adapters.versions import VersionFiles
from assistant.chat import Chat, ChatRequest
from assistant.config import Config
from assistant.engine import Engine
from assistant.learning import Learning
from assistant.limits import Limits
from assistant.turn import Turn
from assistant.vllm_base import OwnBase
from feedback.store import Store
from feedback.types import AdapterVersion, User, now
from tests.assistant.fake_vllm import FakeVllm


@dataclass(frozen=True)
class Service:
    """Everything a person talks to, without HTTP."""

    store: Store
    engine: Engine
    learning: Learning
    limits: Limits
    chat: Chat
    ada: User
    bob: User


@dataclass(frozen=True)
class Maker:
    """Makes adapter versions that speak differently from the base."""

    policy: Policy
    files: VersionFiles

    def version(self, user_id: str, number: int = 1, *, seed: int = 1, scale: float = 0.05) -> AdapterVersion:
        """A version on disk whose B is drawn from a seed, so that its replies are its own."""
        name = f"made-{seed}"
        self.policy.new_adapter(name)
        random = torch.Generator().manual_seed(seed)
        state = {
            key: torch.randn(tensor.shape, generator=random) * scale if "lora_B" in key else tensor
            for key, tensor in self.policy.adapter_state(name).items()
        }
        self.policy.drop_adapter(name)
        manifest = self.files.write(user_id, number, state, self.policy.lora_config(), {"seed": seed})
        return AdapterVersion(
            user_id=user_id,
            number=number,
            base_id=self.policy.base_id,
            status="probation",
            parent=None,
            update_id=None,
            first_label=0,
            last_label=0,
            seed=seed,
            config={},
            metrics={},
            gate=[],
            manifest_sha256=manifest,
            created_at=now(),
        )


@pytest.fixture(scope="session")
def version_files(tmp_path_factory: pytest.TempPathFactory) -> VersionFiles:
    """Where the versions of these tests lie."""
    return VersionFiles(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="session")
def engine(base_files: BaseFiles, version_files: VersionFiles) -> Iterator[Engine]:
    """A running engine with a policy of its own."""
    running = Engine(base_files, version_files)
    running.start()
    yield running
    running.close()


@pytest.fixture
def maker(policy: Policy, version_files: VersionFiles) -> Maker:
    """Versions for the engine to load."""
    return Maker(policy, version_files)


@pytest.fixture
def service(store: Store, engine: Engine, version_files: VersionFiles) -> Service:
    """Two people, nothing said yet; replies are short."""
    learning, limits = Learning(store, engine), Limits(store, version_files, Config())
    chat = Chat(store, engine, learning, limits, max_tokens=12)
    ada, bob = (store.people.add(name, name, "hash") for name in ("ada", "bob"))
    return Service(store, engine, learning, limits, chat, ada, bob)


def said(text: str) -> list[ChatMessage]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


SEA = said("Tell me about the sea.")


def start(service: Service, user: User | None = None, **request: Any) -> Turn:
    """Ask about the sea, for 6 tokens."""
    return service.chat.start(
        user or service.ada, ChatRequest(**{"messages": SEA, "max_tokens": 6, "seed": 1, **request})
    )


def promote(service: Service, version: AdapterVersion) -> AdapterVersion:
    """Make a version the active one."""
    service.store.versions.add(version, activate=True, update_state="promoted")
    return version


def like_short(service: Service, user: User, labels: int = 12) -> None:
    """A strong taste for very short replies."""
    long = (
        "It is a very large body of salt water that covers most of the planet and is home to many animals and plants."
    )
    service.learning.bring(
        user,
        [
            {"messages": said(f"What is sea number {number}?"), "replies": [long, "Salt water."], "ranking": [[1], [0]]}
            for number in range(labels)
        ],
    )


# ---- a model server -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(base_files: BaseFiles, loaded_policy: Policy) -> Iterator[FakeVllm]:
    server = FakeVllm(OwnBase(base_files, loaded_policy))
    yield server
    server.kill()


@pytest.fixture
def fake(running: FakeVllm) -> Iterator[FakeVllm]:
    yield running
    running.as_new()
    if not running.alive:
        running.start()
