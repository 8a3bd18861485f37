"""Trials of versions on the real model: who is shown beside whom, and what the person's choices lead to."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.base_model import BaseFiles
from adapters.job import JobSpec, UpdateConfig, read_job
from adapters.versions import VersionFiles
from assistant.arms import RERANK_DRAFTS
from assistant.asking import EVERY
from assistant.chat import Chat, ChatRequest
from assistant.config import Config
from assistant.engine import Draft
from assistant.learning import Ack, Learning
from assistant.probation import Count, pair_thumbs, stories, verdict
from assistant.trainer import Trainer
from assistant.turn import Turn
from assistant.updates import queue_update
from feedback.store import Store
from feedback.types import AdapterVersion, ArmName, Duel, now
from tests.assistant.conftest import Maker, Service, said
from tests.conftest import WallClock


def enter(service: Service, maker: Maker, number: int, *, trusted: bool = False) -> AdapterVersion:
    """A version of Ada's that passed the gate; one that is trusted has no trial before it."""
    made = maker.version(service.ada.id, number, seed=number, scale=1.0)
    entered = replace(made, status="active") if trusted else made
    service.store.versions.add(entered, activate=True, update_state="promoted")
    return made


def kept(service: Service, arm: ArmName, version: int | None) -> str:
    """The id of a reply in the store, as if it had been written here."""
    draft = Draft("Fine.", [1, 2], True, "stop", np.zeros(len(service.engine.latents.directions)), 0.5)
    base_id = service.engine.base_id
    reply = draft.as_reply(service.ada.id, said("How?"), base_id, source="chat", arm=arm, version=version)
    service.store.chats.add_replies([reply])
    return reply.id


def judge(service: Service, number: int, against: int | None, won: bool, *, shown: bool = True) -> Ack:
    """One comparison of a version with another. shown: by Mynah, as a duel of the version's trial."""
    mine = kept(service, "adapter+rerank", number)
    other = kept(service, "adapter+rerank" if against else "rerank", against)
    if shown:
        service.store.trials.add_duel(service.ada.id, Duel(number, mine, other, now()))
    return service.learning.rank(service.ada, [[mine], [other]] if won else [[other], [mine]])


def thumb(service: Service, version: int | None, up: bool) -> Ack:
    reply_id = kept(service, "adapter+rerank" if version else "rerank", version)
    return service.learning.thumb(service.ada, reply_id, 1 if up else -1)


def start(service: Service, **request: Any) -> Turn:
    """Ask for very short replies."""
    return service.chat.start(service.ada, ChatRequest(said("Tell me about the sea."), max_tokens=3, **request))


def status(service: Service, number: int) -> str:
    return service.store.versions.version(service.ada.id, number).status


# ---- what is shown ------------------------------------------------------------------------------------------------


def test_two_to_compare_differ_only_in_the_adapter(service: Service, maker: Maker) -> None:
    service.learning.correct(service.ada, "length", -1)
    enter(service, maker, 1)
    with_base = start(service, n=2)
    assert sorted((reply.arm, reply.version) for reply in with_base.replies()) == [
        ("adapter+rerank", 1),
        ("rerank", None),
    ]
    enter(service, maker, 2, trusted=True)
    enter(service, maker, 3)
    replies = start(service, n=2).replies()
    assert {(reply.arm, reply.version) for reply in replies} == {("adapter+rerank", 2), ("adapter+rerank", 3)}
    assert [reply.sampling["drafts"] for reply in replies] == [RERANK_DRAFTS] * 2, "one does not count as load"
    first, second = service.store.trials.duels(service.ada.id)
    assert (first.number, second.number) == (1, 3)
    by_id = {reply.id: reply.version for reply in replies}
    assert (by_id[second.reply_id], by_id[second.other_id]) == (3, 2)
    for other in ({"n": 1}, {"n": 2, "learn": False}, {"n": 2, "arm": "adapter"}):
        start(service, **other).stop()
    assert len(service.store.trials.duels(service.ada.id)) == 2


