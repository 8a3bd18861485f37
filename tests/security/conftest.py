"""One Mynah with its browser pages for all tests here: the real base, short replies, updates that only wait in line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI

from adapters.base_model import BaseFiles
from adapters.policy import Policy
from assistant.api.app import create_app
from assistant.mynah import Mynah
from tests.assistant.serving import open_mynah, own_models, settings
from tests.security.world import World


@pytest.fixture(scope="session")
def world(base_files: BaseFiles, loaded_policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server, an admin, and Ada, whose things the tests try to reach."""
    folder = tmp_path_factory.mktemp("security")
    config = settings(own_models(base_files, folder / "models"), folder / "data", max_tokens=4)
    mynah = open_mynah(config, run_updates=False)
    with ThreadPoolExecutor(1) as thread:  # this thread's loop may be the browser tests' own
        app = thread.submit(asyncio.run, _app(mynah)).result()
    yield World(mynah, app, loaded_policy)
    mynah.close()


async def _app(mynah: Mynah) -> FastAPI:
    """The application, built where an event loop runs, as in a server: else Gradio opens some and closes none."""
    return create_app(mynah)
