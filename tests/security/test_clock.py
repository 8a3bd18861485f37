"""The wall clock is set back and forth, by minutes and by decades, while a server runs: no harm comes of it.

What must last so long (a lock, a limit, the way back of a deleted chat) lasts so long, what is said keeps its order,
and whoever may come in comes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest

from assistant.accounts import FAILURES, Accounts, name_key
from assistant.attempts import WINDOW_SECONDS
from assistant.joining import Joining
from assistant.limits import DAY, Limits
from assistant.schedule import in_turn
from assistant.trash import UNDO_SECONDS, Trash
from assistant.ui.session import COOKIE
from feedback.errors import Busy, NotFound, NotSignedIn
from feedback.store import Store
from feedback.types import User
from tests.assistant.serving import PASSWORD
from tests.assistant.test_accounts import Clock
from tests.conftest import WallClock
from tests.feedback.helpers import BASE, add_person
from tests.security.world import ORIGIN, World
from tests.soak import cases

DAYS = 30  # a session lasts
SPANS = [60.0, 3600.0, 7200.0, 86_400.0, 31 * 86_400.0, 365 * 86_400.0, 30 * 365 * 86_400.0]


def jumps(count: int, seed: int) -> Iterator[timedelta]:
    """Where the clock is put, again and again: right, or off by up to thirty years either way."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield timedelta(seconds=float(random.choice(SPANS) * random.uniform(0.5, 1.0) * random.choice([-1, 0, 1])))


def somebody(world: World, name: str) -> User:
    return world.mynah.store.people.add(name, name_key(name), "no password opens this")


def test_what_is_said_keeps_its_order_and_its_weight(world: World, wall: WallClock) -> None:
    """Two people do the same, one of them while the clock jumps: both heads are the same to the last bit."""
    learning, store = world.mynah.learning, world.mynah.store
    steady, moved = somebody(world, "Steady"), somebody(world, "Moved")

    def act(user: User, number: int) -> tuple[str, str, str]:
        """One more chat and one more act; their ids, and the reply's."""
        chat, _, reply, rival = world.chat(user, "weather")
        if number % 3:
            return chat, learning.thumb(user, reply, 1 if number % 2 else -1, comment=str(number)).feedback_id, reply
        return chat, learning.rank(user, [[reply], [rival]], comment=str(number)).feedback_id, reply

    count = cases(300)
    for number in range(count):
        act(steady, number)
    given = []
    for number, wall.ahead in enumerate(jumps(count, 1)):
        given.append(act(moved, number))
    for wall.ahead in jumps(3, 2):
        chats, acts, replies = ([each[place] for each in given] for place in range(3))
        assert [event.id for event in store.acts.events(moved.id)] == acts
        assert [talk.id for talk in store.chats.conversations(moved.id)] == chats[::-1]
        assert [reply.id for reply in store.chats.all_replies(moved.id)][::2] == replies
        learning.forget(moved.id)
        ours, theirs = learning.head(steady.id), learning.head(moved.id)
        assert ours.mean.tobytes() == theirs.mean.tobytes() and ours.cov.tobytes() == theirs.cov.tobytes()
        assert learning.record(steady) == learning.record(moved)


def test_whoever_may_come_in_comes_in_at_any_time(world: World, wall: WallClock) -> None:
    """And a session lasts as it should wherever the clock tells so: neither for ever, nor is it lost for a jump."""
    mynah = world.mynah
    accounts = mynah.accounts
    user = accounts.add("Traveller", PASSWORD)
    key, here = accounts.create_key(user)[1], accounts.sign_in("Traveller", PASSWORD)
    for wall.ahead in jumps(cases(200), 3):
        assert accounts.key_user(key) == user
        token = accounts.sign_in("Traveller", PASSWORD) if wall.ahead.days % 3 == 0 else accounts.open_session(user)
        assert accounts.session_user(token) == user
        open_still = -1 <= wall.ahead.total_seconds() / 86_400 < DAYS
        assert (accounts.session_user(here) == user) == open_still, wall.ahead
        accounts.sign_out(token)
        assert accounts.session_user(token) is None
    wall.put()
    assert accounts.session_user(here) == user, "the clock is right again, and nobody has to sign in anew"
    accounts.sign_out(here)
    for wall.ahead in jumps(20, 4):
        assert accounts.session_user(here) is None


def test_an_invitation_is_open_for_its_days_and_no_jump_destroys_it(world: World, wall: WallClock) -> None:
    mynah = world.mynah
    boss = world.boss.user
    assert boss is not None
    joining = Joining(mynah.store, mynah.accounts, mynah.settings)
    invitation, token = joining.invite(boss)
    for days in (0, 6.9, 7.1, 4000, -0.9, -1.1, -9000):
        wall.put(days=days)
        is_open = -1 < days < 7
        assert any(each.id == invitation.id for each in mynah.store.server.invitations()) == is_open
        if is_open:
            joining.check(token)
        else:
            with pytest.raises(NotFound):
                joining.check(token)
        joining.withdraw(boss, joining.invite(boss)[0].id)  # others are made meanwhile
    wall.put()
    joining.check(token)
    joining.withdraw(boss, invitation.id)


