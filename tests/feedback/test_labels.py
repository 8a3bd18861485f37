"""From acts to training labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import labels
from feedback.errors import InvalidInput
from feedback.population import Population, load_population
from feedback.reward_head import fit
from feedback.store import Store
from feedback.traits import TRAIT_NAMES
from feedback.types import Preference, Reply
from tests.feedback.helpers import BASE, add_person, make_reply

POPULATION = load_population(16)
SHORT = "Yes."
LONG = "Yes, of course, and there is a great deal more that could be said about it. " * 4


def as_kept(fields: dict[str, object]) -> Preference:
    """A preference as it comes back from the store."""
    tiers = tuple(tuple(tier) for tier in fields["tiers"])  # type: ignore[attr-defined]
    return Preference(feedback_id="f", seq=1, held_out=False, **(fields | {"tiers": tiers}))  # type: ignore[arg-type]


@pytest.fixture
def replies(store: Store) -> list[Reply]:
    """A short and a long stored reply to one prompt."""
    user = add_person(store)
    made = [make_reply(user, SHORT), make_reply(user, LONG, latent=np.arange(16.0).tobytes())]
    store.chats.add_replies(made)
    return made


def length_weight(fields: dict[str, object]) -> float:
    """Weight of the length after one act."""
    head = fit([labels.act_of(as_kept(fields), POPULATION, same_base=True)], POPULATION.prior)
    return float(head.mean[TRAIT_NAMES.index("length")])


def test_each_act_points_the_right_way(replies: list[Reply]) -> None:
    short, long = replies
    assert length_weight(labels.ranking_preference(replies, [[short.id], [long.id]], POPULATION)) < 0
    assert length_weight(labels.ranking_preference(replies, [[long.id], [short.id]], POPULATION)) > 0
    assert length_weight(labels.thumb_preference(short, 1, POPULATION)) < 0
    assert length_weight(labels.thumb_preference(short, -1, POPULATION)) > 0
    assert length_weight(labels.edit_preference(long, replace(short, source="edit"), POPULATION)) < 0
    assert length_weight(labels.neither_preference([long], POPULATION)) < 0
    assert length_weight(labels.correction_preference("length", -1.5, POPULATION)) == pytest.approx(-1.5, abs=0.1)


def test_tiers_may_name_some_replies_only(replies: list[Reply]) -> None:
    fields = labels.ranking_preference(replies, [[replies[1].id]], POPULATION)
    assert fields["tiers"] == [[1]] and fields["rows"] == 2


def test_latent_features_travel_with_their_base_only(replies: list[Reply]) -> None:
    preference = as_kept(labels.ranking_preference(replies, [[replies[0].id], [replies[1].id]], POPULATION))
    width = len(POPULATION.names)
    same = labels.act_of(preference, POPULATION, same_base=True).features
    other = labels.act_of(preference, POPULATION, same_base=False).features
    assert same.shape == other.shape == (2, width)
    assert np.array_equal(same[:, : width - 16], other[:, : width - 16])
    assert same[1, width - 16 :].tolist() == np.clip(np.arange(16.0), -4, 4).tolist()
    assert not other[:, width - 16 :].any()


def test_a_reply_without_latent_features_has_zeros(replies: list[Reply]) -> None:
    assert not labels.reply_features([replace(replies[0], latent=b"")], POPULATION)[0, -16:].any()


def latents_of(preference: Preference) -> np.ndarray:
    """The latent features in a kept preference, (rows, 16)."""
    return np.frombuffer(preference.features, dtype=np.float64).reshape(preference.rows, -1)[:, -16:]


def test_what_another_base_wrote_is_learned_from_without_its_latent_features(replies: list[Reply]) -> None:
    long = replies[1]
    older = replace(long, id="r_older", base_id="other")
    assert labels.of_base([older, long], BASE) == [replace(older, latent=b""), long]
    mixed = labels.ranking_preference(labels.of_base([older, long], BASE), [["r_older"], [long.id]], POPULATION)
    latents = latents_of(as_kept(mixed))
    assert not latents[0].any() and latents[1].tolist() == np.clip(np.arange(16.0), -4, 4).tolist()
    assert labels.of_base([older], "other") == [older]


def test_another_prior_measures_them_so_as_well(store: Store, replies: list[Reply]) -> None:
    """A click is learned from on the base that served then, whichever had written."""
    user = add_person(store, "bob")
    mine = [replace(replies[1], id=f"r_{base}", user_id=user.id, base_id=base) for base in ("other", BASE)]
    store.chats.add_replies(mine)
    old, names = replace(POPULATION, version="older"), [reply.id for reply in mine]
    tiers = [[name] for name in names]
    for base in (BASE, "other"):
        fields = labels.ranking_preference(labels.of_base(mine, base), tiers, old)
        store.acts.add(user.id, "ranking", {"ranking": tiers, "verdict": None}, names, base, fields)
    before = [preference.features for preference, _ in store.acts.preferences(user.id)]
    assert labels.remake_preferences(store, POPULATION) == 2
    remade = store.acts.preferences(user.id)
    assert [preference.features for preference, _ in remade] == before
    assert [latents_of(preference).any(axis=1).tolist() for preference, _ in remade] == [[False, True], [True, False]]


def test_features_of_another_prior_are_not_mixed_in(replies: list[Reply]) -> None:
    preference = as_kept(labels.thumb_preference(replies[0], 1, replace(POPULATION, version="older")))
    with pytest.raises(AssertionError, match="remake_preferences"):
        labels.act_of(preference, POPULATION, same_base=True)


def keep_one_of_each(store: Store, replies: list[Reply], population: Population) -> str:
    """One act of every kind, with payloads as the product writes them; the person's id."""
    short, long = replies
    user_id = short.user_id
    edited = replace(long, id="r_edited", text=SHORT * 2, source="edit")
    store.chats.add_replies([edited])

    def keep(kind: str, payload: dict[str, object], names: list[str], fields: dict[str, object]) -> None:
        store.acts.add(user_id, kind, payload, names, BASE, fields)  # type: ignore[arg-type]

    both = [long.id, short.id]
    keep("thumb", {"reply_id": long.id, "thumb": 1}, [long.id], labels.thumb_preference(long, 1, population))
    tiers = [[long.id], [short.id]]
    ranked = labels.ranking_preference([long, short], tiers, population)
    keep("ranking", {"ranking": tiers, "verdict": None}, both, ranked)
    neither = labels.neither_preference([long, short], population)
    keep("ranking", {"ranking": [both], "verdict": "neither"}, both, neither)
    edit = {"reply_id": long.id, "edit": edited.text, "edited_reply_id": edited.id}
    keep("edit", edit, [long.id, edited.id], labels.edit_preference(long, edited, population))
    set_by_hand = labels.correction_preference("emoji", 1.1, population)
    keep("correction", {"name": "emoji", "weight": 0.5}, [], set_by_hand)
    return user_id


