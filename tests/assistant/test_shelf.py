"""Adapters in the engine, on the real model: loaded on demand, each its own person's, and what a bad one breaks."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.versions import VersionFiles
from assistant.engine import Ask, Engine
from assistant.shelf import Shelf
from feedback.errors import CorruptFile
from tests.assistant.conftest import SEA, Maker
from tests.assistant.test_engine import ask, write


def test_two_people_asked_in_turn_fifty_times_never_mix(engine: Engine, maker: Maker) -> None:
    adapters = {
        name: maker.version(name, seed=seed, scale=1.0) for seed, name in enumerate(("u_ada", "u_bob"), start=1)
    }
    questions = ["Tell me about the sea.", "How do I bake bread?", "Who are you?"]

    def asked(name: str, number: int) -> Ask:
        return ask(
            questions[number % 6 // 2],
            adapter=adapters[name],
            tokens=2,
            user_id=name,
            temperature=0.7 * (number % 2),
            seed=3,
        )

    # each request is written alone first
    alone = {(name, number): write(engine, asked(name, number)).drafts[0] for name in adapters for number in range(6)}
    for number in range(6):
        assert alone["u_ada", number].ids != alone["u_bob", number].ids, "adapters that differ too little to tell"
    for number in range(50):
        together = {name: engine.write(asked(name, number)) for name in adapters}
        for name, writing in together.items():
            draft = writing.result(timeout=60).drafts[0]
            assert draft.ids == alone[name, number % 6].ids
            assert draft.latent.tobytes() == alone[name, number % 6].latent.tobytes()
    assert write(engine, ask(tokens=2)).drafts[0].ids not in [draft.ids for draft in alone.values()]


def test_latent_features_do_not_depend_on_the_adapter(engine: Engine, maker: Maker) -> None:
    written = write(engine, ask(adapter=maker.version("u_eve"), tokens=16, user_id="u_eve")).drafts[0]
    read = engine.read(SEA, [written.text])[0]  # reads with the adapter off
    assert np.corrcoef(read.latent, written.latent)[0, 1] > 0.98


def test_a_corrupted_adapter_fails_its_own_request_only(engine: Engine, maker: Maker) -> None:
    good, bad = maker.version("u_good", seed=1), maker.version("u_bad", seed=2)
    weights = maker.files.path("u_bad", 1) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    before = write(engine, ask(adapter=good)).drafts[0].ids
    other = engine.write(ask(adapter=good, user_id="u_good"))
    broken = engine.write(ask(adapter=bad, user_id="u_bad"))
    with pytest.raises(CorruptFile, match="v1 cannot be used"):
        broken.result(timeout=60)
    with pytest.raises(CorruptFile):
        list(broken.pieces())
    assert other.result(timeout=60).drafts[0].ids == before
    assert "u_bad-v1" not in engine.policy.adapters


def test_an_adapter_that_is_missing_or_of_another_rank_is_corrupt_too(engine: Engine, maker: Maker) -> None:
    version = maker.version("u_gone")
    maker.files.remove("u_gone")
    with pytest.raises(CorruptFile):
        write(engine, ask(adapter=version))
    assert write(engine, ask()).drafts[0].ids


def test_forgetting_a_person_ends_their_writing_and_drops_their_adapters(engine: Engine, maker: Maker) -> None:
    version = maker.version("u_leaving")
    writing = engine.write(ask(adapter=version, tokens=400, user_id="u_leaving"))
    next(writing.pieces())
    assert "u_leaving-v1" in engine.shelf.names
    engine.forget("u_leaving")
    writing.result(timeout=30)
    write(engine, ask(tokens=1))
    assert "u_leaving-v1" not in engine.shelf.names
    assert "u_leaving-v1" not in engine.policy.adapters


def test_the_shelf_drops_what_was_not_used_for_longest(maker: Maker, version_files: VersionFiles) -> None:
    shelf = Shelf(maker.policy, version_files, room=2)
    versions = [maker.version("u_shelf", number) for number in (1, 2, 3)]
    first = shelf.take(versions[0])
    for version in versions[1:]:
        shelf.give(shelf.take(version))
    assert shelf.names == ["u_shelf-v1", "u_shelf-v3"]  # v1 is in use, so v2 had to go
    shelf.give(first)
    shelf.give(shelf.take(versions[1]))
    assert shelf.names == ["u_shelf-v3", "u_shelf-v2"]
    assert sorted(maker.policy.adapters) == ["u_shelf-v2", "u_shelf-v3"]