def test_a_lock_opens_after_its_time_and_not_before(store: Store, wall: WallClock) -> None:
    clock = Clock()
    accounts = Accounts(store, clock=clock)
    accounts.add("Ada", PASSWORD)
    for _, wall.ahead in zip(range(FAILURES), jumps(FAILURES, 5), strict=True):
        with pytest.raises(NotSignedIn):
            accounts.sign_in("Ada", "a wrong password")
    for wall.ahead in jumps(cases(100), 6):
        with pytest.raises(Busy) as refused:
            accounts.sign_in("Ada", PASSWORD)
        assert 0 < refused.value.retry_after <= WINDOW_SECONDS + 1
    clock.now += WINDOW_SECONDS + 1
    wall.put(days=-4000)
    accounts.sign_in("Ada", PASSWORD)


def test_a_deleted_chat_can_be_brought_back_for_two_minutes_and_then_goes(store: Store, wall: WallClock) -> None:
    clock, user = Clock(), add_person(store)
    trash = Trash(store, clock=clock)
    for number, wall.ahead in enumerate(jumps(cases(100), 7)):
        talk = store.chats.start(user.id, f"{number}")
        trash.put_away(user, talk.id)
        wall.ahead = -wall.ahead * number
        clock.now += UNDO_SECONDS - 1
        trash.purge()
        assert [(gone.id, left) for gone, left in trash.waiting(user)] == [(talk.id, 1.0)]
        clock.now += 1
        assert trash.waiting(user) == []
        trash.purge()
        assert store.chats.every_conversation(user.id) == []
        with pytest.raises(NotFound):
            trash.bring_back(user, talk.id)


@pytest.mark.parametrize(("years", "left"), [(-10, UNDO_SECONDS), (10, 0.0)])
def test_after_a_restart_too_it_waits_for_two_minutes_at_most(
    store: Store, wall: WallClock, years: int, left: float
) -> None:
    clock, user = Clock(), add_person(store)
    talk = store.chats.start(user.id, "Bees")
    Trash(store, clock=clock).put_away(user, talk.id)
    wall.put(days=365 * years)
    again = Trash(store, clock=clock)
    again.start()
    try:
        assert [seconds for _, seconds in again.waiting(user)] == [left] * bool(left)
        clock.now += left
        again.purge()
        assert store.chats.every_conversation(user.id) == []
    finally:
        again.close()


def finished_update(store: Store, user: User) -> None:
    update = store.versions.queue(user.id, BASE, "asked", 0, None, (0, 0), {})
    assert store.versions.set_state(update.id, "running") and store.versions.set_state(update.id, "failed", "A test.")


def test_nobody_waits_longer_than_a_day_for_an_update(world: World, wall: WallClock) -> None:
    mynah = world.mynah
    limits = Limits(mynah.store, mynah.versions, mynah.config)
    user = somebody(world, "Trained")
    for wall.ahead in jumps(cases(100), 8):
        finished_update(mynah.store, user)
        limits.training_wait(user.id)
    for wall.ahead in jumps(cases(1000), 9):
        assert 0.0 <= limits.training_wait(user.id) <= DAY
        mynah.updates.forecast(user)


def test_a_jump_makes_nobody_wait_for_ever_in_the_line(store: Store, wall: WallClock) -> None:
    """Whoever had an update while the clock was years ahead is not last until then."""
    people = [add_person(store, name) for name in ("ada", "bob", "eve")]
    wall.put(days=4000)
    finished_update(store, people[0])
    wall.put()
    served = list[str]()
    for wall.ahead in jumps(cases(300), 10):
        first = in_turn([user.id for user in people], store.versions.last_finished())[0]
        finished_update(store, next(user for user in people if user.id == first))
        served.append(first)
    assert [served.count(user.id) for user in people] == [len(served) // 3] * 3


def test_everything_answers_whatever_the_clock_says(world: World, wall: WallClock) -> None:
    person = world.somebody("other")
    assert person.user is not None
    pages = [f"/v1/me{page}" for page in ("", "/profile", "/updates", "/versions", "/keys", "/export")]
    hello = {"model": "mynah", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    for wall.ahead in jumps(cases(100), 11):
        for page in pages:
            assert person.program.get(page).status_code == 200, (page, wall.ahead)
        reply = person.program.post("/v1/chat/completions", json=hello | {"mynah": {"arm": "base"}})
        assert reply.status_code == 200, reply.text
        click = {"reply_id": reply.json()["choices"][0]["reply_id"], "thumb": 1}
        assert person.program.post("/v1/feedback", json=click).status_code == 201
        person.browser.cookies.set(COOKIE, world.mynah.accounts.open_session(person.user))
        for page in ("/", "/my-assistant"):
            assert person.browser.get(page, headers={"Origin": ORIGIN}).status_code == 200
    assert world.mynah.store.acts.label_count(person.user.id) == cases(100)
