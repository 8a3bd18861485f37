"""Requests on the real model: arms, versions, choices, what is stored, what is refused."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest

from adapters.base_model import BaseFiles
from adapters.decoding import Sampling
from adapters.rendering import DEFAULT_SYSTEM
from adapters.versions import VersionFiles
from assistant import turn as turn_module
from assistant import writing as writing_module
from assistant.arms import RERANK_DRAFTS
from assistant.chat import Chat, ChatRequest
from assistant.engine import Ask, Draft, Engine
from assistant.learning import Learning
from assistant.messages import group_of
from assistant.turn import Judge
from feedback.errors import Conflict, CorruptFile, InvalidInput, NotFound
from feedback.store import Store
from feedback.types import User
from tests.assistant.conftest import SEA, Maker, Service, like_short, promote, said, start

# ---- one request --------------------------------------------------------------------------------------------------


def test_a_reply_streams_and_is_kept_with_all_it_was_made_with(service: Service) -> None:
    turn = start(service, max_tokens=None)
    assert (turn.arm, turn.version, turn.dropped, len(turn.reply_ids)) == ("base", None, 0, 1)
    assert not turn.kept
    pieces = [text for _, text in turn.pieces() if text]
    assert len(pieces) > 3
    (reply,) = service.store.chats.replies(service.ada.id, turn.reply_ids)
    assert reply.text == "".join(pieces)
    assert (reply.arm, reply.version, reply.seed, reply.source, reply.learn) == ("base", None, 1, "chat", True)
    assert reply.base_id == service.engine.base_id
    assert reply.prompt == [dict(message) for message in SEA]
    assert reply.group_id == group_of(SEA)
    assert reply.sampling == {
        "temperature": 0.8, "top_p": 1.0, "max_tokens": 12, "stop": [], "drafts": 1, "finish": turn.finish[0],
    }  # fmt: skip
    ids = np.frombuffer(reply.token_ids, dtype="<u4").tolist()
    assert service.engine.text(ids) == reply.text
    assert np.frombuffer(reply.latent).any()
    assert turn.usage == {
        "prompt_tokens": len(service.engine.render(SEA).ids),
        "completion_tokens": len(ids),
        "total_tokens": len(service.engine.render(SEA).ids) + len(ids),
    }
    assert turn.replies() == [reply]  # kept once, whoever asks again
    assert len(service.store.chats.all_replies(service.ada.id)) == 1


def test_the_same_seed_gives_the_same_text_and_none_gives_others(service: Service) -> None:
    first, again = (start(service).replies()[0] for _ in range(2))
    assert (first.text, first.id != again.id) == (again.text, True)
    seeds = {start(service, seed=None, max_tokens=1).replies()[0].seed for _ in range(3)}
    assert len(seeds) == 3


def test_choices_to_compare_come_unranked(service: Service) -> None:
    turn = start(service, n=4)
    shown = [""] * 4
    for choice, text in turn.pieces():
        shown[choice] += text
    replies = turn.replies()
    assert shown == [reply.text for reply in replies]
    assert len({reply.text for reply in replies}) == 4
    assert {reply.group_id for reply in replies} == {group_of(SEA)}
    assert service.learning.rank(service.ada, [[turn.reply_ids[2]], [turn.reply_ids[0]]]).labels == 1


def test_stop_strings_and_stop(service: Service) -> None:
    free = start(service, max_tokens=10).replies()[0].text
    stop = free[6:9]
    turn = start(service, max_tokens=10, stop=[stop])
    assert turn.replies()[0].text == free[: free.index(stop)]
    assert turn.finish == ["stop"]
    turn = start(service, max_tokens=300)
    pieces = turn.pieces()
    next(pieces)
    turn.stop()
    (reply,) = turn.replies()
    assert 0 < len(reply.token_ids) // 4 < 40
    assert turn.finish == ["length"]


def test_a_reader_who_goes_away_ends_the_writing_and_what_was_written_is_kept(service: Service) -> None:
    turn = start(service, max_tokens=300)
    pieces = turn.pieces()
    next(pieces)
    pieces.close()
    assert turn.done
    assert turn.kept
    assert len(service.store.chats.replies(service.ada.id, turn.reply_ids)[0].token_ids) // 4 < 40


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n": 0}, "n is 0; it can be 1 to 4"),
        ({"n": 9}, "n is 9"),
        ({"arm": "best"}, "arm is 'best'"),
        ({"messages": []}, "messages must be"),
        ({"messages": said(" ")}, "is empty"),
        ({"messages": said("x" * 100_000)}, "at most 32,000"),
        ({"messages": said("sea " * 3000)}, "Shorten"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 100_000}, "it can be 1 to 2048"),
        ({"temperature": 3.0}, "temperature is 3.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"stop": [""]}, "stop must be"),
        ({"arm": "adapter", "version": None}, "needs a version"),
        ({"arm": "base", "version": 1}, "uses no version"),
    ],
)
def test_bad_requests_say_what_is_wrong_before_anything_is_written(
    service: Service, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        start(service, **changes)
    assert service.engine.busy == 0
    assert service.store.chats.all_replies(service.ada.id) == []


def test_what_must_not_be_learned_from_is_marked(service: Service) -> None:
    turn = start(service, learn=False)
    turn.replies()
    with pytest.raises(Conflict):
        service.learning.thumb(service.ada, turn.reply_ids[0], 1)
    assert [reply.learn for reply in service.store.chats.all_replies(service.ada.id)] == [False]


# ---- arms ---------------------------------------------------------------------------------------------------------


def test_rerank_knows_the_replies_before(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[list[str]] = []
    rank = turn_module.rank_drafts
    monkeypatch.setattr(turn_module, "rank_drafts", lambda *given: (known.append(list(given[-1])), rank(*given))[1])
    chat = [*SEA, {"role": "assistant", "content": "It is wide."}, *said("And how deep is it?")]
    start(service, messages=chat, arm="rerank", max_tokens=2).replies()
    assert known and all(each == ["It is wide."] for each in known)


def test_rerank_takes_the_draft_the_head_likes_best(service: Service) -> None:
    like_short(service, service.ada)
    turn = start(service, arm="rerank", max_tokens=8)
    pieces = list(turn.pieces())
    (reply,) = turn.replies()
    assert "".join(text for _, text in pieces) == reply.text
    assert (reply.arm, reply.sampling["drafts"]) == ("rerank", RERANK_DRAFTS)
    engine = service.engine
    drafts = engine.write(Ask(SEA, None, RERANK_DRAFTS, Sampling(0.8, 1.0, 8, 1))).result(timeout=120).drafts
    taste, _ = service.learning.head(service.ada.id).score(service.learning.features(drafts))
    chosen = [draft.text for draft in drafts].index(reply.text)
    sound = [
        score
        for draft, score in zip(drafts, taste, strict=True)
        if draft.subject >= engine.latents.subject_floor and not draft.ended
    ]
    assert taste[chosen] >= np.quantile(sound, 0.8)  # safety may stand above the very best


def test_the_beginnings_that_the_head_likes_best_are_gone_on_from(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one reply; of several to compare, none begins like another."""
    like_short(service, service.ada)
    monkeypatch.setattr(writing_module, "RESAMPLE_AT", 6)
    calls: list[tuple[list[Draft], dict[int, int]]] = []
    real = turn_module.Judge.resampled

    def watched(judge: Judge, drafts: Sequence[Draft], unfinished: Collection[int], prompt: str) -> dict[int, int]:
        assert prompt == SEA[-1]["content"]
        calls.append((list(drafts), real(judge, drafts, unfinished, prompt)))
        return calls[-1][1]

    monkeypatch.setattr(turn_module.Judge, "resampled", watched)
    (reply,) = start(service, arm="rerank", max_tokens=12).replies()
    ((drafts, parents),) = calls
    survivors = [row for row in range(RERANK_DRAFTS) if row not in parents]
    assert len(survivors) == RERANK_DRAFTS // 4 and set(parents.values()) <= set(survivors)
    taste, _ = service.learning.head(service.ada.id).score(service.learning.features(drafts))
    assert taste[survivors].mean() > taste.mean()
    begun = np.frombuffer(reply.token_ids, dtype="<u4")[:6].tolist()
    assert begun in [drafts[row].ids for row in survivors]
    assert len(start(service, arm="rerank", max_tokens=12, n=2).replies()) == 2 and len(calls) == 1


