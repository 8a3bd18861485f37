"""A Mynah for other projects' programs to talk to, and somebody who uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.base_model import BaseFiles
from assistant.mynah import Mynah
from feedback.types import User
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    """All services, with short replies."""
    folder = tmp_path_factory.mktemp("mynah")
    config = settings(own_models(base_files, folder / "models"), folder / "data", max_tokens=32)
    opened = open_mynah(config, run_updates=False)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def ada(mynah: Mynah) -> User:
    return mynah.accounts.add("Ada", PASSWORD)
