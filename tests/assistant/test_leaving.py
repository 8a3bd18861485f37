"""What is being written when the server ends: with nobody's request open, as in the browser, and with one cut off."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.base_model import BaseFiles
from assistant.api.chat import _events
from assistant.requests import ChatRequest
from assistant.ui.live import LiveTurns
from feedback.errors import Busy
from feedback.store import Store
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings, teach, wait_for


@pytest.mark.parametrize("arm", ["base", "rerank"])
def test_a_reply_that_is_being_written_is_kept(base_files: BaseFiles, tmp_path: Path, arm: str) -> None:
    mynah = open_mynah(settings(own_models(base_files, tmp_path / "models"), tmp_path / "data"))
    ada = mynah.accounts.add("Ada", PASSWORD)
    teach(mynah, ada, 3)
    chat = mynah.chat.open(ada).id
    turn = mynah.chat.send(ada, chat, "Tell me a very long story.", arm=arm, seed=1, max_tokens=1500)
    live = LiveTurns().begin(ada, chat, turn, "Tell me a very long story.")
    waits = mynah.chat.send(ada, mynah.chat.open(ada).id, "And a word.", arm="base", max_tokens=4)
    wait_for(lambda: turn.parts[0].writing.tokens > 8)
    mynah.close()
    wait_for(lambda: live.done)
    assert live.error is None
    store = Store(mynah.config.database)
    said, told = store.chats.messages(chat)
    assert said.content == "Tell me a very long story." and told.content == live.texts[0] != ""
    store.close()
    assert waits.done, "nobody waits for ever"


def test_nothing_new_is_begun(base_files: BaseFiles, tmp_path: Path) -> None:
    mynah = open_mynah(settings(own_models(base_files, tmp_path / "models"), tmp_path / "data"))
    ada = mynah.accounts.add("Ada", PASSWORD)
    mynah.engine.leave_off()
    with pytest.raises(Busy, match="shutting down"):
        mynah.chat.send(ada, mynah.chat.open(ada).id, "Hello")
    mynah.close()


def test_a_stream_that_is_cut_off_keeps_what_was_written(base_files: BaseFiles, tmp_path: Path) -> None:
    """As uvicorn does with requests that outlast its patience: a thread may be waiting for the next piece."""
    mynah = open_mynah(settings(own_models(base_files, tmp_path / "models"), tmp_path / "data"))
    ada = mynah.accounts.add("Ada", PASSWORD)
    turn = mynah.chat.start(
        ada, ChatRequest([{"role": "user", "content": "Tell me a story."}], "base", max_tokens=1500)
    )

    async def read() -> None:
        async for _ in _events(turn, {}, usage=False):
            pass

    async def cancelled() -> None:
        reading = asyncio.create_task(read())
        while turn.parts[0].writing.tokens < 8:
            await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    with ThreadPoolExecutor() as pool:  # this thread may have a loop: the browser tests' one stays
        pool.submit(asyncio.run, cancelled()).result()
    (kept,) = mynah.store.chats.all_replies(ada.id)
    assert kept.id == turn.reply_ids[0] and kept.text
    mynah.close()