def test_nobody_is_asked_about_two_that_begin_alike(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "LEAST_BITS", 0.0)
    monkeypatch.setattr(turn_module, "RESAMPLE_AT", 3)
    latent = np.zeros(len(service.engine.latents.directions))
    texts = {"The sea is wide.": [1, 2, 3, 4], "The sea is deep and blue.": [1, 2, 3, 5], "It is salty.": [1, 2, 9]}
    first, alike, other = (Draft(text, ids, True, "stop", latent, 0.9) for text, ids in texts.items())
    engine = service.engine
    judge = Judge(
        service.learning.head(service.ada.id), engine.population, engine.safety, -1.0, engine.policy.renderer.pieces
    )
    assert judge.worth_asking(first, [alike, first], "What is the sea?") is None
    assert judge.worth_asking(first, [alike, first, other], "What is the sea?") is other


def test_a_click_changes_the_next_reply(service: Service) -> None:
    before = start(service, arm="rerank", max_tokens=8).replies()[0].text
    two = start(service, arm="rerank", max_tokens=8, n=2).replies()
    (same,) = (reply for reply in two if reply.text == before)
    (other,) = (reply for reply in two if reply.text != before)
    ack = service.learning.rank(service.ada, [[other.id], [same.id]])
    assert ack.head_ms < 1000
    assert start(service, arm="rerank", max_tokens=8).replies()[0].text != before
    service.learning.retract(service.ada, ack.feedback_id)
    assert start(service, arm="rerank", max_tokens=8).replies()[0].text == before  # the same head again


