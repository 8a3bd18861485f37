"""The layers that carry LoRA, for training on a CPU: what transformers and PEFT compute, in half the time.

Of a training step on the embedded base two thirds went into what is not a matrix product of the base: seven LoRA
layers a decoder layer, each with its own casts, attention of every reply to every other, and the passes between
(LOG.md). Here tokens are a flat list without padding, layers that read the same input share its product with A, all
is in the precision of the base's matrices, backward keeps x·A alone (neither the base nor A learns), and a reply's
scores are those with its prompt and itself.

Left out on purpose: an A that learns, GPUs, and models that `LeanStep` does not know; transformers does those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.lean_layers import Linears, LlamaLayer, is_plain_llama, norm, weight_of
from adapters.packing import ROUND, PackedBatch


class LeanTop:
    """The top of a model, from its layer `first`; reads the model's own parameters. Use it where A is frozen."""

    def __init__(self, model: Any, first: int) -> None:
        self._layers = [_Layer(layer, model.config) for layer in model.model.layers[first:]]
        self._norm, self._rotary = model.model.norm, model.model.rotary_emb
        self._dtype = weight_of(self._layers[0].down.modules[0], model.dtype).dtype

    def __call__(self, batch: PackedBatch, adapter: str | None) -> Tensor:
        """Final hidden states (N, H) where the N reply tokens that count are predicted from, in the order of
        `response_mask`; gradients flow to the adapter's B where it asks for them."""
        places = _Places(batch)
        hidden = places.pick(batch.hidden.flatten(0, 1)).to(self._dtype)
        cos, sin = (each[0, :, None] for each in self._rotary(hidden, places.pick(batch.positions.flatten())[None]))
        half = sin.shape[-1] // 2
        turn = cos, torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        masks = self._layers[0].masks(places, hidden.dtype)
        for layer in self._layers:
            hidden = layer(hidden, turn, places, masks, adapter)
        return norm(hidden.index_select(0, places.targets), self._norm)


def lean_top_for(model: Any, first: int) -> LeanTop | None:
    """The top for this model, None where only transformers knows how."""
    return LeanTop(model, first) if is_plain_llama(model) else None


