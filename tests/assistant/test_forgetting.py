"""Taking a click back: the head of somebody who never gave it, nothing of what it said, no version that knows of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.job import JobSpec, read_job
from assistant.adoption import debris, sweep
from assistant.config import Config
from assistant.exports import export_to
from assistant.forgetting import BEGINS_ANEW
from assistant.learning import Learning
from assistant.schedule import MIN_LABELS
from assistant.trainer import Trainer
from assistant.updates import queue_update
from feedback.errors import Conflict
from feedback.store import Store
from feedback.types import AdapterVersion, Feedback, User, VersionStatus
from tests.assistant.conftest import Maker, Service, like_short, promote, said, start
from tests.assistant.test_learning import kept

GONE = "Gone with it, having learned from it: {}. From now on it is {} that answers."


def clicks(service: Service, user: User, count: int, begin: int = 0) -> list[str]:
    """So many thumbs, each for a reply of its own; their feedback ids."""
    texts = [f"It is wet, {'and deep, ' * (number % 3)}said number {number}." for number in range(begin, begin + count)]
    replies = [kept(service, user, text, f"What is sea {number}?") for number, text in enumerate(texts, begin)]
    return [service.learning.thumb(user, reply, 1 if i % 2 else -1).feedback_id for i, reply in enumerate(replies)]


def learned(service: Service, maker: Maker, number: int, last: int, status: VersionStatus = "active") -> AdapterVersion:
    """A version in use that learned from the first `last` acts of Ada."""
    made = maker.version(service.ada.id, number, seed=number)
    return promote(service, replace(made, first_label=1, last_label=last, status=status))


def event(service: Service, feedback_id: str) -> Feedback:
    """An act as it is kept."""
    return service.store.acts.event(service.ada.id, feedback_id)


def active(service: Service) -> str:
    """What answers Ada."""
    found = service.store.versions.active(service.ada.id, service.engine.base_id)
    return found.name if found else "base"


# ---- the head and what was said -----------------------------------------------------------------------------------


def test_the_head_is_that_of_somebody_who_never_gave_it(service: Service) -> None:
    learning = service.learning
    like_short(service, service.ada, 5)
    like_short(service, service.bob, 5)
    (slip,) = clicks(service, service.ada, 1)
    for user in (service.ada, service.bob):
        clicks(service, user, 4, begin=10)
    mine, theirs = (learning.head(user.id) for user in (service.ada, service.bob))
    assert mine.mean.tobytes() != theirs.mean.tobytes()
    learning.retract(service.ada, slip)
    for again in (learning, Learning(service.store, service.engine)):  # also after a restart
        mine, theirs = (again.head(user.id) for user in (service.ada, service.bob))
        assert (mine.mean.tobytes(), mine.cov.tobytes()) == (theirs.mean.tobytes(), theirs.cov.tobytes())
        assert (mine.threshold, mine.labels) == (theirs.threshold, theirs.labels)


def test_what_it_said_is_erased_and_its_id_stays(service: Service) -> None:
    learning, ada, chats = service.learning, service.ada, service.store.chats
    reply = kept(service, ada, "It is wet.")
    thumb = learning.thumb(ada, reply, 1, ["tone"], "as my aunt would say")
    edit = learning.edit(ada, reply, "It is wet and salty.")
    (brought,) = learning.bring(ada, {"messages": said("What is a lake?"), "replies": ["Wet."], "thumb": 1})
    for ack in (thumb, edit, brought):
        learning.retract(ada, ack.feedback_id)
        stays = event(service, ack.feedback_id)
        assert stays.retracted_at and stays.payload == {}
    assert [each.id for each in chats.all_replies(ada.id)] == [reply], "texts that came with an act go with it"
    assert learning.thumb(ada, reply, -1).labels == 1, "the reply itself was written here and stays"


def test_an_edited_reply_that_a_chat_shows_stays_in_it(service: Service) -> None:
    ada, chat = service.ada, service.chat
    talk = chat.open(ada, "")
    (reply, *_) = chat.send(ada, talk.id, "Tell me about the sea.").replies()
    ack = service.learning.edit(ada, reply.id, "It is wet.")
    chat.show(ada, talk.id, ack.reply_id)
    service.learning.retract(ada, ack.feedback_id)
    assert [message.content for message in chat.history(ada, talk.id)][-1] == "It is wet."


def test_a_reply_whose_thumb_was_taken_back_goes_with_its_chat(service: Service) -> None:
    ada, chat, store = service.ada, service.chat, service.store
    talk = chat.open(ada, "")
    (reply, *_) = chat.send(ada, talk.id, "Tell me about the sea.").replies()
    for thumb in (1, 0):
        service.learning.thumb(ada, reply.id, thumb)
    store.chats.remove(ada.id, talk.id)
    assert store.chats.all_replies(ada.id) == [] and store.chats.own_prompts(ada.id, 9) == []


def test_a_reply_of_a_deleted_chat_goes_with_the_last_click_on_it(service: Service) -> None:
    ada, chat, store = service.ada, service.chat, service.store
    talk = chat.open(ada, "")
    (reply, *_) = chat.send(ada, talk.id, "Tell me about the sea.").replies()
    ack = service.learning.thumb(ada, reply.id, 1)
    store.chats.remove(ada.id, talk.id)
    assert [each.id for each in store.chats.all_replies(ada.id)] == [reply.id]
    service.learning.retract(ada, ack.feedback_id)
    assert store.chats.all_replies(ada.id) == []


# ---- versions -----------------------------------------------------------------------------------------------------


def test_versions_that_learned_from_it_are_gone_and_the_one_before_answers(
    service: Service, maker: Maker, tmp_path: Path
) -> None:
    given = clicks(service, service.ada, 12)
    folders = [learned(service, maker, number, last) for number, last in ((1, 4), (2, 8), (3, 12))]
    assert start(service, arm="adapter").replies()[0].version == 3
    told = service.learning.retract(service.ada, given[6]).gone
    assert told == (GONE.format("v2, v3", "v1"),)
    assert [service.engine.versions.path(v.user_id, v.number).is_dir() for v in folders] == [True, False, False]
    versions = service.store.versions.versions(service.ada.id)
    assert [(v.status, v.forgotten_at is not None) for v in versions] == [
        ("active", False),
        ("retired", True),
        ("retired", True),
    ]
    assert start(service, arm="adapter").replies()[0].version == 1
    assert not any(name.endswith(("v2", "v3")) for name in service.engine.shelf.names if service.ada.id in name)
    with pytest.raises(Conflict, match="v3 had learned from a click that was taken back"):
        start(service, version=3)
    with pytest.raises(Conflict, match="choose another version"):
        service.store.versions.activate(service.ada.id, service.engine.base_id, 2)
    engine = service.engine
    with pytest.raises(Conflict, match="v2 had learned"):
        export_to(engine.versions, engine.files, versions[1], "peft", tmp_path / "out.zip", tmp_path)
    parent = service.store.versions.trusted(service.ada.id, engine.base_id)
    assert parent == versions[0], "the next one begins from the last that had not"


def test_what_no_version_has_seen_costs_none(service: Service, maker: Maker) -> None:
    given = clicks(service, service.ada, 5)
    learned(service, maker, 1, 4)
    assert service.learning.retract(service.ada, given[4]).gone == ()
    assert active(service) == "v1"


def test_the_same_by_a_thumb_that_is_pressed_again(service: Service, maker: Maker) -> None:
    reply = kept(service, service.ada, "It is wet.")
    service.learning.thumb(service.ada, reply, 1)
    learned(service, maker, 1, 1, "probation")
    assert active(service) == "v1"
    ack = service.learning.thumb(service.ada, reply, 0)
    assert ack.changed.startswith(GONE.format("v1", "base")) and active(service) == "base"
    assert service.store.trials.events(service.ada.id)[-1].what == "left"


def test_the_same_by_a_correction_that_is_taken_back(service: Service, maker: Maker) -> None:
    clicks(service, service.ada, 3)
    service.learning.correct(service.ada, "length", -1)
    low, high = service.store.acts.label_range(service.ada.id)
    assert (low, high) == (1, 4), "an update that begins now has learned from the correction"
    learned(service, maker, 1, high)
    assert service.learning.correct(service.ada, "length", None).gone == (GONE.format("v1", "base"),)


def test_a_change_of_mind_costs_no_version(service: Service, maker: Maker) -> None:
    reply = kept(service, service.ada, "It is wet.")
    first = service.learning.thumb(service.ada, reply, 1, [], "lovely")
    service.learning.correct(service.ada, "length", -1)
    learned(service, maker, 1, 2)
    service.learning.thumb(service.ada, reply, -1)
    service.learning.correct(service.ada, "length", 0.5)
    assert active(service) == "v1" and event(service, first.feedback_id).payload == {}
    second = service.learning.thumb(service.ada, reply, 1)
    told = service.learning.retract(service.ada, second.feedback_id).gone
    assert told == (GONE.format("v1", "base"),), "it knows of the first thumb, which nothing stands for any longer"


def test_a_version_that_was_taken_back_does_not_return(service: Service, maker: Maker) -> None:
    given = clicks(service, service.ada, 9)
    learned(service, maker, 1, 3)
    learned(service, maker, 2, 6)
    service.store.versions.activate(service.ada.id, service.engine.base_id, 1)  # v2 is "rolled back"
    learned(service, maker, 3, 9)
    assert service.learning.retract(service.ada, given[8]).gone == (GONE.format("v3", "v1"),)


def test_what_a_crash_leaves_is_swept_away(service: Service, maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    given = clicks(service, service.ada, 3)
    version = learned(service, maker, 1, 3)
    monkeypatch.setattr("assistant.learning.delete_weights", lambda *given: None)  # the process ends here
    service.learning.retract(service.ada, given[0])
    folder = service.engine.versions.path(version.user_id, version.number)
    adapters, jobs = folder.parent.parent, folder.parent.parent / "no-jobs"
    assert folder.is_dir() and active(service) == "base"
    assert folder in debris(service.store, adapters, jobs)
    sweep(service.store, adapters, jobs)
    assert not folder.exists()


# ---- updates ------------------------------------------------------------------------------------------------------


def frozen(service: Service, jobs: Path) -> JobSpec:
    """What the update that is first in line will learn from."""
    (update,) = service.store.versions.live_updates(service.ada.id)
    config = Config(data_dir=jobs.parent)
    trainer = Trainer(
        service.store, service.learning, service.engine, service.engine.versions, service.engine.files, config,
        threading.Event(),
    )  # fmt: skip
    trainer._freeze(update)
    spec = read_job(config.jobs / update.id)
    assert isinstance(spec, JobSpec)
    return spec


def queue(service: Service) -> str:
    """An update of Ada's, in line; whether her clicks foretell one another does not matter."""
    numbers = {"gate": {"foretold": -1e9}}
    return queue_update(service.store, service.ada, service.engine.base_id, numbers).id


