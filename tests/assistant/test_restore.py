"""A backup of a live system, restored where nothing was: the same people, heads and versions, the same answers to the
same seeds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from adapters.base_model import BaseFiles
from adapters.latents import Latents
from assistant.backup import backup, restore
from assistant.chat import ChatRequest
from assistant.mynah import Mynah
from feedback.types import ArmName, User
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings, teach

ARMS: tuple[ArmName, ...] = ("base", "context", "rerank", "adapter", "adapter+rerank")
QUESTION = [{"role": "user", "content": "How do I keep bees?"}]


def answers(mynah: Mynah, user: User) -> dict[str, tuple[str, int | None]]:
    """What every arm says, and by which version."""
    found = {}
    for arm in ARMS:
        (reply,) = mynah.chat.start(user, ChatRequest(QUESTION, arm=arm, max_tokens=6, seed=7)).replies()
        found[arm] = (reply.text, reply.version)
    return found


def test_the_same_answers_on_an_empty_machine(base_files: BaseFiles, tmp_path: Path) -> None:
    config = settings(own_models(base_files, tmp_path / "models"), tmp_path / "data")
    file = tmp_path / "saved.zip"
    first = open_mynah(config, run_updates=False)
    try:
        user = first.accounts.add("Ada", PASSWORD)
        teach(first, user, 12)
        assert first.updates.run_here(user).state == "promoted"
        axes = first.engine.latents.directions
        said, head = answers(first, user), first.learning.head(user.id)
        backup(config, file)
        teach(first, user, 13)  # what came after the backup is not in it
    finally:
        first.close()

    elsewhere = replace(
        config, data_dir=tmp_path / "new", models_dir=own_models(base_files, tmp_path / "other machine" / "models")
    )
    turned = 0
    for folder in (tmp_path / "other machine" / "models").glob("*/latents-*"):
        latents = Latents.read(folder)
        shutil.rmtree(folder)
        replace(latents, directions=-latents.directions[::-1]).save(folder)
        turned += 1
    assert turned, "there the base is described along other axes"
    restore(elsewhere, file)
    second = open_mynah(elsewhere, run_updates=False)
    try:
        same = second.accounts.find("Ada")
        assert second.accounts.sign_in("Ada", PASSWORD) and same.id == user.id
        again = second.learning.head(same.id)
        assert (again.mean.tobytes(), again.cov.tobytes()) == (head.mean.tobytes(), head.cov.tobytes())
        assert np.array_equal(second.engine.latents.directions, axes)
        assert said["adapter"][1] == 1 and answers(second, same) == said
    finally:
        second.close()
