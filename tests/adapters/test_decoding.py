"""Sampling and the bookkeeping of a generation."""

from __future__ import annotations

import pytest
import torch

from adapters import prefill
from adapters.decoding import Generation, Sampling, sample
from adapters.policy import Policy
from feedback.errors import InvalidInput


def test_temperature_zero_takes_the_most_likely() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 1.9]])
    assert sample(logits, 0.0, 1.0, torch.tensor([0.99, 0.99])).tolist() == [1, 0]


def test_draws_follow_the_distribution() -> None:
    # Uniform draws on an even grid turn into each token's exact share.
    probabilities = torch.tensor([0.5, 0.2, 0.0, 0.3])
    grid = (torch.arange(1000) + 0.5) / 1000
    logits = probabilities.log().repeat(1000, 1)
    shares = torch.bincount(sample(logits.clone(), 1.0, 1.0, grid), minlength=4) / 1000
    torch.testing.assert_close(shares, probabilities, atol=2e-3, rtol=0)
    # Temperature 2 takes the root of every probability.
    roots = probabilities.sqrt() / probabilities.sqrt().sum()
    shares = torch.bincount(sample(logits, 2.0, 1.0, grid), minlength=4) / 1000
    torch.testing.assert_close(shares, roots, atol=2e-3, rtol=0)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    grid = (torch.arange(1000) + 0.5) / 1000
    logits = torch.tensor([0.5, 0.2, 0.0, 0.3]).log().repeat(1000, 1)
    shares = torch.bincount(sample(logits.clone(), 1.0, 0.7, grid), minlength=4) / 1000
    # 0.5 alone falls short of 0.7; with 0.3 it is reached: the two are shared out 5 to 3.
    torch.testing.assert_close(shares, torch.tensor([0.625, 0.0, 0.0, 0.375]), atol=2e-3, rtol=0)
    assert sample(logits[:1], 1.0, 1e-6, torch.tensor([0.999])).tolist() == [0]


def test_no_draw_ever_lands_on_an_impossible_token() -> None:
    logits = torch.full((2, 50_000), -torch.inf)
    logits[:, [7, 40_000]] = 0.0
    edges = torch.tensor([0.0, 1.0 - 2**-24])
    assert sample(logits, 1.0, 1.0, edges).tolist() == [7, 40_000]


@pytest.mark.parametrize("wrong", [{"temperature": -0.1}, {"temperature": 2.5}, {"top_p": 0.0}, {"max_tokens": 0}])
def test_impossible_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_the_first_token_is_drawn_from_the_models_distribution(policy: Policy) -> None:
    prompt = policy.render([{"role": "user", "content": "Answer with one word: which animal barks?"}])
    copies = 400
    batch = Generation([prompt], copies, Sampling(0.8, 1.0, 1, seed=5), policy.renderer.end_ids)
    batch.run(policy)
    with torch.inference_mode():
        logits = policy.model(torch.tensor([prompt])).logits[0, -1].float()
    expected = torch.softmax(logits / 0.8, -1)
    found = torch.bincount(torch.tensor([reply[0] for reply in batch.replies]), minlength=len(expected)) / copies
    top = expected.topk(5).indices
    sd = (expected[top] * (1 - expected[top]) / copies).sqrt()
    assert expected[top].sum() > 0.3, "the most likely tokens must matter for this test to mean something"
    assert ((found[top] - expected[top]).abs() < 4 * sd + 0.01).all()


def test_the_same_seed_gives_the_same_replies_and_another_gives_others(policy: Policy) -> None:
    prompts = [policy.render([{"role": "user", "content": text}]) for text in ("Hi!", "Tell me about whales, please.")]

    def write(seed: int) -> list[list[int]]:
        batch = Generation(prompts, 2, Sampling(0.8, 1.0, 8, seed), policy.renderer.end_ids)
        batch.run(policy)
        return batch.replies

    first = write(1)
    assert first == write(1)
    assert first != write(2)
    assert first[2] != first[3], "copies of one prompt are drawn independently"


def test_rows_that_are_done_leave_and_the_others_are_not_disturbed(policy: Policy) -> None:
    prompts = [policy.render([{"role": "user", "content": text}]) for text in ("Hi!", "Tell me about whales, please.")]
    sampling = Sampling(0.0, 1.0, 10, 0)
    whole = Generation(prompts, 1, sampling, policy.renderer.end_ids)
    whole.run(policy)
    cut = Generation(prompts, 1, sampling, policy.renderer.end_ids, keep_trunk=True)
    for _ in range(4):
        cut.step(policy)
    cut.drop([0], policy.device)
    cut.run(policy)
    assert cut.replies[0] == whole.replies[0][:4]
    agree = sum(a == b for a, b in zip(cut.replies[1], whole.replies[1], strict=True))
    assert agree >= 9, "bf16 may turn a tie after the batch shrinks, no more"
    assert [len(trunk) for trunk in cut.trunks()] == [3, 9]
    torch.testing.assert_close(cut.trunk_means()[1], cut.trunks()[1].float().mean(0), atol=1e-2, rtol=1e-2)