def test_a_turn_that_may_ask_brings_both_and_one_alone_when_the_other_cannot_be_written(
    service: Service, maker: Maker
) -> None:
    chat, ada = service.chat, service.ada
    enter(service, maker, 1, trusted=True)
    enter(service, maker, 2)
    talk = chat.open(ada).id

    def turn() -> Turn:
        for _ in range(EVERY):
            chat.asking.count(ada, False)
        return chat.send(ada, talk, "Tell me about the sea.", max_tokens=4, ask=True)

    both = turn()
    assert len(both.reply_ids) == 1 and not both.streams, "nothing tells of the other before it is there"
    replies = both.replies()
    assert both.asked and [reply.version for reply in replies] == [2, 1] and len(both.reply_ids) == 2
    assert chat.history(ada, talk)[-1].reply_id == replies[0].id
    (duel,) = service.store.trials.duels(ada.id)
    assert [duel.reply_id, duel.other_id] == both.reply_ids
    assert not chat.asking.due(ada)
    (maker.files.path(ada.id, 1) / "adapter_model.safetensors").write_bytes(b"nothing")
    service.engine.forget(ada.id)
    alone = turn()
    assert [reply.version for reply in alone.replies()] == [2] and not alone.asked
    assert len(service.store.trials.duels(ada.id)) == 1


# ---- what follows -------------------------------------------------------------------------------------------------


def test_a_version_that_is_disliked_is_taken_back_by_duels_alone(service: Service, maker: Maker) -> None:
    enter(service, maker, 1, trusted=True)
    enter(service, maker, 2)
    acks = [judge(service, 2, 1, won=False) for _ in range(5)]
    told = "Version 2 was taken back: its replies lost 5 of 5 comparisons with version 1."
    assert [told in ack.changed for ack in acks] == [False] * 4 + [True]
    assert (status(service, 1), status(service, 2)) == ("active", "rolled back")
    assert service.chat.served(service.ada) == ("adapter+rerank", 1)
    assert start(service).replies()[0].version == 1
    last = service.store.trials.events(service.ada.id)[-1]
    assert (last.what, last.wins, last.losses, last.words) == ("rolled back", 0, 5, told)
    assert judge(service, 2, 1, won=True).changed.find("Version") == -1, "what comes later changes nothing"


def test_a_version_that_is_liked_stays(service: Service, maker: Maker) -> None:
    enter(service, maker, 1)
    for won in (True, True, False, True, True, True, True, True, True):
        told = judge(service, 1, None, won).changed
    assert "Version 1 stays: its replies won 8 of 9 comparisons with the base model." in told
    assert status(service, 1) == "active" and service.chat.served(service.ada) == ("adapter+rerank", 1)


def test_only_what_was_shown_for_the_trial_and_stands_counts(service: Service, maker: Maker) -> None:
    enter(service, maker, 1)
    for _ in range(4):
        judge(service, 1, None, won=False)
    enter(service, maker, 2)  # the first one's duels end with its trial
    assert status(service, 1) == "retired"
    taken_back = judge(service, 2, None, won=False)
    for _ in range(3):
        judge(service, 2, None, won=False)
    service.learning.retract(service.ada, taken_back.feedback_id)
    for _ in range(6):
        judge(service, 2, None, won=False, shown=False)  # by the person's own hand, who may know which is which
        judge(service, 1, None, won=False)
        thumb(service, 2, up=False)
    assert status(service, 2) == "probation"
    base_id = service.engine.base_id
    assert "won 0 of 3 comparisons" in stories(service.store, service.ada, base_id, asks=True)[2]
    assert "newer version" in stories(service.store, service.ada, base_id, asks=True)[1]


