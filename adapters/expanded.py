"""Quantized layers in memory: unpacked once into plain matrices, or kept as they are and cured of a defect.

Unpacking every weight at every step takes a processor as long as multiplying by it, and many processors that know bf16
multiply many rows twice as fast in fp32 (LOG.md); there the matrices are fp32, while all between them stays as it is.
Left out on purpose: where a base comes from and how it is quantized (base_model.py).
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

FASTER = 1.3  # times as fast: what fp32 must be to be worth twice the memory


@cache
def nf4_kernel() -> Callable[..., None] | None:
    """bitsandbytes' kernel that multiplies few rows by 4-bit weights without unpacking them, None where it has none.

    Called as it is: its torch operator makes a token take a third longer (LOG.md). Takes rows, outputs, inputs;
    pointers to inputs (rows, K) bf16, packed weights, scales, outputs (rows, N) bf16; the weights' block size, and the
    strides of inputs and outputs (bitsandbytes 0.50, backends/cpu/ops.py).
    """
    from bitsandbytes.cextension import lib
    from bitsandbytes.functional import has_avx512bf16

    name, numbers, pointers = "gemv_4bit_inference_cpu_nf4_bf16", [ctypes.c_int64] * 3, [ctypes.c_void_p] * 4
    if not has_avx512bf16() or not hasattr(lib._lib, name):
        return None
    return ctypes.CFUNCTYPE(None, *numbers, *pointers, *numbers)((name, lib._lib))


@cache
def faster_in_fp32() -> bool:
    """Whether this processor multiplies many rows faster in fp32 than in bf16.

    With AMX no, without bf16 yes; of those between, it is looked at, in some milliseconds: what they know does not say
    it. Bits of replies depend on the answer, so nothing but a clear one counts; it was 1.9 on both that were asked.
    """
    if torch.cpu._is_amx_tile_supported():
        return False
    if not torch.cpu._is_avx512_bf16_supported():
        return True

    def seconds(dtype: torch.dtype) -> float:
        rows, weight = torch.ones(256, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
        started = time.perf_counter()
        F.linear(rows, weight)
        return time.perf_counter() - started

    pairs = [(seconds(torch.bfloat16), seconds(torch.float32)) for _ in range(8)]
    bf16, fp32 = map(min, zip(*pairs, strict=True))
    return bf16 > FASTER * fp32


def matrix_dtype(model: PreTrainedModel, dtype: torch.dtype) -> torch.dtype | None:
    """What plain matrices of a model that computes in `dtype` are best made of; None: they do not fit."""
    wanted = [torch.float32, dtype] if dtype == torch.bfloat16 and faster_in_fp32() else [dtype]
    return next((each for each in wanted if fits(model, each)), None)


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
    """A quantized layer whose values are a plain matrix, which need not be of the inputs' dtype. four_bit: the same
    values as they were, for whoever has a kernel for them and until they are taken; None where they were not in 4 bits
    or there is no such kernel."""

    four_bit: FourBit | None = None

    def forward(self, input: Tensor) -> Tensor:
        return multiply(input, self.weight, self.bias)


def multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs·weightᵀ + bias in the weight's dtype, returned in the inputs' own."""
    return F.linear(inputs.to(weight.dtype), weight, bias).to(inputs.dtype)


def expand(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Replace quantized layers by plain ones that hold the very same values, in `dtype`."""
    from peft.utils.integrations import dequantize_bnb_weight

    for name, module in quantized_linears(model).items():
        plain = Expanded(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
        state = getattr(module, "state", None)
        if nf4_kernel() is not None and (packing := getattr(module.weight, "quant_state", None)) is not None:
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