def test_auto_is_the_base_until_the_first_label(service: Service) -> None:
    assert service.chat.served(service.ada) == ("base", None)
    turn = start(service)
    turn.replies()
    service.learning.thumb(service.ada, turn.reply_ids[0], -1)
    assert service.chat.served(service.ada) == ("rerank", None)
    assert start(service, max_tokens=2).arm == "rerank"
    assert service.chat.served(service.bob) == ("base", None)
    assert start(service, version=None).arm == "base"  # the base was asked for


def test_auto_compares_with_the_arm_one_step_down(service: Service) -> None:
    like_short(service, service.ada, labels=1)
    turn = start(service, n=2, max_tokens=4)
    assert {text for _, text in turn.pieces()} != {""}
    assert sorted(reply.arm for reply in turn.replies()) == ["base", "rerank"]
    service.learning.rank(service.ada, [[turn.reply_ids[0]], [turn.reply_ids[1]]])
    assert {line.arm: line.comparisons for line in service.learning.record(service.ada).arms} == {
        "base": 1,
        "rerank": 1,
    }


def test_context_tells_the_model_what_is_known(service: Service) -> None:
    plain = start(service, arm="context")
    assert plain.parts[0].writing.ask.messages[0]["content"] == DEFAULT_SYSTEM  # nothing is known yet
    service.learning.correct(service.ada, "emoji", 1)
    turn = start(service, arm="context", messages=[{"role": "system", "content": "Be kind."}, *SEA])
    assert turn.parts[0].writing.ask.messages[0]["content"] == "Be kind. The user prefers emoji."
    (reply,) = turn.replies()
    assert (reply.arm, reply.prompt[0]["content"]) == ("context", "Be kind.")  # kept as it was asked


# ---- versions -----------------------------------------------------------------------------------------------------


def test_an_adapter_needs_an_active_version(service: Service) -> None:
    with pytest.raises(Conflict, match="none yet"):
        start(service, arm="adapter")
    with pytest.raises(NotFound):
        start(service, version=7)


