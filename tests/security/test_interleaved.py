"""Replies of several people, written together on one model in full precision, are those that each gets alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adapters.base_model import BaseFiles, load_unquantized
from adapters.decoding import Sampling
from adapters.policy import Policy
from adapters.versions import VersionFiles
from assistant.engine import Ask, Draft, Engine
from tests.assistant.conftest import Maker, said
from tests.soak import cases

PEOPLE = ("u_ada", "u_bob", "u_cleo", "u_dan")
QUESTIONS = ("Tell me about the sea.", "How do I bake bread?", "Who are you?", "Name three birds.", "What is rain?")
TOKENS = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> VersionFiles:
    return VersionFiles(Path(tmp_path_factory.mktemp("interleaved")))


@pytest.fixture(scope="module")
def engine(base_files: BaseFiles, files: VersionFiles) -> Iterator[Engine]:
    model, tokenizer = load_unquantized(base_files)
    running = Engine(base_files, files, policy=Policy(model.requires_grad_(False), tokenizer, base_files.base_id))
    running.start()
    yield running
    running.close()


def test_many_at_once_get_what_each_gets_alone(engine: Engine, files: VersionFiles, policy: Policy) -> None:
    maker = Maker(policy, files)
    versions = {name: maker.version(name, seed=seed, scale=0.5) for seed, name in enumerate(PEOPLE, start=1)}

    def asked(number: int) -> Ask:
        """Everybody in turn, every question, drafts of one and of three, greedy and drawn."""
        name = PEOPLE[number % len(PEOPLE)]
        sampling = Sampling(0.8 * (number % 3 > 0), 1.0, TOKENS, number)
        question = said(QUESTIONS[number // len(PEOPLE) % len(QUESTIONS)])
        return Ask(question, versions[name], 1 + 2 * (number % 2), sampling, user_id=name)

    def ids(drafts: list[Draft]) -> list[list[int]]:
        return [draft.ids for draft in drafts]

    count = cases(200)
    alone = [engine.write(asked(number)).result(timeout=60).drafts for number in range(count)]
    for start in range(0, count, 20):
        together = [engine.write(asked(number)) for number in range(start, min(start + 20, count))]
        for number, writing in enumerate(together, start=start):
            drafts = writing.result(timeout=120).drafts
            assert ids(drafts) == ids(alone[number])
            for mine, theirs in zip(drafts, alone[number], strict=True):
                # to the last bit only where the fused 4-bit kernel multiplies (tests/assistant/test_engine.py)
                np.testing.assert_allclose(mine.latent, theirs.latent, atol=1e-3)
    said_by = {name: {tuple(d.ids) for n in range(count) if PEOPLE[n % 4] == name for d in alone[n]} for name in PEOPLE}
    assert len({frozenset(replies) for replies in said_by.values()}) == len(PEOPLE), "adapters too alike to tell"
