"""One decoding step of a Llama-like model on a CPU, without what a general forward spends its time on.

More than half of a step went into Python: 210 quantized layers, 70 LoRA layers, masks and caches, each with its checks
(LOG.md). Here the same numbers go through the same weights in some 25 operations a layer. Layers that read the same
input are multiplied together, the LoRA ones too. For a few rows bitsandbytes' fused kernel multiplies by 4-bit weights
without unpacking them first; it wants them in an order of its own, and the layers must keep theirs (that kernel has no
gradient, adapters/base_model.py), so it gets a copy at its first use. Replies of several people, each with an
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
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache

from adapters.base_model import fast_4bit_kernels
from adapters.decoding import GrowingLayer, Part

FEW = 4  # rows that the fused 4-bit kernel takes at once
TOGETHER = 2 * FEW  # up to so many rows it is faster than unpacking, and a row's result is its own
BLOCK_ROWS = 32  # output rows that the kernel reads side by side
STACKS_KEPT = 32  # adapters whose stacked matrices are kept; 2.4 MB each on the embedded base


def lean_step_for(model: PreTrainedModel, split: int) -> LeanStep | None:
    """A step for this model, None where only transformers knows how. split: the layer whose input is the trunk."""
    config: Any = model.config
    plain = (
        type(model) is LlamaForCausalLM
        and model.device.type == "cpu"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
    )
    if not plain:
        return None
    linears = [module for name, module in model.named_modules() if name.endswith("_proj")]
    return LeanStep(model, split) if all(map(_is_known, linears)) else None


class LeanStep:
    """The step. Reads the model's own parameters, so what is trained or loaded there counts at once."""

    def __init__(self, model: Any, split: int) -> None:
        decoder, config = model.model, model.config
        self._embedding, self._head, self._norm = decoder.embed_tokens, model.get_output_embeddings(), decoder.norm
        self._rotary = decoder.rotary_emb
        self._layers = [_Layer(layer, config) for layer in decoder.layers]
        self._split = split
        self._stacks: dict[str, _Stacks] = {}

    @torch.inference_mode()
    def __call__(self, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
        """The parts' rows as one batch of R → hidden (R, H), trunk (R, 1, H).

        Weights are read once for all; attention and LoRA are each part's own. The fused kernel multiplies every row as
        it would alone, so that with at most `TOGETHER` rows a part's result does not depend on who else is there,
        to the last bit; where that kernel is missing, but for rounding.
        """
        members, start = list[_Member](), 0
        for part in parts:
            rows = slice(start, start + len(part.ids))
            masked = None if part.mask is None else (part.mask == 0)[:, None, None, :]
            stacks = None if part.adapter is None else self._stacks_of(part.adapter)
            members.append(_Member(rows, masked, part.cache, stacks))
            start = rows.stop
        hidden = F.embedding(_joined([part.ids[:, 0] for part in parts]), self._embedding.weight)
        cos, sin = self._rotary(hidden[:, None], _joined([part.positions for part in parts]))
        trunk = hidden
        for place, layer in enumerate(self._layers):
            if place == self._split:
                trunk = hidden
            hidden = layer(hidden, cos, sin, members, place)
        return _norm(hidden, self._norm), trunk[:, None]

    def forget(self, adapter: str) -> None:
        """An adapter was unloaded."""
        self._stacks.pop(adapter, None)

    def _stacks_of(self, adapter: str) -> _Stacks:
        stacks = self._stacks.pop(adapter, None)
        if stacks is None or not stacks.current:
            stacks = _Stacks(self._layers, adapter, self._embedding.weight.dtype)
        self._stacks[adapter] = stacks
        while len(self._stacks) > STACKS_KEPT:
            self._stacks.pop(next(iter(self._stacks)))
        return stacks


@dataclass(frozen=True)
class _Member:
    """A part's rows in the batch, what their attention may not see, their cache, and their adapter."""

    rows: slice
    masked: Tensor | None
    cache: Cache
    stacks: _Stacks | None


class _Layer:
    """One decoder layer."""

    def __init__(self, layer: Any, config: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before, self._after = layer.input_layernorm, layer.post_attention_layernorm
        self.qkv = _Linears([(attention, name) for name in ("q_proj", "k_proj", "v_proj")])
        self.out = _Linears([(attention, "o_proj")])
        self.gate_up = _Linears([(mlp, "gate_proj"), (mlp, "up_proj")])
        self.down = _Linears([(mlp, "down_proj")])
        self._width = attention.head_dim
        self._heads, self._shared = config.num_attention_heads, config.num_key_value_heads
        self._scaling = attention.scaling

    @property
    def groups(self) -> list[_Linears]:
        """All linear layers, grouped by what they read."""
        return [self.qkv, self.out, self.gate_up, self.down]

    def __call__(self, hidden: Tensor, cos: Tensor, sin: Tensor, members: Sequence[_Member], place: int) -> Tensor:
        """(R, H) → (R, H); appends to every member's cache. place: which layer this is."""
        rows, width, heads, shared = len(hidden), self._width, self._heads, self._shared
        lora = [[(each.rows, each.stacks.layers[place][i]) for each in members if each.stacks] for i in range(4)]
        mixed = self.qkv(_norm(hidden, self._before), lora[0])
        turned = mixed[:, : (heads + shared) * width].view(rows, heads + shared, width)
        half = width // 2
        swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
        turned = turned * cos + swapped * sin
        value = mixed[:, (heads + shared) * width :].view(rows, shared, 1, width)
        query = (turned[:, :heads] * self._scaling).view(rows, shared, heads // shared, width)
        key = turned[:, heads:, None]
        seen = _joined([self._attend(query, key, value, each, place) for each in members])
        hidden = hidden + self.out(seen.view(rows, heads * width), lora[1])
        gate, up = self.gate_up(_norm(hidden, self._after), lora[2]).chunk(2, dim=-1)
        return hidden + self.down(F.silu(gate) * up, lora[3])

    @staticmethod
    def _attend(query: Tensor, key: Tensor, value: Tensor, member: _Member, place: int) -> Tensor:
        """What a member's rows see of their own past."""
        kept = member.cache.layers[place]
        assert isinstance(kept, GrowingLayer)
        length = kept.update(key[member.rows], value[member.rows])[0].shape[2]
        keys, values = kept.blocks
        scores = (query[member.rows] @ keys.transpose(-1, -2))[..., :length]
        if member.masked is not None:
            scores = scores.masked_fill(member.masked, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(values.dtype)
        return F.pad(weights, (0, values.shape[2] - length)) @ values


class _Linears:
    """Linear layers that read the same input, as one: (B, K) → (B, N), their outputs side by side."""

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

    def __call__(self, inputs: Tensor, lora: Sequence[tuple[slice, _Lora | None]]) -> Tensor:
        """lora: what adapters add to which rows."""
        if self._packs and len(inputs) <= TOGETHER and inputs.dtype == torch.bfloat16:
            packed, shape, absmax, code, block = self._packed = self._packed or pack(self.modules)
            parts = [
                torch.ops.bitsandbytes.gemv_4bit.default(few, packed, shape, absmax, code, block)
                for few in inputs.split(FEW)
            ]
            out = _joined(parts)
        else:
            parts = [F.linear(inputs, _weight(module, inputs.dtype)) for module in self.modules]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        for rows, added in lora:
            if added is not None:
                out[rows].addmm_(inputs[rows] @ added.down, added.up)
        return out


class _Lora:
    """What one adapter adds to a group of layers: inputs · down · up, (K, R) and (R, N)."""

    def __init__(self, down: Tensor, up: Tensor) -> None:
        self.down, self.up = down, up


class _Stacks:
    """An adapter's matrices, stacked for every group of layers, as they were when this was made."""

    def __init__(self, layers: Sequence[_Layer], adapter: str, dtype: torch.dtype) -> None:
        """dtype: of what flows through the model."""
        self._dtype = dtype
        self._seen: list[tuple[Tensor, int, int]] = []
        self.layers = [[self._lora(group, adapter) for group in layer.groups] for layer in layers]

    @property
    def current(self) -> bool:
        """Whether no parameter was changed since."""
        return all(one._version == version and one.data_ptr() == place for one, version, place in self._seen)

    def _lora(self, group: _Linears, adapter: str) -> _Lora | None:
        parts = []
        for module in group.wrapped:
            if adapter not in getattr(module, "lora_A", {}):
                return None
            down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            self._seen += [(each, each._version, each.data_ptr()) for each in (down, up)]
            parts.append((down.T, up.T * module.scaling[adapter]))
        down = torch.cat([each for each, _ in parts], dim=1)
        up = torch.block_diag(*[each for _, each in parts])
        return _Lora(down.to(self._dtype).contiguous(), up.to(self._dtype).contiguous())


def pack(modules: Sequence[Any]) -> tuple[Tensor, list[int], Tensor, Tensor, int]:
    """4-bit layers with one input, as arguments of bitsandbytes' CPU kernel: weights, shape, absmax, code, block size.

    The kernel reads 32 output rows side by side; row b and row b + 16 of them share a byte (bitsandbytes 0.50,
    functional._convert_weight_packed_for_cpu, which does the same by way of 32-bit numbers).
    """
    state = modules[0].weight.quant_state
    width = state.shape[1]
    rows = sum(module.weight.quant_state.shape[0] for module in modules)
    whole = torch.cat([module.weight.data.view(torch.uint8).view(-1, width // 2) for module in modules])
    blocks = whole.view(rows // BLOCK_ROWS, 2, BLOCK_ROWS // 2, width // 2)
    first, second = blocks[:, 0], blocks[:, 1]
    even = (second & 0xF0) | (first >> 4)
    odd = ((second & 0x0F) << 4) | (first & 0x0F)
    packed = torch.stack([even, odd], dim=-1).permute(0, 2, 1, 3).reshape(rows, width // 2).contiguous()
    scales = torch.cat([module.weight.quant_state.absmax.view(-1, width // state.blocksize) for module in modules])
    return packed, [rows, width], scales.T.to(torch.bfloat16).contiguous(), state.code, state.blocksize


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """All rows, one part after the other."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _norm(hidden: Tensor, module: Any) -> Tensor:
    """Root mean square norm, in fp32 like transformers' own."""
    return F.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def _weight(module: Any, dtype: torch.dtype) -> Tensor:
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
    return getattr(module.weight, "quant_state", None) is not None


def _is_known(module: Any) -> bool:
    """A plain layer, or a 4-bit one whose scales are not quantized once more."""
    if module.bias is not None:
        return False
    if type(module) is nn.Linear:
        return True
    state = getattr(module.weight, "quant_state", None)
    return state is not None and not state.nested and not getattr(state, "packing_format_for_cpu", False)


def _packs(module: Any) -> bool:
    """Whether the fused kernel takes a layer, here."""
    if not _is_quantized(module) or not fast_4bit_kernels():
        return False
    state = module.weight.quant_state
    rows, width = state.shape
    return state.quant_type == "nf4" and rows % BLOCK_ROWS == 0 and width % state.blocksize == 0