class _Places:
    """Where the tokens of a packed batch are: in a flat list, and in blocks for attention.

    The list has each prompt's tokens once and each reply's that are fed, and a few of no use, so that its length is one
    of a few. The blocks are (B, P) prompts and (R, T) replies below one another, padded at the end.
    """

    def __init__(self, batch: PackedBatch) -> None:
        rows, length = batch.hidden.shape[:2]
        self.owner = batch.rows[:, 0]  # (R,) each reply's prompt
        lengths = torch.zeros(rows, dtype=torch.long).index_put((self.owner,), batch.columns[:, 0] + 1)
        self.prompts, self.replies = (rows, int(lengths.max())), (len(batch.targets), batch.targets.shape[1] - 1)
        self.of_prompt = torch.arange(self.prompts[1]) < lengths[:, None]  # (B, P)
        packed = torch.arange(rows)[:, None] * length + torch.arange(self.prompts[1])
        own = batch.rows[:, 1:] * length + batch.columns[:, 1:]
        real = torch.cat([self.of_prompt.flatten(), batch.response_mask[:, 1:].flatten()])
        self.from_blocks = real.nonzero()[:, 0]
        self._packed = torch.cat([packed.flatten(), own.flatten()])[self.from_blocks]
        self.count = len(self._packed)
        self.spare = -self.count % ROUND
        self.to_blocks = torch.where(real, real.cumsum(0) - 1, self.count)  # `count` where a block holds nothing
        flat = torch.zeros(rows * length, dtype=torch.long)
        flat[self._packed] = torch.arange(self.count)
        wanted = batch.response_mask
        self.targets = flat[(batch.rows * length + batch.columns)[wanted]]

    def pick(self, packed: Tensor) -> Tensor:
        """The list from what is laid out as the batch is, (B·L, …) → (count + spare, …)."""
        return self.padded(packed[self._packed])

    def padded(self, rows: Tensor) -> Tensor:
        """Zeros for what is of no use."""
        return F.pad(rows, [0, 0] * (rows.dim() - 1) + [0, self.spare])

    def split(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P, …) and (R, T, …) of what stands below one another."""
        at = self.prompts[0] * self.prompts[1]
        width = blocks.shape[1]
        return blocks[:at].view(*self.prompts, width), blocks[at:].view(*self.replies, width)


class _Layer(LlamaLayer):
    """One decoder layer."""

    def __call__(
        self,
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        places: _Places,
        masks: tuple[Tensor, Tensor],
        adapter: str | None,
    ) -> Tensor:
        """(N, H) → (N, H) of the list."""
        query, key, value = _apply(self.qkv, norm(hidden, self.before), adapter)
        query, key = (_turned(each.view(len(each), -1, self.width), turn).flatten(1) for each in (query, key))
        (seen,) = _apply(self.out, self._attend(query, key, value, places, masks), adapter)
        hidden = hidden + seen
        gate, up = _apply(self.gate_up, norm(hidden, self.after), adapter)
        (found,) = _apply(self.down, F.silu(gate) * up, adapter)
        return hidden + found

    def masks(self, places: _Places, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What is added to the scores of prompts (B·shared, group·P, P) and of replies (R·shared, group·T, P + T); a
        group are the query heads that share a key head. Padding is at the end, so that order hides most of it."""
        lowest = torch.finfo(dtype).min
        shared, group = self.shared, self.heads // self.shared

        def whole(allowed: Tensor) -> Tensor:
            """(B, Q, K) → (B·shared, group·Q, K)."""
            added = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, lowest)
            return added[:, None, None].expand(-1, shared, group, -1, -1).flatten(2, 3).flatten(0, 1)

        (batch, prompt), (count, reply) = places.prompts, places.replies
        before = torch.ones(prompt, prompt, dtype=torch.bool).tril()
        its_prompt = places.of_prompt[places.owner][:, None].expand(-1, reply, -1)
        itself = torch.ones(reply, reply, dtype=torch.bool).tril().expand(count, -1, -1)
        return whole(before.expand(batch, -1, -1)), whole(torch.cat([its_prompt, itself], dim=-1))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, places: _Places, masks: tuple[Tensor, Tensor]
    ) -> Tensor:
        """(N, heads·d), (N, shared·d) twice → (N, heads·d)."""
        query, key, value = (_ToBlocks.apply(each, places) for each in (query, key, value))
        queries, (keys, own_keys), (values, own_values) = (places.split(each) for each in (query, key, value))
        seen = self._see(queries[0], keys, values, masks[0])
        keys, values = (
            torch.cat([prompts.index_select(0, places.owner), own], dim=1)
            for prompts, own in ((keys, own_keys), (values, own_values))
        )
        own_seen = self._see(queries[1], keys, values, masks[1])
        found: Tensor = _FromBlocks.apply(torch.cat([seen.flatten(0, 1), own_seen.flatten(0, 1)]), places)
        return found

    def _see(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """(B, Q, heads·d), (B, K, shared·d) twice → (B, Q, heads·d)."""
        (batch, count, _), shared, width = query.shape, self.shared, self.width
        group = self.heads // shared

        def by_shared(mixed: Tensor, group: int) -> Tensor:
            """(B, L, shared·group·d) → (B·shared, group·L, d)."""
            length = mixed.shape[1]
            apart = mixed.view(batch, length, shared, group, width).permute(0, 2, 3, 1, 4)
            return apart.reshape(batch * shared, group * length, width)

        scores = torch.baddbmm(mask, by_shared(query, group), by_shared(key, 1).transpose(1, 2), alpha=self.scaling)
        seen = torch.softmax(scores, -1) @ by_shared(value, 1)
        return seen.view(batch, shared, group, count, width).permute(0, 3, 1, 2, 4).flatten(2)


class _ToBlocks(torch.autograd.Function):
    """From the list to the blocks, (N, W) → (M, W); what a block pads with is not looked at."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: _Places) -> Tensor:
        ctx.places = places
        return rows[places.to_blocks.clamp(max=places.count - 1)]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        places = ctx.places
        return places.padded(slope[places.from_blocks]), None


class _FromBlocks(torch.autograd.Function):
    """The reverse, (M, W) → (N, W)."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, places: _Places) -> Tensor:
        ctx.places = places
        return places.padded(blocks[places.from_blocks])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        places = ctx.places
        return F.pad(slope[: places.count], (0, 0, 0, 1))[places.to_blocks], None


def _turned(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions: (N, heads, d) by cosines and by sines whose first half is negative, (N, 1, d)."""
    return torch.addcmul(heads * turn[0], heads.roll(heads.shape[-1] // 2, -1), turn[1])


def _apply(group: Linears, inputs: Tensor, adapter: str | None) -> Sequence[Tensor]:
    """Every layer of the group on (N, K), with what the adapter adds: (N, outputs) each."""
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
        """inputs: (N, K); down: (layers · R, K); ups: (outputs, R) each, in fp32."""
        low = inputs @ down.T
        scaled = [(up * scale).to(inputs.dtype) for up in ups]
        outputs = [
            (inputs @ weight_of(base, inputs.dtype).T).addmm_(part, up.T)
            for base, part, up in zip(bases, low.chunk(len(ups), dim=-1), scaled, strict=True)
        ]
        ctx.save_for_backward(low, down, *scaled)
        ctx.bases, ctx.scale = bases, scale
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        low, down, *scaled = ctx.saved_tensors
        parts = low.chunk(len(scaled), dim=-1)
        ups = [
            (slope.T @ part).float() * ctx.scale if wanted else None
            for slope, part, wanted in zip(slopes, parts, ctx.needs_input_grad[4:], strict=True)
        ]
        inputs = None
        if ctx.needs_input_grad[0]:
            inputs = torch.cat([slope @ up for slope, up in zip(slopes, scaled, strict=True)], dim=-1) @ down
            for slope, base in zip(slopes, ctx.bases, strict=True):
                inputs.addmm_(slope, weight_of(base, slope.dtype))
        return (inputs, None, None, None, *ups)
