"""Replies by a model server: whose they are, what is shown, and what happens when it is away or is another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.base_model import BaseFiles
from adapters.decoding import Sampling
from adapters.policy import Policy
from adapters.versions import VersionFiles
from assistant import vllm
from assistant import writing as writing_module
from assistant.engine import Ask, Draft, Engine
from assistant.vllm import ModelServer
from assistant.vllm_http import RETRY_SECONDS
from assistant.writing import Written
from feedback.errors import ModelServerError
from feedback.types import AdapterVersion
from tests.assistant.conftest import Maker, said
from tests.assistant.fake_vllm import BASE, FakeVllm
from tests.assistant.serving import wait_for

SEA = said("Tell me about the sea.")


@pytest.fixture(scope="module")
def far(base_files: BaseFiles, version_files: VersionFiles, running: FakeVllm) -> Iterator[Engine]:
    """An engine whose replies the server writes."""
    made = Engine(base_files, version_files, server_url=running.url)
    made.start()
    yield made
    made.close()


def ask(adapter: AdapterVersion | None = None, *, tokens: int = 8, copies: int = 1, seed: int = 1, **more: Any) -> Ask:
    user_id = adapter.user_id if adapter else "someone"
    return Ask(SEA, adapter, copies, Sampling(0.8, 0.9, tokens, seed), user_id=user_id, **more)


def write(engine: Engine, wanted: Ask) -> Written:
    return engine.write(wanted).result(timeout=60)


def keeping_last(seen: list[Draft]) -> Callable[[Sequence[Draft]], list[int]]:
    """A choice that remembers what it was shown."""

    def choose(drafts: Sequence[Draft]) -> list[int]:
        seen.extend(drafts)
        return [len(drafts) - 1]

    return choose


def name_of(version: AdapterVersion) -> str:
    return f"{version.user_id}-v{version.number}-{version.manifest_sha256[:12]}"


# ---- what is written ----------------------------------------------------------------------------------------------


def test_tokens_go_there_and_come_back_as_text(fake: FakeVllm, far: Engine) -> None:
    writing = far.write(ask(tokens=12, seed=7))
    pieces = "".join(text for _, text in writing.pieces())
    written = writing.result()
    (draft,) = written.drafts
    assert draft.text == pieces == far.text(draft.ids) and draft.text.startswith("mynah-base-")
    assert (len(draft.ids), draft.ended, draft.finish) == (12, False, "length")
    assert written.prompt_tokens == len(far.render(SEA).ids)
    (body,) = fake.asked
    assert body["prompt"] == far.render(SEA).ids, "a text would be tokenized there, control tokens and all"
    assert body["model"] != BASE, "rows without an adapter are not safe beside others on every vLLM"
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (0.8, 0.9, 12, 7)
    assert (body["top_k"], body["repetition_penalty"]) == (0, 1.0), "else the model's own defaults would count"
    assert set(body["stop_token_ids"]) == far.renderer.end_ids


def test_a_reply_that_ends_by_itself_has_ended(fake: FakeVllm, far: Engine) -> None:
    fake.ends_after = 5
    (draft,) = write(far, ask()).drafts
    assert (len(draft.ids), draft.ended, draft.finish) == (5, True, "stop")
    assert draft.ids[-1] in far.renderer.end_ids and "<|" not in draft.text


def test_a_stop_string_ends_it_and_is_not_shown(fake: FakeVllm, far: Engine) -> None:
    fake.pause = 0.01
    (draft,) = write(far, replace(ask(tokens=300), stop=(" goes on",))).drafts
    assert draft.text.startswith("mynah-base-") and draft.text.endswith(" with 1") and draft.finish == "stop"
    wait_for(lambda: fake.broken_off == 1, 5)


def test_drafts_have_seeds_of_their_own_and_are_told_apart_by_their_beginnings(
    fake: FakeVllm, far: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_module, "NARROW_AT", 30)
    fake.pause = 0.05
    seen: list[Draft] = []
    writing = far.write(ask(copies=6, tokens=100, stream=False, narrow=keeping_last(seen)))
    pieces = list(writing.pieces())
    (draft,) = writing.result().drafts
    assert len({each.text for each in seen}) == 6
    assert len(draft.ids) == 100 and draft.text.startswith(seen[5].text)
    assert "".join(text for _, text in pieces) == draft.text and {row for row, _ in pieces} == {0}
    wait_for(lambda: fake.broken_off == 5, 5)
    assert len({body["seed"] for body in fake.asked}) == 6


def test_the_best_beginnings_take_the_place_of_the_others(
    fake: FakeVllm, far: Engine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far ahead the server is; what it still sends of a draft that was given up is not taken for its own."""
    monkeypatch.setattr(writing_module, "RESAMPLE_AT", 20)
    monkeypatch.setattr(writing_module, "NARROW_AT", 44)
    for fake.pause in (0.0, 0.02):
        fake.asked.clear()
        halves, ends = list[Draft](), list[Draft]()

        def resample(drafts: Sequence[Draft], unfinished: Collection[int], halves: list[Draft] = halves) -> Any:
            halves.extend(drafts)
            return {0: 3, 2: 1}

        asked = ask(copies=4, tokens=80, stream=False, narrow=keeping_last(ends), resample=resample)
        (draft,) = write(far, asked).drafts
        begun = far.render(SEA).ids
        *first, one, other = fake.asked
        assert [each["prompt"] for each in first] == [begun] * 4
        assert sorted(map(tuple, (one["prompt"], other["prompt"]))) == sorted(
            (*begun, *halves[row].ids) for row in (1, 3)
        )
        assert one["max_tokens"] == other["max_tokens"] == 60 and len({each["seed"] for each in fake.asked}) == 6
        assert [each.ids[:20] for each in ends] == [halves[row].ids for row in (3, 1, 1, 3)]
        assert len({each.text for each in ends}) == 4 and [len(each.ids) for each in ends] == [44] * 4
        for each in ends[:2]:
            (read,) = engine.read(SEA, [each.text])
            assert np.corrcoef(each.latent, read.latent)[0, 1] > 0.98
        assert len(draft.ids) == 80 and draft.text.startswith(ends[3].text)


