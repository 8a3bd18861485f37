"""Quantized layers in memory: unpacked once into plain matrices, or kept as they are and cured of a defect.

Unpacking every weight at every step takes a processor as long as multiplying by it (LOG.md). Left out on purpose: where
a base comes from and how it is quantized (base_model.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel


def fast_4bit_kernels() -> bool:
    """Whether bitsandbytes has a kernel here that multiplies by 4-bit weights without unpacking them first."""
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


def fits(model: PreTrainedModel, dtype: torch.dtype) -> bool:
    """Whether plain matrices of all quantized weights take less than an eighth of the machine's memory.

    Not of what is free at the moment: the last bits of a reply depend on it, and the same seed is to give the same one.
    """
    numbers = sum(module.in_features * module.out_features for module in quantized_linears(model).values())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return numbers * dtype.itemsize < memory / 8


def quantized_linears(model: PreTrainedModel) -> dict[str, Any]:
    import bitsandbytes as bnb

    kinds = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@dataclass(frozen=True)
class FourBit:
    """Weights as bitsandbytes packs them: (N·K/2, 1) bytes, and their scales and shape."""

    data: torch.Tensor
    state: Any


class Expanded(torch.nn.Linear):
    """A quantized layer whose values are a plain matrix. four_bit: the same values as they were, for whoever has a
    kernel for them and until they are taken; None where they were not in 4 bits or there is no such kernel."""

    four_bit: FourBit | None = None


def expand(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Replace quantized layers by plain ones that hold the very same values."""
    from peft.utils.integrations import dequantize_bnb_weight

    for name, module in quantized_linears(model).items():
        plain = Expanded(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
        state = getattr(module, "state", None)
        if fast_4bit_kernels() and (packing := getattr(module.weight, "quant_state", None)) is not None:
            plain.four_bit = FourBit(module.weight.data, packing)
        plain.weight = torch.nn.Parameter(dequantize_bnb_weight(module.weight, state=state).to(dtype), False)
        if module.bias is not None:
            plain.bias = torch.nn.Parameter(module.bias.to(dtype), False)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, plain)
    # Otherwise PEFT and transformers would still take it for a quantized model.
    model.is_quantized = model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    model.quantization_method = model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def cure_cpu_gradients(model: PreTrainedModel) -> None:
    """Keep bitsandbytes 0.50 from repacking weights for a CPU kernel that has no autograd.

    After a repacking forward, gradients below the layer are silently wrong or missing; PPO alternates exactly these
    modes.
    """
    for module in quantized_linears(model).values():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
