"""The layers that carry LoRA, for training on a CPU: what transformers and PEFT compute, in a third of the operations.

Of a training step on the embedded base two thirds went into what is not a matrix product of the base: seven LoRA
layers a decoder layer, each with its own casts, and the passes between them (LOG.md). Here layers that read the same
input share its product with A, adapters are applied in the model's own precision, and backward keeps x·A alone, since
neither the base nor A learns.

Left out on purpose: an A that learns, GPUs, and models that `LeanStep` does not know; transformers does those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.lean import Linears, is_plain_llama, norm, weight_of
from adapters.packing import PackedBatch


class LeanTop:
    """The top of a model, from its layer `first`; reads the model's own parameters. Use it where A is frozen."""

    def __init__(self, model: Any, first: int) -> None:
        self._layers = [_Layer(layer, model.config) for layer in model.model.layers[first:]]
        self._norm, self._rotary = model.model.norm, model.model.rotary_emb

    def __call__(self, batch: PackedBatch, adapter: str | None) -> Tensor:
        """Final hidden states (B, L, H); gradients flow to the adapter's B where it asks for them."""
        cos, sin = (each[:, None] for each in self._rotary(batch.hidden, batch.positions))
        half = sin.shape[-1] // 2
        turn = cos, torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        hidden, mask = batch.hidden, self._layers[0].mask(batch.attention)
        for layer in self._layers:
            hidden = layer(hidden, turn, mask, adapter)
        return norm(hidden, self._norm)


def lean_top_for(model: Any, first: int) -> LeanTop | None:
    """The top for this model, None where only transformers knows how."""
    return LeanTop(model, first) if is_plain_llama(model) else None


class _Layer:
    """One decoder layer."""

    def __init__(self, layer: Any, config: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before, self._after = layer.input_layernorm, layer.post_attention_layernorm
        self._qkv = Linears([(attention, name) for name in ("q_proj", "k_proj", "v_proj")])
        self._out = Linears([(attention, "o_proj")])
        self._gate_up = Linears([(mlp, "gate_proj"), (mlp, "up_proj")])
        self._down = Linears([(mlp, "down_proj")])
        self._width, self._scaling = attention.head_dim, attention.scaling
        self._heads, self._shared = config.num_attention_heads, config.num_key_value_heads

    def __call__(self, hidden: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, adapter: str | None) -> Tensor:
        """(B, L, H) → (B, L, H)."""
        query, key, value = _apply(self._qkv, norm(hidden, self._before), adapter)
        (seen,) = _apply(self._out, self._attend(query, key, value, turn, mask), adapter)
        hidden = hidden + seen
        gate, up = _apply(self._gate_up, norm(hidden, self._after), adapter)
        (found,) = _apply(self._down, F.silu(gate) * up, adapter)
        return hidden + found

    def mask(self, attention: Tensor) -> Tensor:
        """(B, 1, L, L) → (B·shared, heads / shared · L, L): what is added to the scores of all layers."""
        batch, _, length, _ = attention.shape
        whole = attention[:, :, None].expand(-1, self._shared, self._heads // self._shared, -1, -1)
        return whole.reshape(batch * self._shared, -1, length)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """(B, L, heads·d), (B, L, shared·d) twice → (B, L, heads·d). Queries that share a key head are one matrix."""
        batch, length, _ = query.shape
        width, shared = self._width, self._shared

        def heads(mixed: Tensor) -> Tensor:
            return mixed.view(batch, length, -1, width).transpose(1, 2)

        queries = _turned(heads(query), turn).reshape(batch * shared, -1, width)
        keys = _turned(heads(key), turn).reshape(batch * shared, length, width)
        scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=self._scaling)
        seen = torch.softmax(scores, -1) @ heads(value).reshape(batch * shared, length, width)
        return seen.view(batch, self._heads, length, width).transpose(1, 2).reshape(batch, length, -1)


def _turned(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions: (B, heads, L, d) by cosines and by sines whose first half is negative."""
    return torch.addcmul(heads * turn[0], heads.roll(heads.shape[-1] // 2, -1), turn[1])


def _apply(group: Linears, inputs: Tensor, adapter: str | None) -> Sequence[Tensor]:
    """Every layer of the group on (B, L, K), with what the adapter adds: (B, L, N) each."""
    bases = group.modules
    loras = [module for module in group.wrapped if adapter is not None and adapter in getattr(module, "lora_A", {})]
    if not loras:
        return [F.linear(inputs, weight_of(base, inputs.dtype)) for base in bases]
    assert len(loras) == len(bases), "an adapter has all layers that read the same input, or none"
    down = torch.cat([module.lora_A[adapter].weight for module in loras]).to(inputs.dtype)
    ups = [module.lora_B[adapter].weight for module in loras]
    outputs: tuple[Tensor, ...] = _Adapted.apply(inputs, bases, down, loras[0].scaling[adapter], *ups)
    return outputs


class _Adapted(torch.autograd.Function):
    """x·Wᵀ + scale · x·Aᵀ·Bᵀ for layers with one input; only B and x have a gradient."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, bases: Sequence[Any], down: Tensor, scale: float, *ups: Tensor
    ) -> tuple[Tensor, ...]:
        """inputs: (B, L, K); down: (layers · R, K); ups: (N, R) each, in fp32."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        low = flat @ down.T
        scaled = [(up * scale).to(inputs.dtype) for up in ups]
        outputs = [
            (flat @ weight_of(base, inputs.dtype).T).addmm_(part, up.T)
            for base, part, up in zip(bases, low.chunk(len(ups), dim=-1), scaled, strict=True)
        ]
        ctx.save_for_backward(low, down, *scaled)
        ctx.bases, ctx.scale = bases, scale
        return tuple(output.view(*inputs.shape[:-1], -1) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        low, down, *scaled = ctx.saved_tensors
        flat = [slope.reshape(-1, slope.shape[-1]) for slope in slopes]
        ups = [
            (slope.T @ part).float() * ctx.scale if wanted else None
            for slope, part, wanted in zip(flat, low.chunk(len(scaled), dim=-1), ctx.needs_input_grad[4:], strict=True)
        ]
        inputs = None
        if ctx.needs_input_grad[0]:
            inputs = torch.cat([slope @ up for slope, up in zip(flat, scaled, strict=True)], dim=-1) @ down
            for slope, base in zip(flat, ctx.bases, strict=True):
                inputs.addmm_(slope, weight_of(base, slope.dtype))
            inputs = inputs.view(*slopes[0].shape[:-1], -1)
        return (inputs, None, None, None, *ups)
