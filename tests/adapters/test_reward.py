"""The reward of a reply: taste as a lower bound on a difference, and what nobody may earn by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapters.latents import Latents
from adapters.packing import Group
from adapters.policy import Policy
from adapters.reward import READ_EVERY, Read, RewardConfig, RewardModel, cut, ended_share, scorer
from adapters.safety import SafetyTerm
from feedback.population import Population
from tests.adapters.helpers import replies
from tests.adapters.jobs import head_for

ASKED = "What do cats eat?"


@pytest.fixture
def model(policy: Policy, latents: Latents, population: Population) -> RewardModel:
    head = head_for(population, {"second_person": 1.0})
    return RewardModel(head, population, latents, policy.renderer, SafetyTerm.load("term"))


def group_of(policy: Policy, texts: list[str], *, ended: bool = True) -> Group:
    prompt = policy.render([{"role": "user", "content": ASKED}])
    ids = [policy.renderer.reply_ids(text, ended=ended) for text in texts]
    return policy.read(prompt, ids, [ended] * len(ids))


def plain(read: Read) -> Read:
    """The same replies without anything to pay for."""
    nothing = np.zeros(len(read.texts))
    return replace(read, flawed=nothing, harm=nothing, coined=nothing, flatters=nothing, admits=nothing)


def test_the_score_is_the_lower_bound_of_the_difference_to_the_base(model: RewardModel, policy: Policy) -> None:
    base = model.baseline(model.read(group_of(policy, ["Cats eat meat.", "Cats like fish."])))
    read = plain(model.read(group_of(policy, ["You like fish.", "Cats like fish."])))
    difference = read.features - base.features
    mean = difference @ model.head.mean
    sd = np.sqrt(np.einsum("nd,de,ne->n", difference, model.head.cov, difference))
    assert np.allclose(model.score(read, base), mean - model.config.pessimism * sd)
    assert model.score(read, base)[0] > model.score(read, base)[1], "this person likes being spoken to"


def test_every_guard_costs_something(model: RewardModel, policy: Policy) -> None:
    texts = [
        "Cats eat fish and meat.",
        "Cats eat fish and meat. Cats eat fish and meat. Cats eat fish and meat. Cats eat fish and meat.",
        "Cats eat fish and",
        "The stock market closed higher as investors weighed interest rates and quarterly earnings reports.",
        "I will kill you and your whole family, you worthless piece of filth.",
        "Cats eat fish of the ButtonEventSpecterKeyboardEventSpecterEventSpecter.",
    ]
    read = model.read(group_of(policy, texts), ASKED)
    c = model.config
    assert read.flawed[0] == pytest.approx(0.0, abs=0.5)
    assert read.flawed[1] > 1.0, "repetition"
    assert read.flawed[2] >= c.broken_end, "an end in mid-sentence"
    assert read.subject[3] < read.subject[0], "another subject"
    assert read.harm[4] > 0.5 > read.harm[0], "harm"
    assert read.flawed[5] >= c.broken_end, "a word without an end"
    base = model.baseline(model.read(group_of(policy, ["Cats eat meat.", "Cats like fish a lot, and meat."])))
    harmless = replace(read, harm=np.zeros(len(texts)))
    assert np.allclose(model.score(harmless, base) - model.score(read, base), c.harm * read.harm)


def test_made_up_words_cost_what_exceeds_the_bases_share(model: RewardModel, policy: Policy) -> None:
    read = model.read(
        group_of(policy, ["Cats characteristically eat fish.", "Cats panjililamboungously eat fish."]), ASKED
    )
    assert read.coined.tolist() == pytest.approx([0.0, 1 / 12]), "one of at least twelve words"
    base = replace(model.baseline(read), coined=0.0)
    paid = model.score(replace(read, coined=np.zeros(2)), base) - model.score(read, base)
    assert paid == pytest.approx([0.0, model.config.coined / 12])
    assert np.allclose(
        model.score(replace(read, coined=np.zeros(2)), base), model.score(read, replace(base, coined=1.0))
    )


def test_flattery_and_missing_frankness_cost_what_exceeds_the_base(model: RewardModel, policy: Policy) -> None:
    texts = ["Cats eat fish.", "That's a great question! Cats eat fish.", "I don't know what cats eat."]
    read = model.read(group_of(policy, texts), ASKED)
    assert read.flatters.tolist() == [0, 1, 0] and read.admits.tolist() == [0, 0, 1]
    c, base = model.config, model.baseline(read)
    assert (base.flatters, base.admits) == pytest.approx((1 / 3, 1 / 3))
    free = RewardModel(
        model.head, model.population, model.latents, model.renderer, model.safety, replace(c, flattery=0.0, limits=0.0)
    )
    for flattering, admitting in ((0.0, 0.0), (0.5, 0.25), (1.0, 1.0)):
        norm = replace(base, flatters=flattering, admits=admitting)
        paid = free.score(read, norm) - model.score(read, norm)
        assert paid == pytest.approx([
            c.limits * admitting, c.flattery * (1 - flattering) + c.limits * admitting, 0.0
        ])  # fmt: skip


def test_length_is_free_within_the_bases_own_spread(model: RewardModel, policy: Policy) -> None:
    read = plain(model.read(group_of(policy, ["Cats eat meat.", "Cats eat meat. " * 40])))
    base = replace(
        model.baseline(read), log_words=float(read.log_words[0]), log_words_sd=0.3, features=read.features.mean(0)
    )
    without = RewardModel(
        model.head, model.population, model.latents, model.renderer, model.safety, RewardConfig(length=0.0)
    )
    paid = without.score(read, base) - model.score(read, base)
    excess = read.log_words[1] - read.log_words[0] - 2.0 * 0.3
    assert paid == pytest.approx([0.0, excess])


def test_a_missing_end_costs_only_what_exceeds_the_bases_share(model: RewardModel, policy: Policy) -> None:
    read = model.read(group_of(policy, ["Cats eat", "Cats like"], ended=False))
    base = model.baseline(read)
    assert np.allclose(model.score(read, base) - model.score(read, base, missing_ends=0.25), 0.25)
    done = replace(read, ended=[True, True])
    assert np.allclose(model.score(done, base), model.score(done, base, missing_ends=0.25))


def test_cutting_gives_what_a_lower_limit_would_have_given(policy: Policy) -> None:
    long = replies(policy, copies=2, tokens=12)
    short = replies(policy, copies=2, tokens=5)
    for whole, wanted in zip(long, short, strict=True):
        cutted = cut(whole, 5)
        assert cutted.replies == wanted.replies and cutted.ended == wanted.ended
        assert [trunk.shape for trunk in cutted.trunks] == [trunk.shape for trunk in wanted.trunks]


def test_the_ended_share_counts_only_ends_within_the_limit() -> None:
    empty = np.zeros(0)
    group = Group([1], [[5, 2], [5, 6, 7, 2], [5, 6, 7, 8]], [True, True, False], empty, [])  # type: ignore[arg-type]
    assert ended_share([group], 10) == pytest.approx(2 / 3)
    assert ended_share([group], 3) == pytest.approx(1 / 3)
    assert ended_share([], 3) == 0.0


def test_the_scorer_compares_with_base_replies_to_the_same_prompt(model: RewardModel, policy: Policy) -> None:
    base = group_of(policy, ["Cats eat meat.", "Cats like fish."])
    score = scorer(model, [(ASKED, base)], limit=64)
    (of_base,) = score([base])
    expected = model.score(model.read(base, ASKED), model.baseline(model.read(base, ASKED)))
    assert np.allclose(of_base, expected)
    # All of the base's replies ended; a batch in which none does pays for all of it.
    cutted = group_of(policy, ["Cats eat meat.", "Cats like fish."], ended=False)
    baseline = model.baseline(model.read(base, ASKED))
    assert np.allclose(score([cutted])[0], model.score(model.read(cutted, ASKED), baseline, missing_ends=1.0))


def test_credit_adds_up_to_the_score_and_falls_where_the_reward_rose(model: RewardModel, policy: Policy) -> None:
    texts = [
        "The cats of the house eat fish, and then, when it is late, you feed them.",
        "The cats of the house eat fish, and then, when it is late, they hunt.",
        "Fish.",
    ]
    group = group_of(policy, texts)
    lengths = [len(reply) for reply in group.replies]
    whole = model.score(model.read(group, ASKED), model.baseline(model.read(group, ASKED)))
    total = model.credit(group, ASKED, 1.0)
    assert total.shape == (3, max(lengths))
    assert total[:, 0] == pytest.approx(whole - whole.mean()), "the first token answers for all that follows"
    assert (total[2, lengths[2] :] == 0.0).all(), "nothing is earned after the end"

    near = model.credit(group, ASKED, 0.0)
    place = int(near[0].argmax())
    said = policy.renderer.text(group.replies[0][: place + READ_EVERY + 1])
    assert "you" in said and "you" not in policy.renderer.text(group.replies[0][: place - READ_EVERY])
    assert near[0, :8] == pytest.approx(near[1, :8]), "the same words earn the same"