def test_an_update_that_is_learning_from_it_begins_anew(service: Service, tmp_path: Path) -> None:
    given = clicks(service, service.ada, MIN_LABELS + 1)
    first = queue(service)
    seen = frozen(service, tmp_path / "jobs")
    assert seen.labels == MIN_LABELS + 1
    ack = service.learning.retract(service.ada, given[0])
    assert ack.gone == ("The update under way begins anew without it.",)
    ended = service.store.versions.update(service.ada.id, first)
    assert (ended.state, ended.reason) == ("cancelled", BEGINS_ANEW)
    (waits,) = service.store.versions.live_updates(service.ada.id)
    assert waits.state == "queued" and waits.seed == ended.seed
    again = frozen(service, tmp_path / "jobs")
    assert again.labels == MIN_LABELS
    now = service.learning.split_heads(service.ada.id)
    assert again.heads.train.mean.tobytes() == now.train.mean.tobytes() != seen.heads.train.mean.tobytes()
    assert again.heads.judge.mean.tobytes() == now.judge.mean.tobytes()
    assert again.heads.full.mean.tobytes() == now.full.mean.tobytes() != seen.heads.full.mean.tobytes()
    assert again.heads.foretold == now.foretold != seen.heads.foretold

    service.learning.retract(service.ada, given[1])
    assert service.store.versions.live_updates(service.ada.id) == [], "too few are left for one"