def test_what_the_head_sees_is_what_the_base_here_makes_of_it(fake: FakeVllm, far: Engine, engine: Engine) -> None:
    long = said("The sea is wide, and a keeper lives in the lighthouse at its end. " * 40)  # several pieces
    for messages, tokens in ((long, 24), (SEA, 300)):
        seen: list[Draft] = []
        asked = Ask(
            messages, None, 6, Sampling(0.8, 1.0, tokens, 3), user_id="someone", stream=False, narrow=keeping_last(seen)
        )
        (kept,) = far.write(asked).result(timeout=60).drafts
        for draft in (seen[0], kept):
            read = engine.read(messages, [draft.text])[0]
            assert np.corrcoef(draft.latent, read.latent)[0, 1] > 0.98
            assert draft.subject == pytest.approx(read.subject, abs=0.05)


def test_stopping_closes_the_connection(fake: FakeVllm, far: Engine) -> None:
    fake.pause = 0.02
    writing = far.write(ask(tokens=2000))
    next(writing.pieces())
    writing.stop()
    (draft,) = writing.result(timeout=10).drafts
    assert 0 < len(draft.ids) < 100 and np.isfinite(draft.latent).all()
    wait_for(lambda: fake.broken_off == 1, 5)


def test_one_person_never_takes_all_of_the_server(fake: FakeVllm, far: Engine) -> None:
    fake.pause = 0.05
    flood = [far.write(ask(copies=16, tokens=200)) for _ in range(12)]
    begun = time.monotonic()
    write(far, Ask(SEA, None, 1, Sampling(0.8, 1.0, 4, 1), user_id="else"))
    assert not any(writing.done for writing in flood), f"they waited {time.monotonic() - begun:.1f} s"
    assert len([body for body in fake.asked if body["max_tokens"] == 200]) <= 48
    far.forget("someone")
    for writing in flood:
        writing.result(timeout=30)


# ---- whose it is --------------------------------------------------------------------------------------------------


def test_four_people_at_once_get_what_their_own_version_writes(fake: FakeVllm, far: Engine, maker: Maker) -> None:
    versions = [maker.version(f"u_far{number}", seed=number) for number in range(4)]
    for turn in range(3):
        together = [far.write(ask(version, seed=turn)) for version in versions]
        for version, writing in zip(versions, together, strict=True):
            (draft,) = writing.result(timeout=60).drafts
            assert far.text(draft.ids).startswith(name_of(version)[: len(draft.text)])
    loads = [name for name in fake.loads if name.startswith("u_far")]
    assert sorted(loads) == sorted(map(name_of, versions)), "each is loaded once"
    for version in versions:
        assert fake.adapters[name_of(version)] == str(maker.files.path(version.user_id, version.number))
    salts = {body["model"]: body["cache_salt"] for body in fake.asked}
    assert len(set(salts.values())) == 4, "what was read for one is not used for another"


@pytest.mark.parametrize("signs", [BASE, "u_x-v1-000000000000", ""])
def test_a_reply_of_another_version_is_never_shown(fake: FakeVllm, far: Engine, maker: Maker, signs: str) -> None:
    version = maker.version(f"u_sign{len(signs)}")
    fake.signs_as = signs or "nobody"
    writing = far.write(ask(version))
    shown = []
    with pytest.raises(ModelServerError, match="another version than yours"):
        for piece in writing.pieces():
            shown.append(piece)
    assert shown == []
    fake.signs_as = None
    assert write(far, ask(version)).drafts[0].ids


def test_an_adapter_that_is_listed_with_another_folder_writes_nothing(
    fake: FakeVllm, far: Engine, maker: Maker
) -> None:
    version, other = maker.version("u_root"), maker.version("u_other")
    fake.lists_root = str(maker.files.path(other.user_id, 1))
    with pytest.raises(ModelServerError, match="another version than yours"):
        write(far, ask(version))
    assert fake.asked == [], "nothing was asked of it"


