"""What people have in common, as a server keeps it: whose acts count, who begins there, and when it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from assistant.common import DAY, HOUR, CommonTaste, StoppedLooking
from assistant.heads import Heads
from assistant.profile import profile_of
from feedback.common import LEAST, Common, in_common
from feedback.labels import ranking_preference
from feedback.store import Store
from feedback.traits import TRAIT_NAMES
from feedback.types import User
from tests.feedback.helpers import BASE, POPULATION, add_person, make_reply
from tests.feedback.test_reward_head import digest

SHORT = ("Fine.", "Yes, it is.", "A boat is at sea.", "Nobody knows that yet.")
LONG = tuple(f"{text} {'The sea is wide and the night is long, and so is this answer. ' * 3}" for text in SHORT)
ACTS = 20


@dataclass
class World:
    """Some people who all like it short, and the clock."""

    store: Store
    common: CommonTaste
    heads: Heads
    people: list[User]
    hours: list[float]

    def share(self, count: int = LEAST) -> None:
        for user in self.people[:count]:
            self.common.share(user, True)


def click(store: Store, user: User, number: int) -> str:
    """A short reply was preferred to a long one; nine times in ten, since nobody is all of one mind."""
    better, worse = SHORT[number % 4], LONG[(number // 4) % 4]
    if number % 10 == 9:
        better, worse = worse, better
    replies = [make_reply(user, text) for text in (better, worse)]
    store.chats.add_replies(replies)
    names = [reply.id for reply in replies]
    fields = ranking_preference(replies, [[name] for name in names], POPULATION)
    return store.acts.add(user.id, "ranking", {}, names, BASE, fields)[0].id


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    hours = [0.0]
    common = CommonTaste(store, BASE, POPULATION, clock=lambda: 3600 * hours[0])
    people = [add_person(store, f"p{number}") for number in range(LEAST + 1)]
    for place, user in enumerate(people):
        for number in range(ACTS):
            click(store, user, 3 * place + number)
    yield World(store, common, Heads(store, BASE, POPULATION, common.prior), people, hours)
    common.close()


def test_nobody_counts_unasked_and_too_few_make_nothing(world: World) -> None:
    assert not any(map(world.common.shares, world.people)) and all(map(world.common.begins, world.people))
    assert not world.common.look() and world.common.found() is None
    world.share(LEAST - 1)
    assert not world.common.look() and world.common.likes() == []


def test_somebody_new_begins_where_the_others_are(world: World) -> None:
    new = add_person(world.store, "new")
    before = world.heads.head(new.id)
    assert not before.mean.any()
    world.share()
    assert world.common.look()
    found, likes = world.common.found(), world.common.likes()
    assert found is not None and len(found.user_ids) == LEAST and "shorter replies" in likes
    head = world.heads.head(new.id)
    features = POPULATION.features([SHORT[0], LONG[0]], np.zeros((2, POPULATION.latents)))
    short, long = head.score(features)[0]
    assert short > long + 0.5 and head.labels == 0
    words = {
        view.name: view.words for view in profile_of(head, [], {}, POPULATION.together, world.heads.began_with(new.id))
    }
    assert words["emoji"] == "nothing known yet"
    told = {name for name, said in words.items() if said.startswith("others here like ")}
    assert told and all(abs(world.heads.began_with(new.id)[TRAIT_NAMES.index(name)]) > 0.04 for name in told)


def test_who_wants_to_begin_with_nothing_does_from_the_next_reply_on(world: World) -> None:
    user = world.people[-1]
    alone = digest(world.heads.head(user.id))
    world.share()
    world.common.look()
    assert digest(world.heads.head(user.id)) != alone
    world.common.begin(user, False)
    assert not world.common.begins(user) and digest(world.heads.head(user.id)) == alone
    assert digest(world.heads.split(user.id).train) == digest(Heads(world.store, BASE, POPULATION).split(user.id).train)
    world.common.begin(user, True)
    assert digest(world.heads.head(user.id)) != alone


def test_every_way_to_a_head_gives_the_same_bits(world: World) -> None:
    world.share()
    world.common.look()
    user, heads = world.people[-1], world.heads
    event = click(world.store, user, 1)
    heads.refit(user.id)
    world.store.acts.retract(user.id, event)
    again = Heads(world.store, BASE, POPULATION, CommonTaste(world.store, BASE, POPULATION).prior)
    assert digest(heads.refit(user.id)) == digest(again.head(user.id))


def test_it_is_gone_for_everybody_when_somebody_shares_no_longer_and_is_found_without_them(world: World) -> None:
    world.share(LEAST + 1)
    assert world.common.look()
    first, alone = world.people[0], digest(Heads(world.store, BASE, POPULATION).head(world.people[-1].id))
    assert digest(world.heads.head(world.people[-1].id)) != alone
    world.common.share(first, False)
    assert world.common.found() is None and digest(world.heads.head(world.people[-1].id)) == alone
    assert not world.common.look(), "within the hour"
    world.hours[0] += 1.1
    assert world.common.look()
    found = world.common.found()
    assert found is not None and len(found.user_ids) == LEAST and first.id not in found.user_ids
    world.common.share(first, True)
    world.common.share(first, False)
    assert world.common.found() is not None, "they were not in it"


def test_it_is_looked_for_once_a_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.share()
    assert world.common.look() and not world.common.look()
    click(world.store, world.people[0], 1)
    world.hours[0] += DAY / HOUR + 1
    assert not world.common.look(), "what is kept is not a day old"
    monkeypatch.setattr("assistant.common.seconds_since", lambda at: DAY + 1)
    before = world.common.found()
    assert world.common.look()
    after = world.common.found()
    assert before is not None and after is not None and before.version != after.version


def test_where_nothing_is_common_any_more_nothing_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.share()
    assert world.common.look() and world.common.found() is not None
    monkeypatch.setattr("assistant.common.seconds_since", lambda at: DAY + 1)
    monkeypatch.setattr("assistant.common.in_common", lambda *given: None)
    click(world.store, world.people[0], 1)
    assert world.common.look() and world.common.found() is None
    click(world.store, world.people[0], 2)
    assert not world.common.look(), "not again within the hour"
    world.hours[0] += 1.1
    assert world.common.look()
    world.hours[0] += 1.1
    assert not world.common.look(), "nobody has acted since"


def test_who_shares_begins_with_the_others_and_comes_back_as_they_left(world: World) -> None:
    world.share()
    world.common.look()
    member, new = world.people[0], world.people[-1]
    mine, theirs = world.common.prior(member.id), world.common.prior(new.id)
    kept = world.common.found()
    assert kept is not None
    assert np.array_equal(theirs.mean, POPULATION.prior.mean + kept.found.mean())
    assert np.array_equal(mine.mean, POPULATION.prior.mean + kept.found.mean(without=kept.user_ids.index(member.id)))
    assert world.common.prior(member.id) is mine and world.common.prior(new.id) is theirs
    world.common.share(member, False)
    assert world.common.prior(new.id) is POPULATION.prior
    world.common.share(member, True)
    world.hours[0] += 1.1
    assert world.common.look() and np.array_equal(world.common.prior(member.id).mean, mine.mean)


@pytest.mark.parametrize("late", ["shares no more", "clicks"])
def test_what_changes_while_it_is_looked_for_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    world.share()

    def changed_meanwhile(*given: Any) -> Common | None:
        found = in_common(*given)
        if late == "clicks":
            click(world.store, world.people[1], 2)
        else:
            world.common.share(world.people[0], False)
        return found

    monkeypatch.setattr("assistant.common.in_common", changed_meanwhile)
    assert world.common.look() and world.common.found() is None


def test_a_server_that_ends_waits_for_nothing(world: World) -> None:
    world.share()
    world.common._stop.set()
    with pytest.raises(StoppedLooking):
        world.common.look()


def test_another_prior_of_the_features_makes_it_void(world: World) -> None:
    world.share()
    stamp = world.store.commons.stamp([world.people[0].id])
    world.store.commons.keep("another", Common(np.zeros((1, 3)), 0.5, 0.1), stamp)
    assert world.common.prior(world.people[1].id) is POPULATION.prior
    assert world.common.found() is None and world.common.look()
    found = world.common.found()
    assert found is not None and found.population == POPULATION.version
