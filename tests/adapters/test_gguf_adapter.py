"""GGUF adapters: what llama.cpp will find is what PEFT had; what it does not know is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from adapters.gguf_adapter import ARCHITECTURES, Matrix, halved, interleaved, read_gguf, write_gguf
from feedback.errors import NotSupported

MODEL: dict[str, Any] = {
    "model_type": "llama", "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
LORA: dict[str, Any] = {"lora_alpha": 16, "r": 8, "bias": "none"}
SHAPES = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "mlp.down_proj": (32, 64)}


def tensors(layer: int = 2) -> dict[str, Matrix]:
    """LoRA matrices of one layer by PEFT's names."""
    random, made = np.random.default_rng(0), dict[str, Matrix]()
    for part, (rows, columns) in SHAPES.items():
        name = f"base_model.model.model.layers.{layer}.{part}"
        made[f"{name}.lora_A.weight"] = random.normal(size=(8, columns)).astype(np.float32)
        made[f"{name}.lora_B.weight"] = random.normal(size=(rows, 8)).astype(np.float32)
    return made


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_what_is_read_is_what_was_written(tmp_path: Path, kind: str) -> None:
    model, path = MODEL | {"model_type": kind}, tmp_path / "adapter.gguf"
    write_gguf(path, tensors(), LORA, model, "v1")
    found, alpha = read_gguf(path, model)
    assert alpha == 16.0 and found.keys() == tensors().keys()
    assert all(np.array_equal(found[key], tensor) for key, tensor in tensors().items())


def test_it_is_laid_out_as_llama_cpp_wants_it(tmp_path: Path) -> None:
    path = tmp_path / "adapter.gguf"
    write_gguf(path, tensors(), LORA, MODEL, "v1")
    reader = gguf.GGUFReader(path)
    assert {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")} == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": "v1",
        "adapter.type": "lora",
        "adapter.lora.alpha": 16.0,
    }
    held = {tensor.name: tensor.data for tensor in reader.tensors}
    assert set(held) == {
        f"blk.2.{part}.weight.lora_{side}" for part in ("attn_q", "attn_k", "ffn_down") for side in "ab"
    }
    mine = tensors()
    name = "base_model.model.model.layers.2.self_attn.q_proj.lora_B.weight"
    # A head of 8 rows: its two halves take turns, so that each pair that is turned together stands together.
    assert np.array_equal(held["blk.2.attn_q.weight.lora_b"][:8], mine[name][[0, 4, 1, 5, 2, 6, 3, 7]])
    assert np.array_equal(held["blk.2.ffn_down.weight.lora_b"], mine[name.replace("self_attn.q_proj", "mlp.down_proj")])


def test_the_order_of_rows_and_back() -> None:
    rows = np.arange(48, dtype=np.float32).reshape(24, 2)
    assert not np.array_equal(interleaved(rows, 3), rows)
    assert np.array_equal(halved(interleaved(rows, 3), 3), rows)


def test_what_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.gguf"
    with pytest.raises(NotSupported, match="bert model is not known"):
        write_gguf(path, tensors(), LORA, MODEL | {"model_type": "bert"}, "v1")
    with pytest.raises(NotSupported, match="plain LoRA only"):
        write_gguf(path, tensors(), LORA | {"use_dora": True}, MODEL, "v1")
    with pytest.raises(NotSupported, match="is no LoRA matrix"):
        write_gguf(path, {"base_model.model.lm_head.weight": np.zeros((2, 2), np.float32)}, LORA, MODEL, "v1")
    with pytest.raises(NotSupported, match=r"no name for model\.layers\.2\.self_attn\.x_proj"):
        odd = {"base_model.model.model.layers.2.self_attn.x_proj.lora_A.weight": np.zeros((8, 2), np.float32)}
        write_gguf(path, odd, LORA, MODEL, "v1")


def test_another_kind_of_file_is_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"model\.gguf is not an adapter for llama, but of type model for llama"):
        read_gguf(path, MODEL)
    write_gguf(path, tensors(), LORA, MODEL | {"model_type": "qwen2"}, "v1")
    with pytest.raises(ValueError, match="of type adapter for qwen2"):
        read_gguf(path, MODEL)