def test_a_damaged_version_is_not_loaded(fake: FakeVllm, far: Engine, maker: Maker) -> None:
    version = maker.version("u_hurt")
    weights = maker.files.path("u_hurt", 1) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(Exception, match="v1 cannot be used"):
        write(far, ask(version))
    assert not [name for name in fake.loads if name.startswith("u_hurt")]


def test_a_person_who_is_forgotten_is_unloaded(fake: FakeVllm, far: Engine, maker: Maker) -> None:
    fake.pause = 0.02
    version = maker.version("u_leaving_far")
    writing = far.write(ask(version, tokens=2000))
    next(writing.pieces())
    assert name_of(version) in fake.adapters
    far.forget("u_leaving_far")
    assert name_of(version) not in fake.adapters
    assert len(writing.result(timeout=10).drafts[0].ids) < 2000


def test_what_was_not_used_for_longest_is_unloaded(
    fake: FakeVllm, far: Engine, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "ROOM", 2)
    versions = [maker.version("u_room", number) for number in (1, 2, 3)]
    for version in versions:
        write(far, ask(version, tokens=1))
    loaded = [name for name in fake.adapters if name.startswith("u_room")]
    assert loaded == [name_of(version) for version in versions[1:]]
    write(far, ask(versions[0], tokens=1))
    assert len([name for name in fake.loads if name.startswith("u_room")]) == 4


# ---- when it is away ----------------------------------------------------------------------------------------------


def test_killed_in_the_middle_and_started_again(fake: FakeVllm, far: Engine, maker: Maker) -> None:
    version = maker.version("u_again")
    fake.pause = 0.02
    writing = far.write(ask(version, tokens=1000))
    next(writing.pieces())
    fake.kill()
    with pytest.raises(ModelServerError, match="does not answer") as caught:
        writing.result(timeout=30)
    assert caught.value.retry_after == RETRY_SECONDS
    for _ in range(2):
        with pytest.raises(ModelServerError, match="does not answer"):
            far.write(ask(version))
    assert far.busy == 0, "nothing waits for a server that is away"
    assert far.read(SEA, ["It is wet."])[0].text == "It is wet.", "clicks need no server"
    fake.pause = 0.0
    fake.start()
    (draft,) = write(far, ask(version, tokens=16)).drafts
    assert draft.text.startswith("u_again-v1-")
    assert fake.loads.count(name_of(version)) == 2


def test_started_again_between_two_requests(fake: FakeVllm, far: Engine, maker: Maker) -> None:
    version = maker.version("u_between")
    write(far, ask(version))
    fake.kill()
    fake.start()
    assert write(far, ask(version, tokens=16)).drafts[0].text.startswith("u_between-v1-")


def test_started_again_with_another_base_it_writes_nothing(
    fake: FakeVllm, far: Engine, maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    version = maker.version("u_swapped")
    write(far, ask(version))
    fake.kill()
    fake.start()
    fake.off = 5.0
    with caplog.at_level(logging.ERROR), pytest.raises(ModelServerError, match="another base model"):
        write(far, ask(version))
    assert "5.00 nats a token" in caplog.text, "the log says why"
    fake.off = 0.0
    assert write(far, ask(version)).drafts[0].ids


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ({"breaks_after": 3}, "does not answer"),
        ({"garbage": '{"error": {"message": "engine dead", "code": 500}}'}, "does not answer"),
        ({"garbage": '{"model": "base-there", "choices": [{}]}'}, "another version than yours"),
        ({"garbage": "{not JSON"}, "does not understand"),
        ({"status": {"/v1/completions": 400}}, "refused what it was asked"),
        ({"status": {"/v1/load_lora_adapter": 500}}, "refused what it was asked"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_an_answer_that_is_none_ends_its_own_request_only(
    fake: FakeVllm, far: Engine, maker: Maker, turn: dict[str, Any], says: str
) -> None:
    version = maker.version(f"u_bad{abs(hash(str(turn))) % 10**6}")
    fake.__dict__.update(turn)
    with pytest.raises(ModelServerError, match=says):
        write(far, ask(version))
    fake.as_new()
    assert write(far, ask(version)).drafts[0].ids


def test_adapters_of_an_earlier_run_are_unloaded(
    fake: FakeVllm, base_files: BaseFiles, version_files: VersionFiles, loaded_policy: Policy, tmp_path: Path
) -> None:
    fake.adapters["u_gone-v1-aaaaaaaaaaaa"] = str(version_files.root / "u_gone" / "v1")
    fake.adapters["somebody-elses"] = str(tmp_path)
    fresh = ModelServer(fake.url, base_files, version_files, loaded_policy)
    assert str(base_files.full) in fresh.greet()
    assert "somebody-elses" in fake.adapters and "u_gone-v1-aaaaaaaaaaaa" not in fake.adapters
    fresh.close()
