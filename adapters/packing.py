"""Prompts and their replies as training batches: the prompt once, its replies side by side.

A packed row is [prompt | reply 1 | reply 2 | …]. A mask lets every reply see the prompt and itself only, and positions
start again after the prompt for each, so the log-probabilities are those of separate sequences at a fraction of the
work (what the top layers do with the prompt is shared by its replies). The inputs are trunk activations, computed
once while the replies were written; the layers below the first trained one never run again.

Left out: each reply's last token, which nothing is predicted from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROUND = 32  # lengths are multiples of this: a product of a new shape is compiled first, which takes milliseconds


@dataclass(frozen=True)
class Group:
    """One prompt and replies to it.

    prompt: P token ids; replies: token ids each (with the end token where it ended); ended: whether each ended by
    itself; prompt_trunk: (P, H); trunks: one (len(reply) - 1, H) each.
    """

    prompt: list[int]
    replies: list[list[int]]
    ended: list[bool]
    prompt_trunk: Tensor
    trunks: list[Tensor]

    @property
    def packed_length(self) -> int:
        """Positions this group takes in a packed row."""
        return len(self.prompt) + sum(len(reply) - 1 for reply in self.replies)

    def only(self, keep: Sequence[int]) -> Group:
        """The same prompt with some of its replies."""
        return Group(
            self.prompt,
            [self.replies[i] for i in keep],
            [self.ended[i] for i in keep],
            self.prompt_trunk,
            [self.trunks[i] for i in keep],
        )

    def joined(self, other: Group) -> Group:
        """The same prompt with these replies and then the other's."""
        return Group(
            self.prompt,
            self.replies + other.replies,
            self.ended + other.ended,
            self.prompt_trunk,
            self.trunks + other.trunks,
        )


@dataclass(frozen=True)
class PackedBatch:
    """Tensors for one forward through the top layers.

    hidden: (B, L, H) trunk activations; positions: (B, L); attention: (B, 1, L, L) additive; targets: (R, T) reply
    tokens, 0 where masked; response_mask: (R, T), True = counts; rows, columns: (R, T) where in (B, L) each target is
    predicted from.
    """

    hidden: Tensor
    positions: Tensor
    attention: Tensor
    targets: Tensor
    response_mask: Tensor
    rows: Tensor
    columns: Tensor


def pack(groups: Sequence[Group], device: torch.device, dtype: torch.dtype) -> PackedBatch:
    """Lay groups out as packed rows, one group a row, padded to one of a few lengths."""
    length = math.ceil(max(group.packed_length for group in groups) / ROUND) * ROUND
    width = groups[0].prompt_trunk.shape[-1]
    count = sum(len(group.replies) for group in groups)
    longest = max(len(reply) for group in groups for reply in group.replies)
    hidden = torch.zeros((len(groups), length, width), dtype=dtype)
    positions = torch.zeros((len(groups), length), dtype=torch.long)
    segments = torch.full((len(groups), length), -1, dtype=torch.long)
    targets = torch.zeros((count, longest), dtype=torch.long)
    mask = torch.zeros((count, longest), dtype=torch.bool)
    rows = torch.zeros((count, longest), dtype=torch.long)
    columns = torch.zeros((count, longest), dtype=torch.long)
    reply_index = 0
    for row, group in enumerate(groups):
        at = len(group.prompt)
        hidden[row, :at] = group.prompt_trunk.to(dtype)
        positions[row, :at] = torch.arange(at)
        segments[row, :at] = 0
        for segment, (reply, trunk) in enumerate(zip(group.replies, group.trunks, strict=True), start=1):
            size, fed = len(reply), len(reply) - 1
            assert trunk.shape[0] == fed, "a reply's trunk holds every token but its last"
            hidden[row, at : at + fed] = trunk.to(dtype)
            positions[row, at : at + fed] = len(group.prompt) + torch.arange(fed)
            segments[row, at : at + fed] = segment
            targets[reply_index, :size] = torch.tensor(reply)
            mask[reply_index, :size] = True
            rows[reply_index, :size] = row
            columns[reply_index, :size] = torch.cat([torch.tensor([len(group.prompt) - 1]), at + torch.arange(fed)])
            at += fed
            reply_index += 1
    return PackedBatch(
        hidden.to(device),
        positions.to(device),
        _attention(segments, dtype).to(device),
        targets.to(device),
        mask.to(device),
        rows.to(device),
        columns.to(device),
    )


def _attention(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, L) segment numbers (0 prompt, 1… replies, -1 padding) → additive mask (B, 1, L, L)."""
    length = segments.shape[1]
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones((length, length), dtype=torch.bool).tril()
    allowed = causal & ((key == 0) | (key == query)) & (key >= 0)
    allowed |= torch.eye(length, dtype=torch.bool)  # a padding position sees itself, so that no row is empty
    zero = torch.zeros((), dtype=dtype)
    return torch.where(allowed, zero, torch.finfo(dtype).min)[:, None]


def micro_batches(groups: Sequence[Group], max_positions: int) -> list[list[int]]:
    """Split groups, longest first, into batches of at most `max_positions` padded positions (but of one at least)."""
    order = sorted(range(len(groups)), key=lambda i: -groups[i].packed_length)
    batches: list[list[int]] = []
    for index in order:
        if batches and groups[batches[-1][0]].packed_length * (len(batches[-1]) + 1) <= max_positions:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


@dataclass(frozen=True)
class Part:
    """Groups that go through the top layers together. rows: where their replies stand among those of all groups."""

    groups: list[Group]
    rows: Tensor
    packed: PackedBatch


def lay_out(
    groups: Sequence[Group], members: Sequence[int], max_positions: int, device: torch.device, dtype: torch.dtype
) -> list[Part]:
    """Pack some of the groups, once for all passes over them. All groups have as many replies as the first."""
    parts = []
    for places in micro_batches([groups[i] for i in members], max_positions):
        together = [members[place] for place in places]
        replies = len(groups[0].replies)
        rows = torch.cat([torch.arange(replies) + i * replies for i in together])
        parts.append(Part([groups[i] for i in together], rows, pack([groups[i] for i in together], device, dtype)))
    return parts


def response_mask(groups: Sequence[Group]) -> Tensor:
    """(R, T) over the replies of all groups, True where a reply has a token."""
    lengths = torch.tensor([len(reply) for group in groups for reply in group.replies])
    return torch.arange(int(lengths.max()))[None] < lengths[:, None]
