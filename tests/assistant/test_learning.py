"""Acts on real stored replies: what counts, what is refused, what the head makes of it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from assistant.learning import Learning
from assistant.messages import group_of
from assistant.profile import STRONGEST
from assistant.writing import Draft
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.reward_head import prior_head
from feedback.traits import TRAIT_NAMES
from feedback.types import Reply, User
from tests.assistant.conftest import Service, said

SHORT = "It is wet."
LONG = "The sea is a very large body of salt water that covers most of the planet, and it is home to many animals."


def kept(
    service: Service,
    user: User,
    text: str,
    prompt: str = "What is the sea?",
    *,
    arm: str = "base",
    version: int | None = None,
    learn: bool = True,
) -> str:
    """The id of a reply in the store, as if it had been written here."""
    draft = Draft(text, [1, 2], True, "stop", np.zeros(len(service.engine.latents.directions)), 0.5)
    reply: Reply = draft.as_reply(
        user.id, said(prompt), service.engine.base_id, source="chat", arm=arm, version=version, learn=learn
    )
    service.store.chats.add_replies([reply])
    return reply.id


def pair(service: Service, user: User, number: int = 0) -> tuple[str, str]:
    """Ids of a short and a long reply to one prompt."""
    return tuple(kept(service, user, text, f"What is the sea? ({number})") for text in (SHORT, LONG))  # type: ignore[return-value]


def taste(learning: Learning, user: User) -> float:
    """By how much the head prefers the short text."""
    (short, _), (long, _) = learning.score(user, said("What is the sea?"), [SHORT, LONG])
    return short - long


# ---- acts ---------------------------------------------------------------------------------------------------------


def test_before_the_first_act_the_head_is_the_shared_prior(service: Service) -> None:
    head, prior = service.learning.head(service.ada.id), prior_head(service.engine.population.prior)
    assert np.array_equal(head.mean, prior.mean)
    assert np.array_equal(head.cov, prior.cov)
    assert not service.learning.has_learned(service.ada)


def test_a_thumb_is_on_disk_and_in_the_head(service: Service) -> None:
    reply_id = kept(service, service.ada, SHORT)
    before = service.learning.head(service.ada.id)
    ack = service.learning.thumb(service.ada, reply_id, 1, ["short"], "yes")
    assert (ack.labels, ack.reply_id) == (1, "")
    assert 0 < ack.head_ms < 1000
    event = service.store.acts.event(service.ada.id, ack.feedback_id)
    assert (event.payload["thumb"], event.payload["reasons"], event.payload["comment"]) == (1, ["short"], "yes")
    after = service.learning.head(service.ada.id)
    assert not np.array_equal(after.mean, before.mean)
    features = service.learning.features([Draft(SHORT, [], True, "stop", np.zeros(16), 0.5)])
    assert after.score(features)[0][0] > before.score(features)[0][0]
    assert np.array_equal(service.learning.head(service.bob.id).mean, before.mean)  # nobody else's


def test_a_new_thumb_takes_the_place_of_the_old_one_and_zero_takes_it_back(service: Service) -> None:
    learning, ada = service.learning, service.ada
    reply_id, prior = kept(service, ada, SHORT), learning.head(ada.id)
    up, down = learning.thumb(ada, reply_id, 1), learning.thumb(ada, reply_id, -1)
    assert (up.labels, down.labels, learning.thumb_of(ada, reply_id)) == (1, 1, -1)
    back = learning.thumb(ada, reply_id, 0)
    assert (back.labels, learning.thumb_of(ada, reply_id)) == (0, 0)
    assert np.array_equal(learning.head(ada.id).mean, prior.mean)
    assert not learning.has_learned(ada)


def test_rankings_teach_a_taste_and_say_so(service: Service) -> None:
    learning, ada = service.learning, service.ada
    texts = (
        "You can see the sea when you walk, and you will like it.",
        "One can see the sea on a walk, and one will like it.",
    )
    acks = []
    for number in range(6):
        you, one = (kept(service, ada, text, f"What is the sea? ({number})") for text in texts)
        acks.append(learning.rank(ada, [[you], [one]]))
    (you_mean, _), (one_mean, _) = learning.score(ada, said("What is the sea?"), texts)
    assert you_mean - one_mean > 1.0
    assert "Now leaning to being spoken to as “you”." in [ack.changed for ack in acks]
    best = learning.profile(ada)[0]
    assert (best.name, best.evidence, best.words) == ("second_person", 6, "clearly for being spoken to as “you”")
    assert [view.evidence for view in learning.profile(service.bob)] == [0] * len(TRAIT_NAMES)


def test_a_new_ranking_takes_the_place_of_those_it_contains(service: Service) -> None:
    learning, ada = service.learning, service.ada
    a, b = pair(service, ada)
    c = kept(service, ada, "It is deep.", "What is the sea? (0)")
    learning.rank(ada, [[a], [b]])
    assert learning.rank(ada, [[b], [a]]).labels == 1
    assert learning.rank(ada, [[b], [c], [a]]).labels == 1
    assert learning.rank(ada, [[a], [b]]).labels == 2  # says less than the three did, so those stay
    assert learning.rank(ada, [[a, b]]).labels == 2


def test_neither_is_a_thumb_down_for_all_in_one_act(service: Service) -> None:
    a, b = pair(service, service.ada)
    ack = service.learning.rank(service.ada, [[a, b]], "neither")
    assert ack.labels == 1
    (preference, _), *rest = service.store.acts.preferences(service.ada.id)
    assert (preference.kind, preference.thumb, preference.rows, rest) == ("thumb", -1, 2, [])


def test_an_edit_is_kept_as_a_reply_that_beats_the_original(service: Service) -> None:
    learning, ada = service.learning, service.ada
    original = kept(service, ada, LONG)
    ack = learning.edit(ada, original, SHORT)
    (edited,) = service.store.chats.replies(ada.id, [ack.reply_id])
    assert (edited.source, edited.text, edited.arm) == ("edit", SHORT, "edit")
    assert edited.group_id == group_of(said("What is the sea?"))
    (read,) = service.engine.read(said("What is the sea?"), [SHORT])
    assert edited.latent == read.latent.tobytes()
    assert taste(learning, ada) > 0
    assert learning.edit(ada, original, "Wet.").labels == 1  # in place of the first edit


def test_latent_features_of_the_base_before_are_left_out(service: Service) -> None:
    learning, ada, store, mine = service.learning, service.ada, service.store, service.engine.base_id
    latent = np.full(len(service.engine.latents.directions), 2.0)

    def reply(text: str, base_id: str) -> str:
        draft = Draft(text, [1, 2], True, "stop", latent, 0.5)
        made = draft.as_reply(ada.id, said("What is the sea?"), base_id, source="chat", arm="base")
        store.chats.add_replies([made])
        return made.id

    def latents() -> list[bool]:
        """Whether each row of the newest act has any."""
        preference, base_id = store.acts.preferences(ada.id)[-1]
        assert base_id == mine
        rows = np.frombuffer(preference.features, dtype=np.float64).reshape(preference.rows, -1)
        return rows[:, -len(latent) :].any(axis=1).tolist()

    older, oldest, newer = reply(LONG, "other"), reply("It is deep.", "other"), reply(SHORT, mine)
    learning.thumb(ada, newer, 1)
    assert latents() == [True]
    learning.thumb(ada, older, 1)
    assert latents() == [False]
    learning.rank(ada, [[older], [oldest]])
    assert latents() == [False, False]
    learning.rank(ada, [[older], [newer]])
    assert latents() == [False, True]
    learning.rank(ada, [[newer, oldest]], "neither")
    assert latents() == [True, False]
    learning.edit(ada, older, "It is wet and wide.")
    assert latents() == [True, False], "the text as it should be is read by this base"
    assert len(store.chats.replies(ada.id, [older])[0].latent) == 8 * len(latent), "what is kept stays as it was"


def test_taking_back_forgets(service: Service) -> None:
    learning, ada = service.learning, service.ada
    first, second = pair(service, ada, 1), pair(service, ada, 2)
    learning.rank(ada, [[first[0]], [first[1]]])
    before = learning.head(ada.id)
    ack = learning.rank(ada, [[second[0]], [second[1]]])
    assert learning.retract(ada, ack.feedback_id).labels == 1
    assert learning.head(ada.id).mean.tobytes() == before.mean.tobytes()
    with pytest.raises(NotFound):
        learning.retract(ada, ack.feedback_id)
    with pytest.raises(NotFound):
        learning.retract(service.bob, ack.feedback_id)


def test_two_clicks_at_once_both_count(service: Service) -> None:
    learning, ada = service.learning, service.ada
    replies = [kept(service, ada, f"{SHORT} {'Yes.' * number}", f"Why {number}?") for number in range(8)]
    errors: list[Exception] = []

    def click(reply_id: str) -> None:
        try:
            learning.thumb(ada, reply_id, 1)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=click, args=(reply_id,)) for reply_id in replies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []
    assert learning.head(ada.id).labels == service.store.acts.label_count(ada.id) == 8


def test_a_restart_gives_the_same_head_to_the_last_bit(service: Service) -> None:
    learning, ada = service.learning, service.ada
    for number in range(5):
        short, long = pair(service, ada, number)
        learning.rank(ada, [[short], [long]])
    learning.thumb(ada, short, 1)
    learning.correct(ada, "emoji", -0.5)
    head = learning.head(ada.id)
    again = Learning(service.store, service.engine).head(ada.id)
    assert again is not head and again.mean.tobytes() == head.mean.tobytes()
    assert np.ascontiguousarray(again.cov).tobytes() == np.ascontiguousarray(head.cov).tobytes()
    assert (again.threshold, again.labels) == (head.threshold, head.labels)


def test_an_event_whose_refit_was_lost_is_not_lost(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    learning, ada = service.learning, service.ada
    short, long = pair(service, ada)

    def dies(user_id: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        learning.head(ada.id)
        patched.setattr(learning._heads, "refit", dies)
        learning.rank(ada, [[short], [long]])
    assert learning.head(ada.id).labels == 0
    assert Learning(service.store, service.engine).head(ada.id).labels == 1


def test_the_split_keeps_every_fifth_act_for_the_judge(service: Service) -> None:
    learning, ada = service.learning, service.ada
    for number in range(10):
        short, long = pair(service, ada, number)
        learning.rank(ada, [[short], [long]])
    split = learning.split_heads(ada.id)
    assert (split.train.labels, split.judge.labels, split.full.labels) == (8, 2, 10)


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thumb", [2, None, "1", True, 0.5])
def test_a_thumb_is_one_of_three(service: Service, thumb: Any) -> None:
    with pytest.raises(InvalidInput, match="can be 1, -1 or 0"):
        service.learning.thumb(service.ada, kept(service, service.ada, SHORT), thumb)


def test_bad_rankings_are_refused_and_nothing_is_kept(service: Service) -> None:
    learning, ada = service.learning, service.ada
    a, b = pair(service, ada)
    other = kept(service, ada, SHORT, "Something else?")
    bad: list[tuple[Any, str]] = [
        ([[a], [a]], "twice"),
        ([[a]], "names 1 replies"),
        ([], "names 0"),
        ([[a], []], "list of tiers"),
        ("a, b", "list of tiers"),
        ([[a], [other]], "different prompts"),
    ]
    for tiers, says in bad:
        with pytest.raises(InvalidInput, match=says):
            learning.rank(ada, tiers)
    with pytest.raises(InvalidInput, match="one tier"):
        learning.rank(ada, [[a], [b]], "neither")
    with pytest.raises(InvalidInput, match="'both'"):
        learning.rank(ada, [[a], [b]], "both")
    assert service.store.acts.events(ada.id) == []


def test_replies_of_others_do_not_exist(service: Service) -> None:
    a, b = pair(service, service.bob)
    own = kept(service, service.ada, SHORT, "What is the sea? (0)")
    learning, ada = service.learning, service.ada
    for act in (
        lambda: learning.thumb(ada, a, 1),
        lambda: learning.rank(ada, [[own], [b]]),
        lambda: learning.edit(ada, a, "Mine."),
        lambda: learning.thumb_of(ada, a),
        lambda: learning.thumb(ada, "r_nothing", 1),
    ):
        with pytest.raises(NotFound, match="There is no reply"):
            act()


def test_what_was_kept_out_of_learning_takes_no_feedback(service: Service) -> None:
    hidden, seen = (kept(service, service.ada, SHORT, learn=learn) for learn in (False, True))
    learning, ada = service.learning, service.ada
    for act in (
        lambda: learning.thumb(ada, hidden, 1),
        lambda: learning.rank(ada, [[seen], [hidden]]),
        lambda: learning.edit(ada, hidden, "Other."),
    ):
        with pytest.raises(Conflict, match="learn: false"):
            act()


def test_edits_comments_and_reasons_are_checked(service: Service) -> None:
    learning, ada = service.learning, service.ada
    reply_id = kept(service, ada, SHORT)
    for act, says in (
        (lambda: learning.edit(ada, reply_id, "  "), "is empty"),
        (lambda: learning.edit(ada, reply_id, "x" * 100_000), "at most 32,000"),
        (lambda: learning.edit(ada, reply_id, f" {SHORT} "), "as it was"),
        (lambda: learning.thumb(ada, reply_id, 1, "too long"), "reasons must be a list"),
        (lambda: learning.thumb(ada, reply_id, 1, [1]), "must be text"),
        (lambda: learning.thumb(ada, reply_id, 1, (), "x" * 5000), "at most 2,000"),
    ):
        with pytest.raises(InvalidInput, match=says):
            act()
    assert service.store.acts.events(ada.id) == []


# ---- what is known ------------------------------------------------------------------------------------------------


def test_a_correction_holds_and_can_be_taken_back(service: Service) -> None:
    learning, ada = service.learning, service.ada
    prior = learning.head(ada.id)
    ack = learning.correct(ada, "length", -0.5)
    assert ack.labels == 0  # no label, but something is known now
    assert learning.has_learned(ada)
    assert learning.head(ada.id).mean[TRAIT_NAMES.index("length")] == pytest.approx(-0.5 * STRONGEST, abs=0.1)
    view = learning.profile(ada)[0]
    assert (view.name, view.corrected, view.known) == ("length", True, True)
    assert view.weight == -0.5
    learning.correct(ada, "length", 1)
    assert learning.profile(ada)[0].weight == 1.0
    learning.correct(ada, "length", None)
    assert np.array_equal(learning.head(ada.id).mean, prior.mean)
    assert not any(view.corrected for view in learning.profile(ada))
    learning.correct(ada, "length", None)  # nothing left to take back: no harm done


@pytest.mark.parametrize("weight", [1.5, "1", True, float("nan")])
def test_a_weight_out_of_range_is_refused(service: Service, weight: Any) -> None:
    with pytest.raises(InvalidInput, match="can be -1 to 1, or null"):
        service.learning.correct(service.ada, "length", weight)


def test_an_unknown_trait_is_refused(service: Service) -> None:
    for name in ("latent_0", "nonsense", None, ["length"]):
        with pytest.raises(InvalidInput, match="no trait"):
            service.learning.correct(service.ada, name, 0.5)


def test_scores_are_the_heads_view(service: Service) -> None:
    learning, ada = service.learning, service.ada
    scores = learning.score(ada, said("Hello"), [SHORT, LONG])
    assert len(scores) == 2
    assert all(sd > 0 for _, sd in scores)
    for texts, says in (([], "1 to 64"), ([SHORT] * 65, "1 to 64"), ([""], "is empty"), ([3], "must be text")):
        with pytest.raises(InvalidInput, match=says):
            learning.score(ada, said("Hello"), texts)


def test_the_record_counts_arms_from_live_feedback(service: Service) -> None:
    learning, ada = service.learning, service.ada

    def reply(arm: str, version: int | None = None) -> str:
        return kept(service, ada, f"{arm} {version}", arm=arm, version=version)

    base, rerank = reply("base"), reply("rerank")
    old, new = reply("adapter+rerank", 1), reply("adapter+rerank", 2)
    ack = learning.rank(ada, [[new], [rerank], [base]])
    learning.rank(ada, [[rerank], [old]])
    learning.rank(ada, [[base, old]], "neither")
    learning.thumb(ada, new, 1)
    lines = {line.arm: line for line in learning.record(ada).arms}
    assert (lines["rerank"].comparisons, lines["rerank"].wins) == (3, 2.0)
    assert (lines["adapter+rerank"].comparisons, lines["adapter+rerank"].wins) == (3, 2.0)
    assert (lines["adapter+rerank"].thumbs, lines["adapter+rerank"].ups) == (2, 1)
    of_new = {line.arm: line for line in learning.record(ada, version=2).arms}
    assert (of_new["adapter+rerank"].comparisons, of_new["adapter+rerank"].thumbs) == (2, 1)
    learning.retract(ada, ack.feedback_id)
    assert {line.arm: line.comparisons for line in learning.record(ada).arms}["base"] == 0


def test_a_person_who_was_removed_is_forgotten(service: Service) -> None:
    learning, ada = service.learning, service.ada
    learning.thumb(ada, kept(service, ada, SHORT), 1)
    service.store.people.add("admin", "admin", "hash", admin=True)
    service.store.people.remove(ada.id)
    learning.forget(ada.id)
    assert learning.head(ada.id).labels == 0
