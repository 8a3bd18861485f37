"""One decoding step of a Llama-like model on a CPU, without what a general forward spends its time on.

More than half of a step went into Python: 210 quantized layers, 70 LoRA layers, masks and caches, each with its checks
(LOG.md). Here the same numbers go through the same weights in some 25 operations a layer. Layers that read the same
input are multiplied together, the LoRA ones too. For a few rows bitsandbytes' fused kernel multiplies by 4-bit weights
without unpacking them first; it wants them in an order of its own, so it gets a copy at its first use, which takes the
place of what an expanded layer kept for it (adapters/base_model.py). Replies of several people, each with an adapter of
its own, take a step together and read the weights once.

Left out on purpose: prompts, training, GPUs, and models with biases, windows or other norms, all of which transformers
does; `lean_step_for` says None there. Results differ from transformers' as much as rounding to bf16 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache

from adapters.base_model import Expanded, FourBit, fast_4bit_kernels
from adapters.cache import GrowingLayer
from adapters.decoding import Part

FEW = 4  # rows that the fused kernels, for 4-bit weights and for attention, are made for
TOGETHER = 2 * FEW  # up to so many rows go that way, where the result of a row is its own
BLOCK_ROWS = 32  # output rows that the kernel reads side by side
TOGETHER_KEPT = 2  # sets of people whose matrices stand side by side
STACKS_KEPT = 16  # adapters whose stacked matrices are kept; 5 MB each on the embedded base


def lean_step_for(model: PreTrainedModel, split: int) -> LeanStep | None:
    """A step for this model, None where only transformers knows how. split: the layer whose input is the trunk."""
    return LeanStep(model, split) if is_plain_llama(model) else None


def is_plain_llama(model: PreTrainedModel) -> bool:
    """Whether it is a Llama on a CPU whose every part is known here."""
    config: Any = model.config
    plain = (
        type(model) is LlamaForCausalLM
        and model.device.type == "cpu"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
    )
    return plain and all(_is_known(module) for name, module in model.named_modules() if name.endswith("_proj"))


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
        it would alone, so that with at most `TOGETHER` rows a part's result does not depend on who else is there,
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


class _Layer:
    """One decoder layer."""

    def __init__(self, layer: Any, config: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before, self._after = layer.input_layernorm, layer.post_attention_layernorm
        self.qkv = Linears([(attention, name) for name in ("q_proj", "k_proj", "v_proj")])
        self.out = Linears([(attention, "o_proj")])
        self.gate_up = Linears([(mlp, "gate_proj"), (mlp, "up_proj")])
        self.down = Linears([(mlp, "down_proj")])
        self._width = attention.head_dim
        self._heads, self._shared = config.num_attention_heads, config.num_key_value_heads

    @property
    def groups(self) -> list[Linears]:
        """All linear layers, grouped by what they read."""
        return [self.qkv, self.out, self.gate_up, self.down]

    def __call__(
        self,
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        members: Sequence[_Member],
        crews: Sequence[_Crew],
        place: int,
    ) -> Tensor:
        """(R, H) → (R, H); appends to every member's cache. place: which layer this is."""
        rows, width, heads, shared = len(hidden), self._width, self._heads, self._shared
        lora = [[(crew, added) for crew in crews if (added := crew.layers[place][i]) is not None] for i in range(4)]
        mixed = self.qkv(norm(hidden, self._before), lora[0]).view(rows, heads + 2 * shared, width)
        turned = torch.addcmul(mixed * turn[0], mixed.roll(width // 2, -1), turn[1])
        query = turned[:, :heads].view(rows, shared, heads // shared, width)
        both = turned[:, heads:].view(rows, 2, shared, 1, width).transpose(0, 1)
        seen = _joined([self._attend(query, both, each, place) for each in members])
        hidden = hidden + self.out(seen.view(rows, heads * width), lora[1])
        gate, up = self.gate_up(norm(hidden, self._after), lora[2]).chunk(2, dim=-1)
        return hidden + self.down(F.silu(gate) * up, lora[3])

    @staticmethod
    def _attend(query: Tensor, both: Tensor, member: _Member, place: int) -> Tensor:
        """What a member's rows see of their own past."""
        kept = member.cache.layers[place]
        assert isinstance(kept, GrowingLayer)
        keys, values = kept.append(both[:, member.rows])
        mine = query[member.rows]
        if len(mine) <= FEW:  # a quarter of the time of the products for one row, as long at eight
            return F.scaled_dot_product_attention(mine, keys, values, attn_mask=member.bias, scale=1.0)
        return torch.softmax(mine @ keys.transpose(-1, -2) + member.bias, -1) @ values


class Linears:
    """Linear layers that read the same input. Called, as one: (B, K) → (B, N), their outputs side by side."""

    def __init__(self, places: Sequence[tuple[nn.Module, str]]) -> None:
        self._places = places  # LoRA may be put around them later
        self._packed: tuple[Tensor, list[int], Tensor, Tensor, int] | None = None
        self._packs = all(_packs(module) for module in self.modules)

    @property
    def wrapped(self) -> list[Any]:
        """The layers as they are in the model now."""
        return [getattr(parent, name) for parent, name in self._places]

    @property
    def modules(self) -> list[Any]:
        """The base layers."""
        return [_base_of(module) for module in self.wrapped]

    def _pack(self) -> tuple[Tensor, list[int], Tensor, Tensor, int]:
        """The weights for the fused kernel, from now on the only copy in 4 bits of layers that are expanded."""
        weights = [each for module in self.modules if (each := _four_bit(module)) is not None]
        assert len(weights) == len(self.modules), "`_packs` says that all have them"
        packed = pack(weights)
        for module in self.modules:
            if isinstance(module, Expanded):
                module.four_bit = None
        return packed

    def __call__(self, inputs: Tensor, lora: Sequence[tuple[_Crew, _Lora]]) -> Tensor:
        """lora: what adapters add to whose rows."""
        if self._packs and len(inputs) <= TOGETHER and inputs.dtype == torch.bfloat16:
            packed, shape, absmax, code, block = self._packed = self._packed or self._pack()
            parts = [
                torch.ops.bitsandbytes.gemv_4bit.default(few, packed, shape, absmax, code, block)
                for few in inputs.split(FEW)
            ]
            out = _joined(parts)
        else:
            parts = [F.linear(inputs, weight_of(module, inputs.dtype)) for module in self.modules]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        if lora:
            exact = inputs.float()
            for crew, added in lora:
                mine = exact[crew.rows].view(*crew.shape, -1)
                out[crew.rows] += (mine @ added.down.mT @ added.up.mT).flatten(0, 1)
        return out


@dataclass(frozen=True)
class _Lora:
    """What adapters add to a group of layers: (A, R, K) down and (A, N, R) up, fp32 as PEFT keeps and applies them.

    For a few rows that is also four times as fast as bf16 (LOG.md).
    """

    down: Tensor
    up: Tensor

    @classmethod
    def joined(cls, each: Sequence[_Lora | None]) -> _Lora | None:
        """Those of several adapters; all have something there, or none has."""
        some = [lora for lora in each if lora is not None]
        return cls(torch.cat([lora.down for lora in some]), torch.cat([lora.up for lora in some])) if some else None


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
        return _Lora(torch.cat([down for down, _ in parts])[None], torch.block_diag(*[up for _, up in parts])[None])


def pack(weights: Sequence[FourBit]) -> tuple[Tensor, list[int], Tensor, Tensor, int]:
    """4-bit layers with one input, as arguments of bitsandbytes' CPU kernel: weights, shape, absmax, code, block size.

    The kernel reads 32 output rows side by side; row b and row b + 16 of them share a byte (bitsandbytes 0.50,
    functional._convert_weight_packed_for_cpu, which does the same by way of 32-bit numbers).
    """
    state = weights[0].state
    width = state.shape[1]
    rows = sum(each.state.shape[0] for each in weights)
    whole = torch.cat([each.data.view(torch.uint8).view(-1, width // 2) for each in weights])
    blocks = whole.view(rows // BLOCK_ROWS, 2, BLOCK_ROWS // 2, width // 2)
    first, second = blocks[:, 0], blocks[:, 1]
    even = (second & 0xF0) | (first >> 4)
    odd = ((second & 0x0F) << 4) | (first & 0x0F)
    packed = torch.stack([even, odd], dim=-1).permute(0, 2, 1, 3).reshape(rows, width // 2).contiguous()
    scales = torch.cat([each.state.absmax.view(-1, width // state.blocksize) for each in weights])
    return packed, [rows, width], scales.T.to(torch.bfloat16).contiguous(), state.code, state.blocksize


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


def norm(hidden: Tensor, module: Any) -> Tensor:
    """Root mean square norm, in fp32 like transformers' own."""
    return F.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def weight_of(module: Any, dtype: torch.dtype) -> Tensor:
    """A base layer's (N, K) matrix."""
    if not _is_quantized(module):
        weight: Tensor = module.weight
        return weight
    state = module.weight.quant_state
    unpacked: Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
        module.weight.data, state.absmax, state.blocksize, state.quant_type, state.shape, dtype
    )
    return unpacked


def _base_of(module: Any) -> Any:
    """The layer below LoRA."""
    return getattr(module, "base_layer", module)


def _is_quantized(module: Any) -> bool:
    """Whether the layer itself holds 4-bit weights and nothing else."""
    return getattr(module.weight, "quant_state", None) is not None


def _four_bit(module: Any) -> FourBit | None:
    """A base layer's values in 4 bits, if it has them."""
    if _is_quantized(module):
        return FourBit(module.weight.data, module.weight.quant_state)
    return module.four_bit if isinstance(module, Expanded) else None


def _is_known(module: Any) -> bool:
    """A plain layer, or a 4-bit one whose scales are not quantized once more."""
    if module.bias is not None:
        return False
    if type(module) is nn.Linear:
        return True
    if isinstance(module, Expanded) and module.four_bit is None:
        return True
    weights = _four_bit(module)
    return weights is not None and not weights.state.nested and not getattr(weights.state, "packing_format_for_cpu", 0)


def _packs(module: Any) -> bool:
    """Whether the fused kernel takes a layer, here."""
    weights = _four_bit(module)
    if weights is None or not fast_4bit_kernels():
        return False
    rows, width = weights.state.shape
    return weights.state.quant_type == "nf4" and rows % BLOCK_ROWS == 0 and width % weights.state.blocksize == 0
