"""Attention for small bf16 models on a CPU, where torch's fused kernel loses most of its time.

The fused kernel is made for long sequences of queries. Plain matrix products, with the query heads that share a key
head stacked into one matrix, write 16 drafts behind a prompt of 600 tokens twice as fast and train an eighth faster
(LOG.md). Long prompts stay with the fused kernel, because plain products would hold all their scores at once.

Left out on purpose: GPUs and fp32, where the fused kernel is the better one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "mynah_grouped"
SHORT = 400 * 400  # queries x keys of one sequence, up to which plain products are used


def use_grouped_attention(model: PreTrainedModel) -> None:
    """Switch a model to `grouped_attention` if it would gain by it."""
    fused = model.config._attn_implementation == "sdpa"
    if fused and model.device.type == "cpu" and model.dtype == torch.bfloat16:
        ALL_ATTENTION_FUNCTIONS.register(NAME, grouped_attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """softmax(q·kᵀ · scaling + mask)·v as transformers wants it.

    query: (B, heads, Q, D); key, value: (B, key heads, K, D); attention_mask: (B or 1, 1, Q, K), True or 0 where seen,
    None for all (or, with more than one query, causal). Returns (B, Q, heads, D). Softmax in fp32.
    """
    batch, heads, queries, width = query.shape
    shared, keys = heads // key.shape[1], key.shape[2]
    if queries > 1 and (attention_mask is None or queries * keys > SHORT):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    scaled = query * (width**-0.5 if scaling is None else scaling)
    scores = scaled.reshape(batch, -1, shared * queries, width) @ key.transpose(-1, -2)
    scores = scores.view(batch, -1, shared, queries, keys)
    if attention_mask is not None:
        mask = attention_mask[:, :, None, :, :keys]
        lowest = torch.finfo(scores.dtype).min  # not -inf: padding that sees nothing must stay finite
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    out = weights.view(batch, -1, shared * queries, keys) @ value
    return out.view(batch, heads, queries, width).transpose(1, 2).contiguous(), None
