"""llama.cpp itself loads what is exported for it and does what the version does. Needs `make test-ecosystem`."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from adapters.base_model import BaseFiles
from adapters.export import export_version
from adapters.export_check import as_exported, as_served
from adapters.policy import Policy
from adapters.versions import fill
from adapters.wheel import DEFAULT_WHEEL, fetch_member
from benchmarks.peers import ENVIRONMENTS

pytestmark = pytest.mark.ecosystem
PYTHON = ENVIRONMENTS / "llama.cpp" / "bin" / "python"


def in_full_precision(path: Path, out: Path) -> Path:
    """A GGUF model with its weights unpacked to fp32: with 4-bit weights llama.cpp rounds activations to 8 bits, which
    changes what an adapter does by a sixth (squares)."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def by_llama_cpp(model: Path, lora: Path | None, sequences: list[dict[str, list[int]]]) -> list[Any]:
    """Log-probabilities of each reply's tokens."""
    asked = {"model": str(model), "lora": str(lora) if lora else None, "sequences": sequences}
    script = Path(__file__).with_name("llama_cpp_logprobs.py")
    done = subprocess.run([str(PYTHON), str(script)], input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [np.array(row) for row in json.loads(done.stdout.splitlines()[-1])]


def by_peft(model: Any, sequences: list[dict[str, list[int]]]) -> list[Any]:
    """The same, on the unquantized base."""
    found = []
    for each in sequences:
        with torch.inference_mode():
            logits = model(torch.tensor([each["prompt"] + each["reply"]])).logits[0, len(each["prompt"]) - 1 : -1]
        chosen = torch.log_softmax(logits.float(), -1)[range(len(each["reply"])), each["reply"]]
        found.append(chosen.numpy().astype(float))
    return found


def test_it_does_there_what_it_does_here(policy: Policy, base_files: BaseFiles, tmp_path: Path) -> None:
    policy.new_adapter("made")
    random = torch.Generator().manual_seed(3)
    state = {
        key: torch.randn(tensor.shape, generator=random) * 0.05 if "lora_B" in key else tensor
        for key, tensor in policy.adapter_state("made").items()
    }
    version = tmp_path / "v1"
    version.mkdir()
    fill(version, state, policy.lora_config(), {"base_id": policy.base_id})
    export_version(version, base_files, {"version": "v1"}, "gguf", tmp_path / "out.zip", tmp_path / "work")
    zipfile.ZipFile(tmp_path / "out.zip").extractall(tmp_path / "bundle")
    base = in_full_precision(fetch_member(DEFAULT_WHEEL, ENVIRONMENTS), tmp_path / "base.gguf")
    sequences = [
        {"prompt": each.prompt, "reply": reply} for each in as_served(base_files, version) for reply in each.replies
    ]
    lora = tmp_path / "bundle" / "adapter.gguf"
    there = [on - off for on, off in zip(*(by_llama_cpp(base, each, sequences) for each in (lora, None)), strict=True)]
    model = as_exported(base_files, tmp_path / "bundle", "gguf")
    on = by_peft(model, sequences)
    with model.disable_adapter():
        here = [p - q for p, q in zip(on, by_peft(model, sequences), strict=True)]
    found, wanted = np.concatenate(there), np.concatenate(here)
    assert ((found - wanted) ** 2).sum() < 0.01 * (wanted**2).sum()
