"""Packed rows give what separate sequences give."""

from __future__ import annotations

import pytest
import torch

from adapters.packing import ROUND, Group, _attention, lay_out, micro_batches, pack, response_mask
from adapters.policy import Policy
from adapters.pool import reply_logprobs
from tests.adapters.helpers import disturb, replies

TEMPERATURE = 0.8


def plain_logprobs(policy: Policy, group: Group) -> list[torch.Tensor]:
    """What transformers gives for each reply by itself, as one sequence behind its prompt."""
    rows = []
    for reply in group.replies:
        ids = torch.tensor([group.prompt + reply], device=policy.device)
        with torch.no_grad():
            logits = policy.model(ids).logits[0].float().cpu() / TEMPERATURE
        at = torch.arange(len(reply))
        rows.append(torch.log_softmax(logits, -1)[len(group.prompt) - 1 + at, torch.tensor(reply)])
    return rows


@pytest.mark.parametrize("adapter", [None, "mia"])
def test_packed_logprobs_are_those_of_plain_forwards(exact: Policy, adapter: str | None) -> None:
    exact.new_adapter("mia")
    disturb(exact, "mia", seed=1)
    groups = replies(exact, copies=3)
    groups[1] = Group(*[part if i in (0, 3) else part[:2] for i, part in enumerate(vars(groups[1]).values())])  # uneven
    groups[2].replies[0][4:] = []  # and a shorter reply
    groups[2].trunks[0] = groups[2].trunks[0][:3]
    packed = reply_logprobs(exact, groups, TEMPERATURE, adapter)
    exact.use(adapter)
    for group, rows in zip(groups, packed, strict=True):
        for reply, found, expected in zip(group.replies, rows, plain_logprobs(exact, group), strict=True):
            torch.testing.assert_close(found[: len(reply)].cpu(), expected, atol=2e-4, rtol=0)
            assert not found[len(reply) :].any(), "beyond the end there is nothing"


def test_in_the_served_precision_they_agree_as_far_as_it_goes(policy: Policy) -> None:
    groups = replies(policy, copies=2, tokens=16)
    packed = reply_logprobs(policy, groups, TEMPERATURE)
    gaps = [
        float((found[: len(reply)].cpu() - expected).abs().mean())
        for group, rows in zip(groups, packed, strict=True)
        for reply, found, expected in zip(group.replies, rows, plain_logprobs(policy, group), strict=True)
    ]
    assert sum(gaps) / len(gaps) < 0.08 and max(gaps) < 0.16, f"mean differences of a reply: {gaps}"


def test_a_reply_sees_the_prompt_and_itself_only() -> None:
    # Two prompt tokens, replies of two and of one token, one position of padding.
    seen = _attention(torch.tensor([[0, 0, 1, 1, 2, -1]]), torch.float32)[0, 0] == 0
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],  # padding sees the prompt, or at least itself: no row may be empty
    ]
    assert seen.int().tolist() == expected


def test_every_token_is_predicted_from_the_position_before_it() -> None:
    group = Group([10, 11], [[7, 8, 9], [5]], [True, False], torch.zeros(2, 4), [torch.ones(2, 4), torch.zeros(0, 4)])
    packed = pack([group], torch.device("cpu"), torch.float32)
    assert packed.targets.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert packed.response_mask.tolist() == [[True, True, True], [True, False, False]]
    # Row: prompt at 0, 1; first reply's 7, 8 at 2, 3. The first token of each reply comes after the prompt's last.
    assert packed.columns[packed.response_mask].tolist() == [1, 2, 3, 1]
    assert packed.positions[:, :4].tolist() == [[0, 1, 2, 3]]
    assert packed.hidden[0, :4, 0].tolist() == [0, 0, 1, 1]
    assert packed.hidden.shape[1] == ROUND and not (packed.attention[0, 0, :4, 4:] == 0).any(), "nobody sees padding"


def test_micro_batches_hold_every_group_once_within_the_bound() -> None:
    groups = [
        Group([1] * n, [[2] * m], [True], torch.zeros(n, 1), [torch.zeros(m - 1, 1)])
        for n, m in ((5, 3), (50, 9), (1, 1), (20, 2), (7, 7), (90, 40))
    ]
    batches = micro_batches(groups, 60)
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    padded = [len(batch) * max(groups[i].packed_length for i in batch) for batch in batches]
    assert all(size <= 60 or len(batch) == 1 for size, batch in zip(padded, batches, strict=True))
    assert batches == [[5], [1], [3, 4], [0, 2]], "longest first, which wastes the least padding"


def test_parts_know_which_rows_of_the_whole_they_hold() -> None:
    groups = [
        Group([1], [[number, 2], [number, 3, 4]], [True] * 2, torch.zeros(1, 1), [torch.zeros(1, 1), torch.zeros(2, 1)])
        for number in (10, 20, 30)
    ]
    parts = lay_out(groups, [2, 0], max_positions=4, device=torch.device("cpu"), dtype=torch.float32)
    assert [part.rows.tolist() for part in parts] == [[4, 5], [0, 1]]
    mask = response_mask(groups)
    assert mask.tolist() == [[True, True, False], [True, True, True]] * 3
    for part in parts:
        assert torch.equal(part.packed.response_mask, mask[part.rows])
        assert part.packed.targets[:, 0].tolist() == [part.groups[0].replies[0][0]] * 2