def test_a_trial_goes_on_after_a_restart(service: Service, maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "mynah.db"

    def opened(store: Store) -> Service:
        learning = Learning(store, service.engine)
        ada = store.people.find("ada") or store.people.add("Ada", "ada", "hash")
        chat = Chat(store, service.engine, learning, service.limits)
        return replace(service, store=store, learning=learning, chat=chat, ada=ada)

    before = opened(Store(path))
    enter(before, maker, 1)
    for _ in range(4):
        judge(before, 1, None, won=False)
    before.store.close()
    after = opened(Store(path))
    assert status(after, 1) == "probation"
    assert "lost 5 of 5" in judge(after, 1, None, won=False).changed
    after.store.close()
    last = opened(Store(path))
    assert status(last, 1) == "rolled back" and last.chat.served(last.ada) == ("rerank", None)
    last.store.close()


def test_who_is_not_asked_judges_by_thumbs(service: Service, maker: Maker) -> None:
    service.chat.asking.want(service.ada, False)
    enter(service, maker, 1, trusted=True)
    for up in (False, True, True, True, True, True, True):
        thumb(service, 1, up)
    enter(service, maker, 2)
    told = [thumb(service, 2, up=False).changed for _ in range(5)]
    assert "taken back" not in told[3]
    assert "Version 2 was taken back: you liked 0 of 5 of its replies and 5 of 5 of version 1 before." in told[4]
    assert service.chat.served(service.ada) == ("adapter+rerank", 1)
    assert service.store.trials.duels(service.ada.id) == []


@pytest.mark.parametrize("years", [-10, 10])
def test_nor_does_a_clock_that_is_set_decide_a_trial(
    service: Service, maker: Maker, wall: WallClock, years: int
) -> None:
    service.chat.asking.want(service.ada, False)
    enter(service, maker, 1, trusted=True)
    for _ in range(5):
        thumb(service, 1, up=True)
    enter(service, maker, 2)
    told = []
    for hours in (0, -5, 3, -1, 9):
        wall.put(days=365 * years, hours=hours)
        told.append(thumb(service, 2, up=False).changed)
    assert "Version 2 was taken back: you liked 0 of 5 of its replies and 5 of 5 of version 1 before." in told[4]


def test_the_rule_by_hand() -> None:
    assert verdict(Count(0, 4)) is None and verdict(Count(0, 5)) == "rolled back"
    assert verdict(Count(2, 10)) is None and verdict(Count(2, 11)) == "rolled back"
    assert verdict(Count(5, 0, 3)) == "confirmed"
    assert verdict(Count(12, 17)) is None
    assert verdict(Count(12, 18)) == "rolled back" and verdict(Count(13, 17)) == "confirmed"
    assert verdict(Count(1, 2, 56)) is None and verdict(Count(1, 2, 57)) == "confirmed"
    # newest before against oldest after: up-down lost, down-up won, alike a tie, and the last has no partner
    assert pair_thumbs([True, False, True], [False, True, True, False]) == Count(1, 1, 2)


# ---- updates meanwhile --------------------------------------------------------------------------------------------


def test_an_update_begins_from_the_version_before_and_the_gate_is_strict_for_who_is_not_asked(
    service: Service, maker: Maker, version_files: VersionFiles, base_files: BaseFiles, tmp_path: Path
) -> None:
    enter(service, maker, 1, trusted=True)
    enter(service, maker, 2)
    for _ in range(10):
        thumb(service, 1, up=True)
    config = Config.build({"data_dir": tmp_path}, {})
    trainer = Trainer(
        service.store, service.learning, service.engine, version_files, base_files, config, threading.Event()
    )

    def frozen() -> JobSpec:
        update = queue_update(service.store, service.ada, service.engine.base_id, UpdateConfig().as_dict())
        assert update.parent == 1
        trainer._freeze(update)
        assert service.store.versions.set_state(update.id, "cancelled")
        job = read_job(config.jobs / update.id)
        assert isinstance(job, JobSpec) and job.parent is not None and job.parent.name == "v1"
        return job

    assert not frozen().strict
    service.chat.asking.want(service.ada, False)
    assert frozen().strict
    trainer.close()