def test_one_that_only_waits_or_had_begun_before_goes_on(service: Service, tmp_path: Path) -> None:
    given = clicks(service, service.ada, MIN_LABELS + 2)
    waiting = queue(service)
    assert service.learning.retract(service.ada, given[0]).gone == ()
    frozen(service, tmp_path / "jobs")
    (later,) = clicks(service, service.ada, 1, begin=50)
    assert service.learning.retract(service.ada, later).gone == ()
    (update,) = service.store.versions.live_updates(service.ada.id)
    assert (update.id, update.state) == (waiting, "running")


def test_the_next_update_is_due_at_once(service: Service, maker: Maker) -> None:
    given, store, base_id = clicks(service, service.ada, 12), service.store, service.engine.base_id
    update = store.versions.queue(service.ada.id, base_id, "asked", 1, None, (1, 12), {})
    version = replace(maker.version(service.ada.id, 1), first_label=1, last_label=12, update_id=update.id)
    store.versions.begin(update.id, None, (1, 12), {})
    promote(service, version)
    assert store.versions.last_label(service.ada.id, base_id) == 12
    service.learning.retract(service.ada, given[3])
    assert store.versions.last_label(service.ada.id, base_id) == 0
    assert store.acts.labels_after(service.ada.id, 0) == 11


def test_acts_that_were_taken_back_before_are_emptied(tmp_path: Path) -> None:
    """What the migration does to a folder of an earlier Mynah."""
    path = tmp_path / "mynah.db"
    store = Store(path)
    user = store.people.add("Ada", "ada", "-")
    act, _ = store.acts.add(user.id, "thumb", {"comment": "Grumblewort"}, [], "base", None)
    with store.database.transaction() as db:  # as it was before
        db.execute("update feedback set retracted_at = '2026-01-01' where id = ?", [act.id])
        db.execute("delete from _sqlite_migrations where name = 'm005_forgetting'")
        db.execute("alter table versions drop column forgotten_at")
        db.execute("alter table preferences drop column first_seq")
    store.close()
    store = Store(path)
    assert store.acts.event(user.id, act.id).payload == {}
    store.close()
    assert b"Grumblewort" not in path.read_bytes()
