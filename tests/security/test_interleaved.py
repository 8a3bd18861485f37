"""Replies of several people, written together on one model in full precision, are those that each gets alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
ROUNDING = 1e-6  # of single precision, in a share of one


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> VersionFiles:
    return VersionFiles(Path(tmp_path_factory.mktemp("interleaved")))


@pytest.fixture(scope="module")
def exact(base_files: BaseFiles) -> tuple[Any, Policy]:
    """The unquantized model, and the policy over it."""
    model, tokenizer = load_unquantized(base_files)
    return model, Policy(model.requires_grad_(False), tokenizer, base_files.base_id)


@pytest.fixture(scope="module")
def engine(base_files: BaseFiles, files: VersionFiles, exact: tuple[Any, Policy]) -> Iterator[Engine]:
    running = Engine(base_files, files, policy=exact[1])
    running.start()
    yield running
    running.close()


def drawn_on_the_edge(
    exact: tuple[Any, Policy], ask: Ask, folder: Path, draft: int, one: list[int], other: list[int]
) -> bool:
    """Whether two replies part where a draw falls between the two tokens, but for rounding: sums of other lengths round
    otherwise, and a draw may lie so near to where one token's share ends that it is chance which it takes. draft: which
    of those that were asked for."""
    model, policy = exact
    place = next(i for i, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs)
    random = torch.Generator().manual_seed(ask.sampling.seed)
    draw = [float(torch.rand(ask.copies, generator=random)[draft]) for _ in range(place + 1)][place]
    policy.load_adapter("edge", folder)
    policy.use("edge")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*policy.render(ask.messages), *one[:place]]])).logits[0, -1].double()
    policy.drop_adapter("edge")
    ends = torch.softmax(logits / ask.sampling.temperature, -1).cumsum(-1)
    return all(ends[token - 1] - ROUNDING <= draw <= ends[token] + ROUNDING for token in (one[place], other[place]))


def test_many_at_once_get_what_each_gets_alone(
    engine: Engine, files: VersionFiles, policy: Policy, exact: tuple[Any, Policy]
) -> None:
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

    count, on_the_edge = cases(200), 0
    alone = [engine.write(asked(number)).result(timeout=60).drafts for number in range(count)]
    for start in range(0, count, 20):
        together = [engine.write(asked(number)) for number in range(start, min(start + 20, count))]
        for number, writing in enumerate(together, start=start):
            drafts = writing.result(timeout=120).drafts
            if ids(drafts) != ids(alone[number]):
                ask = asked(number)
                assert ask.sampling.temperature > 0 and ask.adapter is not None
                folder = files.path(ask.user_id, ask.adapter.number)
                for draft, (one, other) in enumerate(zip(ids(drafts), ids(alone[number]), strict=True)):
                    assert one == other or drawn_on_the_edge(exact, ask, folder, draft, one, other)
                on_the_edge += 1
                continue
            for mine, theirs in zip(drafts, alone[number], strict=True):
                # to the last bit only where the fused 4-bit kernel multiplies (tests/assistant/test_engine.py)
                np.testing.assert_allclose(mine.latent, theirs.latent, atol=1e-3)
    assert on_the_edge <= max(1, count / 100)
    said_by = {name: {tuple(d.ids) for n in range(count) if PEOPLE[n % 4] == name for d in alone[n]} for name in PEOPLE}
    assert len({frozenset(replies) for replies in said_by.values()}) == len(PEOPLE), "adapters too alike to tell"
