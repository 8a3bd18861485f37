"""Grouped attention gives what torch's fused kernel gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapters.attention import NAME, SHORT, grouped_attention
from adapters.policy import Policy

B, HEADS, KEY_HEADS, D = 2, 6, 2, 8
LAYER = nn.Module()
LAYER.num_key_value_groups = HEADS // KEY_HEADS  # type: ignore[assignment]


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    key, value = (states.repeat_interleave(HEADS // KEY_HEADS, 1) for states in (key, value))
    causal = mask is None and query.shape[2] > 1
    out = nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.3, is_causal=causal)
    return out.transpose(1, 2)


def states(queries: int, keys: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(queries + keys)
    shapes = [(B, HEADS, queries, D), (B, KEY_HEADS, keys, D), (B, KEY_HEADS, keys, D)]
    return [torch.randn(shape, generator=random, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("kind", ["none", "bool", "additive"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 7), (5, 5)])
def test_values_and_gradients(kind: str, queries: int, keys: int) -> None:
    seen = torch.rand(B, 1, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.6
    seen[..., 0] = True
    mask = {"none": None, "bool": seen, "additive": torch.where(seen, 0.0, torch.finfo(torch.float32).min)}[kind]
    one, other = states(queries, keys), states(queries, keys)
    ours, _ = grouped_attention(LAYER, *one, mask, scaling=0.3)  # type: ignore[misc]
    theirs = fused(*other, mask)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(2))
    for loss in ((ours * weights).sum(), (theirs * weights).sum()):
        loss.backward()
    for mine, its in zip(one, other, strict=True):
        torch.testing.assert_close(mine.grad, its.grad)


def test_padding_that_sees_nothing_stays_finite() -> None:
    seen = torch.tensor([[[[False, False], [False, True]]]])
    out, _ = grouped_attention(LAYER, *states(2, 2), seen)  # type: ignore[misc]
    assert torch.isfinite(out).all()


def test_a_long_prompt_goes_through_the_fused_kernel() -> None:
    length = int(SHORT**0.5) + 1
    query, key, value = (tensor.detach() for tensor in states(length, length))
    ours, _ = grouped_attention(LAYER, query, key, value, None, scaling=0.3)
    torch.testing.assert_close(ours, fused(query, key, value, None))


@pytest.mark.skipif(torch.cuda.is_available(), reason="only the CPU gains")
def test_the_served_model_uses_it(policy: Policy, exact: Policy) -> None:
    assert (policy.model.config._attn_implementation == NAME) == (policy.dtype == torch.bfloat16)
    assert exact.model.config._attn_implementation == "sdpa"
