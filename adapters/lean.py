"""One decoding step of a Llama-like model on a CPU, without what a general forward spends its time on.

More than half of a step went into Python: 210 quantized layers, 70 LoRA layers, masks and caches, each with its checks
(LOG.md). Here the same numbers go through the same weights in some 25 operations a layer. Layers that read the same
input are multiplied together (adapters/lean_layers.py), the LoRA ones too. Replies of several people, each with an
adapter of its own, take a step together and read the weights once.

Left out on purpose: prompts, training, GPUs, and models with biases, windows or other norms, all of which transformers
does; `lean_step_for` says None there. Results differ from transformers' as much as rounding to bf16 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from adapters.cache import GrowingLayer
from adapters.decoding import Part
from adapters.lean_layers import Linears, LlamaLayer, attend_fused, is_plain_llama, norm

TOGETHER_KEPT = 2  # sets of people whose matrices stand side by side
STACKS_KEPT = 16  # adapters whose stacked matrices are kept; 5 MB each on the embedded base


def lean_step_for(model: PreTrainedModel, split: int) -> LeanStep | None:
    """A step for this model, None where only transformers knows how. split: the layer whose input is the trunk."""
    return LeanStep(model, split) if is_plain_llama(model) else None


class LeanStep:
    """The step. Reads the model's own parameters, so what is trained or loaded there counts at once."""

    def __init__(self, model: Any, split: int) -> None:
        decoder, config = model.model, model.config
        self._embedding, self._head, self._norm = decoder.embed_tokens, model.get_output_embeddings(), decoder.norm
        self._rotary = decoder.rotary_emb
        self._layers = [_Layer(layer, config) for layer in decoder.layers]
        self._split = split
        self._heads = (config.num_attention_heads, config.num_key_value_heads, decoder.layers[0].self_attn.scaling)
        self._stacks: dict[str, _Stacks] = {}
        self._together: list[tuple[list[_Stacks], list[list[_Lora | None]]]] = []

    @torch.inference_mode()
    def __call__(self, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
        """The parts' rows as one batch of R → hidden (R, H), trunk (R, 1, H).

        Weights are read once for all; attention and LoRA are each part's own. The fused kernel multiplies every row as
        it would alone, so that with at most `together()` rows a part's result does not depend on who else is there,
        to the last bit; where that kernel is missing, but for rounding.
        """
        # Whoever has the turn comes first; adapters side by side want one order.
        order = sorted(range(len(parts)), key=lambda i: (len(parts[i].ids), parts[i].adapter or ""))
        places, start = [slice(0)] * len(parts), 0
        for i in order:
            places[i] = slice(start, start + len(parts[i].ids))
            start = places[i].stop
        hidden, trunk = self._sorted([parts[i] for i in order], [places[i] for i in order])
        if len(parts) > 1:
            hidden, trunk = (torch.cat([each[rows] for rows in places]) for each in (hidden, trunk))
        return hidden, trunk[:, None]

    def _sorted(self, parts: Sequence[Part], rows: Sequence[slice]) -> tuple[Tensor, Tensor]:
        """The step with parts of one size and their adapters in order; rows: of each part. → (R, H) twice."""
        members = [
            _Member(each, _bias(part, self._embedding.weight.dtype), part.cache)
            for part, each in zip(parts, rows, strict=True)
        ]
        hidden = F.embedding(_joined([part.ids[:, 0] for part in parts]), self._embedding.weight)
        turn = self._turn(*self._rotary(hidden[:, None], _joined([part.positions for part in parts])))
        crews = self._crews([(member.rows, part.adapter) for member, part in zip(members, parts, strict=True)])
        trunk = hidden
        for place, layer in enumerate(self._layers):
            if place == self._split:
                trunk = hidden
            hidden = layer(hidden, turn, members, crews, place)
        return norm(hidden, self._norm), trunk

    def _turn(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """What a head and the head with its halves swapped are multiplied by, (R, heads, d) each.

        Queries are scaled by the way, and values stay as they are, so that all heads go through one multiplication.
        """
        half = cos.shape[-1] // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        queries, shared, scaling = self._heads

        def for_heads(turn: Tensor, still: Tensor) -> Tensor:
            """Of queries, keys and values."""
            sizes = ((turn * scaling, queries), (turn, shared), (still, shared))
            return torch.cat([each.expand(-1, count, -1) for each, count in sizes], dim=1)

        return for_heads(cos, torch.ones_like(cos)), for_heads(sin, torch.zeros_like(sin))

    def forget(self, adapter: str) -> None:
        """An adapter was unloaded."""
        self._stacks.pop(adapter, None)
        self._together = []

    def _crews(self, owners: Sequence[tuple[slice, str | None]]) -> list[_Crew]:
        """Parts of one size that lie side by side and have adapters; they are multiplied as one."""
        alike: dict[int, list[tuple[slice, _Stacks]]] = {}
        for rows, adapter in owners:
            if adapter is not None:
                alike.setdefault(rows.stop - rows.start, []).append((rows, self._stacks_of(adapter)))
        return [
            _Crew(
                slice(each[0][0].start, each[-1][0].stop),
                (len(each), size),
                self._side_by_side([stacks for _, stacks in each]),
            )
            for size, each in alike.items()
        ]

    def _side_by_side(self, stacks: list[_Stacks]) -> list[list[_Lora | None]]:
        """Several adapters' matrices as one; the last few answers are kept, since people write many tokens."""
        if len(stacks) == 1:
            return stacks[0].layers
        for known, layers in self._together:
            if len(known) == len(stacks) and all(one is other for one, other in zip(known, stacks, strict=True)):
                return layers
        layers = [
            [_Lora.joined(each) for each in zip(*places, strict=True)]
            for places in zip(*(each.layers for each in stacks), strict=True)
        ]
        self._together = [(stacks, layers), *self._together][:TOGETHER_KEPT]
        return layers

    def _stacks_of(self, adapter: str) -> _Stacks:
        stacks = self._stacks.pop(adapter, None)
        if stacks is None or not stacks.current:
            stacks = _Stacks(self._layers, adapter)
        self._stacks[adapter] = stacks
        while len(self._stacks) > STACKS_KEPT:
            self._stacks.pop(next(iter(self._stacks)))
        return stacks


@dataclass(frozen=True)
class _Member:
    """A part's rows in the batch, what is added to their attention scores, and their cache."""

    rows: slice
    bias: Tensor
    cache: Cache


@dataclass(frozen=True)
class _Crew:
    """Parts of one size: their rows in the batch, (parts, rows of each), and what their adapters add to each layer."""

    rows: slice
    shape: tuple[int, int]
    layers: list[list[_Lora | None]]


class _Layer(LlamaLayer):
    """One decoder layer."""

    def __call__(
        self,
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        members: Sequence[_Member],
        crews: Sequence[_Crew],
        place: int,
    ) -> Tensor:
        """(R, H) → (R, H); appends to every member's cache. place: which layer this is."""
        rows, width, heads, shared = len(hidden), self.width, self.heads, self.shared
        lora = [[(crew, added) for crew in crews if (added := crew.layers[place][i]) is not None] for i in range(4)]
        mixed = _adapted(self.qkv, norm(hidden, self.before), lora[0]).view(rows, heads + 2 * shared, width)
        turned = torch.addcmul(mixed * turn[0], mixed.roll(width // 2, -1), turn[1])
        query = turned[:, :heads].view(rows, shared, heads // shared, width)
        both = turned[:, heads:].view(rows, 2, shared, 1, width).transpose(0, 1)
        seen = _joined([self._attend(query, both, each, place) for each in members])
        hidden = hidden + _adapted(self.out, seen.view(rows, heads * width), lora[1])
        gate, up = _adapted(self.gate_up, norm(hidden, self.after), lora[2]).chunk(2, dim=-1)
        return hidden + _adapted(self.down, F.silu(gate) * up, lora[3])

    @staticmethod
    def _attend(query: Tensor, both: Tensor, member: _Member, place: int) -> Tensor:
        """What a member's rows see of their own past."""
        kept = member.cache.layers[place]
        assert isinstance(kept, GrowingLayer)
        keys, values = kept.append(both[:, member.rows])
        mine = query[member.rows]
        if len(mine) <= attend_fused():  # half of the time of the products for one row
            return F.scaled_dot_product_attention(mine, keys, values, attn_mask=member.bias, scale=1.0)
        return torch.softmax(mine @ keys.transpose(-1, -2) + member.bias, -1) @ values


def _adapted(group: Linears, inputs: Tensor, lora: Sequence[tuple[_Crew, _Lora]]) -> Tensor:
    """A group's product with what adapters add to whose rows."""
    out = group(inputs)
    if lora:
        exact = inputs.float()
        for crew, added in lora:
            mine = exact[crew.rows].view(*crew.shape, -1)
            out[crew.rows].add_(mine.bmm(added.down).bmm(added.up).flatten(0, 1))
    return out


@dataclass(frozen=True)
class _Lora:
    """What adapters add to a group of layers: (A, K, R) down and (A, R, N) up, fp32 as PEFT keeps and applies them.

    For a few rows that is also four times as fast as bf16 (LOG.md).
    """

    down: Tensor
    up: Tensor

    @classmethod
    def joined(cls, each: Sequence[_Lora | None]) -> _Lora | None:
        """Those of several adapters; all have something there, or none has."""
        some = [lora for lora in each if lora is not None]
        return cls(_stacked([lora.down for lora in some]), _stacked([lora.up for lora in some])) if some else None


def _stacked(matrices: Sequence[Tensor]) -> Tensor:
    """As one, lying in memory as each alone: a product adds in another order where a matrix lies the other way."""
    return torch.cat([each.mT for each in matrices]).mT


class _Stacks:
    """An adapter's matrices, stacked for every group of layers, as they were when this was made."""

    def __init__(self, layers: Sequence[_Layer], adapter: str) -> None:
        self._seen: list[tuple[Tensor, int, int]] = []
        self.layers = [[self._lora(group, adapter) for group in layer.groups] for layer in layers]

    @property
    def current(self) -> bool:
        """Whether no parameter was changed since."""
        return all(one._version == version and one.data_ptr() == place for one, version, place in self._seen)

    def _lora(self, group: Linears, adapter: str) -> _Lora | None:
        parts = []
        for module in group.wrapped:
            if adapter not in getattr(module, "lora_A", {}):
                return None
            down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            self._seen += [(each, each._version, each.data_ptr()) for each in (down, up)]
            parts.append((down.float(), up.float() * module.scaling[adapter]))
        down, up = torch.cat([down for down, _ in parts]), torch.block_diag(*[up for _, up in parts])
        return _Lora(down.T[None], up.T[None])


def _bias(part: Part, dtype: torch.dtype) -> Tensor:
    """(B, 1, 1, room), or one row for all: 0 at the positions that a part's next token sees, else minus infinity."""
    first = part.cache.layers[0]
    assert isinstance(first, GrowingLayer)
    length = first.get_seq_length() + 1
    bias = torch.full((1 if part.mask is None else len(part.mask), first.reserve(1).shape[-2]), -torch.inf, dtype=dtype)
    bias[:, :length] = 0.0
    if part.mask is not None:
        bias[:, :length].masked_fill_(part.mask == 0, -torch.inf)
    return bias[:, None, None]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """All rows, one part after the other."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