def test_what_is_finished_stays_in_a_large_batch_until_it_is_an_eighth_of_it(policy: Policy) -> None:
    """And neither writes nor counts there; the others go on as if it were gone."""
    policy.use(None)

    def begin() -> Generation:
        batch = Generation(
            [policy.render([{"role": "user", "content": "Tell me about the sea."}])],
            17,
            Sampling(0.8, 1.0, 5, 3),
            [],
            keep_trunk=True,
        )
        batch.step(policy)
        batch.step(policy)
        return batch

    cut, whole = begin(), begin()
    cut.drop([4, 9], policy.device)
    assert cut.rows == 17
    assert sorted(cut.step(policy)) == [row for row in range(17) if row not in (4, 9)]
    cut.drop([16], policy.device)
    assert cut.rows == 14
    cut.run(policy)
    whole.run(policy)
    assert [len(reply) for reply in cut.replies] == [2 if row in (4, 9) else 3 if row == 16 else 5 for row in range(17)]
    assert [len(trunk) for trunk in cut.trunks()] == [len(reply) - 1 for reply in cut.replies]
    assert all(reply[:3] == other[: len(reply)][:3] for reply, other in zip(cut.replies, whole.replies, strict=True))
    for row in (0, 4, 16):
        torch.testing.assert_close(cut.trunk_means()[row], cut.trunks()[row].float().mean(0), atol=1e-2, rtol=1e-2)


def test_replies_go_on_as_copies_of_others(policy: Policy) -> None:
    """From the beginning they took over, each in its own way; whoever stays writes what it would have written."""
    prompt = policy.render([{"role": "user", "content": "Tell me about the sea."}])
    policy.use(None)

    def begin() -> Generation:
        batch = Generation([prompt], 6, Sampling(0.8, 1.0, 14, 3), [])
        for _ in range(8):
            batch.step(policy)
        return batch

    batch, alone = begin(), begin()
    before = [list(reply) for reply in batch.replies]
    batch.drop([5], policy.device)  # finished replies can become copies as well, and leave the batch before
    assert batch.unfinished == {0, 1, 2, 3, 4}
    batch.resample({0: 3, 1: 3, 5: 2}, policy.device)
    assert batch.unfinished == set(range(6)) and batch.rows == 6
    assert [reply[:8] for reply in batch.replies] == [before[row] for row in (3, 3, 2, 3, 4, 2)]
    batch.run(policy)
    alone.run(policy)
    assert [len(reply) for reply in batch.replies] == [14] * 6
    assert len({tuple(reply) for reply in batch.replies}) == 6, "each goes on in its own way"
    assert batch.replies[4] == alone.replies[4] and batch.replies[2] == alone.replies[2]
    read = policy.read(prompt, batch.replies, batch.ended)
    for row, trunk in enumerate(read.trunks):
        theirs = trunk.float().mean(0)
        assert torch.cosine_similarity(batch.trunk_means()[row], theirs, dim=0) > 0.999, row


def test_a_reply_ends_with_its_end_token(policy: Policy) -> None:
    prompt = policy.render([{"role": "user", "content": "Hi!"}])
    first = Generation([prompt], 1, Sampling(0.0, 1.0, 3, 0), policy.renderer.end_ids)
    first.run(policy)
    third = first.replies[0][2]
    ended = Generation([prompt], 1, Sampling(0.0, 1.0, 9, 0), {third})
    ended.run(policy)
    assert ended.replies == [first.replies[0][:3]]
    assert ended.ended == [True]
    assert first.ended == [False]


def test_a_prompt_that_goes_on_is_read_as_if_it_were_new(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps, from a known beginning, and in one go: the first two the same to the last bit, the third nearly."""
    monkeypatch.setattr(prefill, "READ_AT_ONCE", 16)
    words = "Tell me about the sea, its colours, its storms and the people who live by it, and be brief about each."
    first = policy.render([{"role": "user", "content": words}])
    longer = policy.render([{"role": "user", "content": words + " Then say what you like best."}])
    sampling, ends = Sampling(0.8, 1.0, 6, 3), policy.renderer.end_ids
    policy.use(None)

    def write(prompt: list[int], known: prefill.Prefix | None = None) -> Generation:
        batch = Generation([prompt], 2, sampling, ends, known=known)
        batch.run(policy)
        return batch

    prefix = write(first).prefix
    assert prefix is not None and len(prefix.ids) == (len(first) - 1) // 16 * 16
    shared = prefix.shared(longer)
    assert shared is not None and 16 <= len(shared.ids) < len(longer)
    new, on = write(longer), write(longer, shared)
    assert on.replies == new.replies
    assert torch.equal(on.trunk_means(), new.trunk_means()) and torch.equal(on.prompt_means(40), new.prompt_means(40))
    assert on.prefix is not None and len(on.prefix.ids) > len(shared.ids)
    monkeypatch.setattr(prefill, "READ_AT_ONCE", 1000)
    whole = write(longer)
    assert whole.prefix is None
    assert float((whole.prompt_means(40) - new.prompt_means(40)).norm() / new.prompt_means(40).norm()) < 0.02


def test_a_long_prompt_is_read_in_steps(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "READ_AT_ONCE", 16)
    prompt = policy.render([{"role": "user", "content": "Tell me about the sea. " * 8}])
    batch = Generation([prompt], 1, Sampling(0.0, 1.0, 3, 0), policy.renderer.end_ids)
    policy.use(None)
    steps = 0
    while batch.reading:
        assert batch.rows == 0
        batch.read(policy)
        steps += 1
    assert steps == (len(prompt) - 1) // 16
    assert len(batch.step(policy)) == 1 and batch.rows == 1 and not batch.reading
