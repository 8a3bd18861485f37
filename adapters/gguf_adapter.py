"""A LoRA adapter as llama.cpp and Ollama load it: one GGUF file beside a GGUF of the base.

The layout is llama.cpp's (`convert_lora_to_gguf.py`, MIT): general.type "adapter", adapter.type "lora", and for each
weight `NAME.lora_a` (r, in) and `NAME.lora_b` (out, r) in fp32. Architectures whose query and key rows llama.cpp keeps
in another order (its rotary embedding pairs neighbours, not halves) have the rows of B put in that order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from feedback.errors import NotSupported

Matrix = NDArray[np.float32]

# Transformers' model type → llama.cpp's architecture, and whether its query and key rows change places.
ARCHITECTURES: dict[str, tuple[str, bool]] = {
    "llama": ("llama", True),
    "mistral": ("llama", True),
    "smollm3": ("smollm3", True),
    "qwen2": ("qwen2", False),
    "qwen3": ("qwen3", False),
    "gemma": ("gemma", False),
    "gemma2": ("gemma2", False),
    "gemma3_text": ("gemma3", False),
}
_PEFT_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def write_gguf(path: Path, tensors: dict[str, Matrix], lora: dict[str, Any], model: dict[str, Any], name: str) -> None:
    """Write an adapter.

    tensors: PEFT's, by PEFT's names; lora: adapter_config.json; model: the base's config.json; name: what llama.cpp
    shows. Raises NotSupported for a base or a kind of LoRA that llama.cpp does not know.
    """
    arch, permuted = _architecture(model)
    if lora.get("use_rslora") or lora.get("use_dora") or lora.get("bias", "none") != "none":
        raise NotSupported("llama.cpp loads plain LoRA only: without DoRA, rank stabilisation or biases.")
    names = gguf.get_tensor_name_map(_arch_of(arch), int(model["num_hidden_layers"]))
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(lora["lora_alpha"]))
    for key, tensor in sorted(tensors.items()):
        module, side = _parts(key)
        target = names.get_name(module, try_suffixes=(".weight",))
        if target is None:
            raise NotSupported(f"llama.cpp has no name for {module} of this base.")
        heads = _heads(module, model) if permuted and side == "B" else 0
        data = interleaved(tensor, heads) if heads else tensor
        writer.add_tensor(f"{target}.weight.lora_{side.lower()}", np.ascontiguousarray(data, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path, model: dict[str, Any]) -> tuple[dict[str, Matrix], float]:
    """The same tensors by PEFT's names, and alpha: what llama.cpp will find, in transformers' order of rows.

    Raises ValueError for a file that is no such adapter.
    """
    reader = gguf.GGUFReader(path)
    arch, permuted = _architecture(model)
    kind, told = _text(reader, "general.type"), _text(reader, "general.architecture")
    if (kind, told, _text(reader, gguf.Keys.Adapter.TYPE)) != ("adapter", arch, "lora"):
        raise ValueError(
            f"{path.name} is not an adapter for {arch}, but of type {kind or 'unknown'} for {told or 'nothing'}"
        )
    depth = int(model["num_hidden_layers"])
    names = gguf.get_tensor_name_map(_arch_of(arch), depth)
    modules = {
        names.get_name(f"model.layers.{layer}.{part}"): f"model.layers.{layer}.{part}"
        for layer in range(depth)
        for part in _PARTS
    }
    found: dict[str, Matrix] = {}
    for tensor in reader.tensors:
        target, _, side = tensor.name.removesuffix(".weight").rpartition(".weight.lora_")
        if target not in modules or side not in ("a", "b"):
            raise ValueError(f"{path.name} holds {tensor.name}, which is no part of a LoRA adapter")
        module = modules[target]
        data = np.array(tensor.data, dtype=np.float32)
        heads = _heads(module, model) if permuted and side == "b" else 0
        found[f"base_model.model.{module}.lora_{side.upper()}.weight"] = halved(data, heads) if heads else data
    return found, float(reader.fields[gguf.Keys.Adapter.LORA_ALPHA].contents())


def interleaved(rows: Matrix, heads: int) -> Matrix:
    """Rows of a query or key projection from transformers' order (halves of a head) to llama.cpp's (pairs)."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def halved(rows: Matrix, heads: int) -> Matrix:
    """The reverse of `interleaved`."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


_PARTS = (
    *(f"self_attn.{part}_proj" for part in "qkvo"),
    *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
)


def _architecture(model: dict[str, Any]) -> tuple[str, bool]:
    kind = str(model.get("model_type"))
    if kind not in ARCHITECTURES:
        raise NotSupported(f"llama.cpp's form of a {kind} model is not known here; export the adapter as peft.")
    return ARCHITECTURES[kind]


def _arch_of(name: str) -> gguf.MODEL_ARCH:
    return next(arch for arch, known in gguf.MODEL_ARCH_NAMES.items() if known == name)


def _parts(key: str) -> tuple[str, str]:
    found = _PEFT_NAME.fullmatch(key)
    if found is None:
        raise NotSupported(f"{key} is no LoRA matrix that llama.cpp knows.")
    return found["module"], found["side"]


def _heads(module: str, model: dict[str, Any]) -> int:
    """How many heads the rows of a projection belong to, 0 for one whose rows stay where they are."""
    heads = int(model["num_attention_heads"])
    if module.endswith("q_proj"):
        return heads
    return int(model.get("num_key_value_heads") or heads) if module.endswith("k_proj") else 0


def _text(reader: gguf.GGUFReader, key: str) -> str:
    field = reader.fields.get(key)
    return str(field.contents()) if field is not None else ""
