"""The parts of a Llama-like model on a CPU, as the fast decoding step and the fast layers for training take them.

Layers that read the same input belong together. For a few rows bitsandbytes' fused kernel multiplies by 4-bit weights
without unpacking them; it wants them in an order of its own, so it gets a copy at its first use, which takes the place
of what an expanded layer kept for it (adapters/base_model.py). That kernel has no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel

from adapters.expanded import Expanded, FourBit, faster_in_fp32, multiply, nf4_kernel

FEW = 4  # rows that the fused kernel for 4-bit weights is made for
BLOCK_ROWS = 32  # output rows that the kernel reads side by side
BF16 = torch.bfloat16.itemsize


@cache
def together() -> int:
    """Up to so many rows go through the fused kernel for 4-bit weights, where the result of a row is its own: as long
    as plain products are not faster, as AMX's are (LOG.md)."""
    return (2 if torch.cpu._is_amx_tile_supported() else 4) * FEW


@cache
def attend_fused() -> int:
    """Up to so many rows of one batch go through the fused kernel for attention: as long as plain products are not
    faster, which they are later where bf16 is slow (LOG.md)."""
    return (4 if faster_in_fp32() else 2) * FEW


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


class LlamaLayer:
    """The parts of one decoder layer, its linear layers grouped by what they read."""

    def __init__(self, layer: Any, config: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before, self.after = layer.input_layernorm, layer.post_attention_layernorm
        self.qkv = Linears([(attention, name) for name in ("q_proj", "k_proj", "v_proj")])
        self.out = Linears([(attention, "o_proj")])
        self.gate_up = Linears([(mlp, "gate_proj"), (mlp, "up_proj")])
        self.down = Linears([(mlp, "down_proj")])
        self.width, self.scaling = attention.head_dim, attention.scaling
        self.heads, self.shared = config.num_attention_heads, config.num_key_value_heads

    @property
    def groups(self) -> list[Linears]:
        """All linear layers, grouped by what they read."""
        return [self.qkv, self.out, self.gate_up, self.down]


class Linears:
    """Linear layers that read the same input. Called, as one: (B, K) → (B, N), their outputs side by side."""

    def __init__(self, places: Sequence[tuple[nn.Module, str]]) -> None:
        self._places = places  # LoRA may be put around them later
        self._packed: Packed | None = None
        self._packs = all(_packs(module) for module in self.modules)

    @property
    def wrapped(self) -> list[Any]:
        """The layers as they are in the model now."""
        return [getattr(parent, name) for parent, name in self._places]

    @property
    def modules(self) -> list[Any]:
        """The base layers."""
        return [_base_of(module) for module in self.wrapped]

    def _pack(self) -> Packed:
        """The weights for the fused kernel, from now on the only copy in 4 bits of layers that are expanded."""
        weights = [each for module in self.modules if (each := _four_bit(module)) is not None]
        assert len(weights) == len(self.modules), "`_packs` says that all have them"
        packed = pack(weights)
        for module in self.modules:
            if isinstance(module, Expanded):
                module.four_bit = None
        return packed

    def __call__(self, inputs: Tensor) -> Tensor:
        """The base's product."""
        if self._packs and len(inputs) <= together() and inputs.dtype == torch.bfloat16:
            self._packed = self._packed or self._pack()
            return self._packed.multiply(inputs)
        parts = [multiply(inputs, weight_of(module, inputs.dtype)) for module in self.modules]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class Packed:
    """4-bit layers with one input, for bitsandbytes' kernel: N·K/2 bytes in its order, (K/block, N) scales in bf16."""

    weights: Tensor
    scales: Tensor
    outputs: int
    block: int

    def multiply(self, inputs: Tensor) -> Tensor:
        """(B, K) bf16 → (B, N); no gradient. A row's result is the same to the last bit whatever the others are."""
        kernel, (rows, width) = nf4_kernel(), inputs.shape
        assert kernel is not None and inputs.dtype == torch.bfloat16
        inputs, out = inputs.contiguous(), inputs.new_empty(rows, self.outputs)
        read, write = inputs.data_ptr(), out.data_ptr()
        pointers = self.weights.data_ptr(), self.scales.data_ptr()
        for at in range(0, rows, FEW):
            source, target = read + at * width * BF16, write + at * self.outputs * BF16
            few = min(FEW, rows - at)
            kernel(few, self.outputs, width, source, *pointers, target, self.block, width, self.outputs)
        return out


def pack(weights: Sequence[FourBit]) -> Packed:
    """4-bit layers with one input as the kernel wants them.

    It reads 32 output rows side by side; row b and row b + 16 of them share a byte (bitsandbytes 0.50,
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
    return Packed(packed, scales.T.to(torch.bfloat16).contiguous(), rows, state.blocksize)


def norm(hidden: Tensor, module: Any) -> Tensor:
    """Root mean square norm, in fp32 like transformers' own."""
    return F.rms_norm(hidden, hidden.shape[-1:], module.weight.to(hidden.dtype), module.variance_epsilon)


def weight_of(module: Any, dtype: torch.dtype) -> Tensor:
    """A base layer's (N, K) matrix; dtype: that of one which is unpacked for the occasion."""
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
    if weights is None or nf4_kernel() is None:
        return False
    rows, width = weights.state.shape
    return weights.state.quant_type == "nf4" and rows % BLOCK_ROWS == 0 and width % weights.state.blocksize == 0