def test_another_prior_measures_everything_anew(store: Store, replies: list[Reply]) -> None:
    old = replace(POPULATION, version="older", center=POPULATION.center + 1.0, scale=POPULATION.scale * 3)
    user_id = keep_one_of_each(store, replies, old)
    assert labels.remake_preferences(store, POPULATION) == 5
    remade = [preference for preference, _ in store.acts.preferences(user_id)]

    store.acts.retract(user_id, remade[0].feedback_id)  # the same acts, made under this prior from the start
    fresh = Store(None)
    user = add_person(fresh)
    mine = [replace(reply, user_id=user.id) for reply in replies]
    fresh.chats.add_replies(mine)
    wanted = [preference for preference, _ in fresh.acts.preferences(keep_one_of_each(fresh, mine, POPULATION))]
    fresh.close()
    assert [replace(each, feedback_id="") for each in remade] == [replace(each, feedback_id="") for each in wanted]
    assert labels.remake_preferences(store, POPULATION) == 0


def test_a_correction_of_a_trait_that_is_gone_corrects_nothing(store: Store) -> None:
    user = add_person(store)
    fields = labels.correction_preference("emoji", 1.0, replace(POPULATION, version="older"))
    store.acts.add(user.id, "correction", {"name": "smoke_signals", "weight": 1.0}, [], BASE, fields)
    labels.remake_preferences(store, POPULATION)
    ((preference, _),) = store.acts.preferences(user.id)
    assert not labels.act_of(preference, POPULATION, same_base=True).features.any()


@pytest.mark.parametrize(
    ("ranking", "says"),
    [
        ("r1", "list of tiers"),
        ([], "names 0 replies"),
        ([[]], "list of tiers"),
        ([["r1"], []], "list of tiers"),
        ([["r1", 2]], "list of tiers"),
        ({"r1": 1}, "list of tiers"),
        (None, "list of tiers"),
        ([["r1"]], "names 1 replies"),
        ([["r1"], ["r2", "r1"]], "r1 twice"),
        ([[f"r{i}"] for i in range(13)], "names 13 replies"),
    ],
)
def test_a_faulty_ranking_is_refused_by_name(ranking: object, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        labels.check_tiers(ranking)
    assert caught.value.param == "ranking"


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


@given(json_like)
def test_any_ranking_is_either_refused_or_sound(value: object) -> None:
    try:
        tiers = labels.check_tiers(value)
    except InvalidInput:
        return
    named = [name for tier in tiers for name in tier]
    assert len(set(named)) == len(named) and 2 <= len(named) <= labels.MAX_RANKED and all(tiers)