def test_versions_are_served_by_arm_and_by_number(service: Service, maker: Maker) -> None:
    promote(service, maker.version(service.ada.id, 1, seed=1, scale=1.0))
    base = start(service, arm="base").replies()[0].text
    adapter = start(service, arm="adapter")
    assert (adapter.arm, adapter.version) == ("adapter", 1)
    assert adapter.replies()[0].text != base
    assert adapter.replies()[0].version == 1
    both = start(service, arm="adapter+rerank", max_tokens=2)
    assert (both.replies()[0].arm, both.version) == ("adapter+rerank", 1)
    promote(service, maker.version(service.ada.id, 2, seed=2, scale=1.0))
    assert start(service, arm="adapter").version == 2
    assert start(service, version=1).replies()[0].text == adapter.replies()[0].text  # auto with a number: that version
    assert service.chat.served(service.ada) == ("adapter", 2)
    like_short(service, service.ada, labels=1)
    assert service.chat.served(service.ada) == ("adapter+rerank", 2)
    assert service.chat.served(service.bob) == ("base", None)


def test_a_new_version_is_picked_up_between_two_replies_and_not_within_one(service: Service, maker: Maker) -> None:
    old = promote(service, maker.version(service.ada.id, 1, seed=1, scale=1.0))
    alone = start(service, arm="adapter", max_tokens=10).replies()[0].text
    turn = start(service, arm="adapter", max_tokens=10)
    pieces = turn.pieces()
    next(pieces)
    promote(service, maker.version(service.ada.id, 2, seed=2, scale=1.0))
    assert turn.replies()[0].text == alone
    assert turn.replies()[0].version == old.number == 1
    assert start(service, arm="adapter", max_tokens=1).version == 2
    service.store.versions.activate(service.ada.id, service.engine.base_id, None)
    assert service.chat.served(service.ada) == ("base", None)


def test_rejected_and_foreign_versions_are_never_served(service: Service, maker: Maker) -> None:
    version = maker.version(service.ada.id, 1)
    service.store.versions.add(version, activate=False, update_state="rejected")
    service.store.versions.mark(service.ada.id, 1, "rejected")
    with pytest.raises(Conflict, match="did not pass the gate"):
        start(service, version=1)
    with pytest.raises(NotFound):
        start(service, service.bob, version=1)


def test_a_corrupted_version_fails_its_owners_request_only(service: Service, maker: Maker) -> None:
    promote(service, maker.version(service.ada.id, 1))
    weights = maker.files.path(service.ada.id, 1) / "adapter_model.safetensors"
    weights.write_bytes(b"nothing")
    turn, other = start(service, arm="adapter"), start(service, service.bob)
    with pytest.raises(CorruptFile, match="v1 cannot be used"):
        list(turn.pieces())
    with pytest.raises(CorruptFile):
        turn.replies()
    assert other.replies()[0].text
    assert start(service, arm="base").replies()[0].text


# ---- everything at once -------------------------------------------------------------------------------------------


def test_people_at_once_get_their_own_replies(service: Service) -> None:
    people = [service.store.people.add(f"person {number}", f"person {number}", "hash") for number in range(6)]
    alone = start(service, people[0], max_tokens=3).replies()[0].text
    got: dict[str, tuple[str, str]] = {}

    def client(user: User) -> None:
        (reply,) = start(service, user, max_tokens=3).replies()
        got[user.id] = reply.user_id, reply.text

    threads = [threading.Thread(target=client, args=(user,)) for user in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert got == {user.id: (user.id, alone) for user in people}


def test_a_restart_serves_the_same(
    service: Service, store: Store, base_files: BaseFiles, version_files: VersionFiles
) -> None:
    like_short(service, service.ada)
    before = start(service, arm="rerank", max_tokens=4).replies()[0].text
    fresh = Engine(base_files, version_files)
    fresh.start()
    learning = Learning(store, fresh)
    chat = Chat(store, fresh, learning, service.limits)
    again = chat.start(service.ada, ChatRequest(SEA, "rerank", max_tokens=4, seed=1))
    assert again.replies()[0].text == before
    fresh.close()
