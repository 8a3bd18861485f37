"""Exports: they do elsewhere what the version does here, and one that does not is refused; no path leaks."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters import export, export_check
from adapters.base_model import BaseFiles, load_unquantized
from adapters.export import FORMATS, Format, export_version
from adapters.export_check import Served, as_served, check, merge
from adapters.gguf_adapter import write_gguf
from adapters.packing import Group
from adapters.policy import Policy
from adapters.pool import reply_logprobs
from adapters.rendering import Renderer
from adapters.versions import CONFIG, WEIGHTS, fill
from adapters.warm_start import Rated, WarmStartConfig, warm_start
from feedback.errors import CorruptFile, ExportFailed

ASKED = "What do cats eat?"
LIKED = "You can give your cat fish, and you can give it meat."
OTHER = "Domestic felines consume a diet of animal protein."
ABOUT = {"labels": 30, "seed": 7, "gate": [{"check": "kl", "value": 0.05, "bound": 0.1, "passed": True, "words": "."}]}


@pytest.fixture(scope="module")
def group(loaded_policy: Policy) -> Group:
    prompt = loaded_policy.render([{"role": "user", "content": ASKED}])
    return loaded_policy.read(prompt, [loaded_policy.renderer.reply_ids(text) for text in (LIKED, OTHER)], [True, True])


@pytest.fixture(scope="module")
def trained(loaded_policy: Policy, group: Group, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that was taught to prefer one reply to the other."""
    folder = tmp_path_factory.mktemp("trained") / "v1"
    folder.mkdir()
    policy = loaded_policy
    policy.new_adapter("taught")
    (logprobs,) = reply_logprobs(policy, [group], 1.0)
    refs = logprobs.sum(1)
    rated = Rated(group, logprobs, torch.tensor([[1.0], [-1.0]]).expand(logprobs.shape))
    warm_start(policy, "taught", [rated], 1.0, WarmStartConfig(), seed=0)
    fill(folder, policy.adapter_state("taught"), policy.lora_config(), {"base_id": policy.base_id, "labels": 30})
    moved = reply_logprobs(policy, [group], 1.0, "taught")[0].sum(1) - refs
    assert moved[0] > moved[1] + 0.5, "the adapter learned something to begin with"
    policy.drop_adapter("taught")
    return folder


@pytest.fixture(scope="module")
def packed(trained: Path, base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Path]:
    """The version in every format, each made and checked by processes of their own."""
    folder = tmp_path_factory.mktemp("exports")
    made: dict[Format, Path] = {kind: folder / f"{kind}.zip" for kind in FORMATS}
    for kind, out in made.items():
        checked = export_version(trained, base_files, ABOUT, kind, out, folder / "work")
        assert checked.off <= export.MOST_OFF[kind] and checked.tokens > 40 and 0 <= checked.agreement <= 1
    assert list((folder / "work").iterdir()) == []
    return made


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("kind", ["peft", "vllm"])
def test_plain_peft_finds_the_same_preference(
    packed: dict[Format, Path], kind: Format, base_files: BaseFiles, group: Group, tmp_path: Path
) -> None:
    zipfile.ZipFile(packed[kind]).extractall(tmp_path)
    base, tokenizer = load_unquantized(base_files)
    before = [logprob(base, group.prompt, reply) for reply in group.replies]
    model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    after = [logprob(model, group.prompt, reply) for reply in group.replies]
    assert tokenizer.decode(group.replies[0], skip_special_tokens=True) == LIKED
    assert after[0] - before[0] > after[1] - before[1] + 0.2


def test_a_merged_model_is_one_by_itself(
    packed: dict[Format, Path], base_files: BaseFiles, group: Group, tmp_path: Path
) -> None:
    zipfile.ZipFile(packed["merged"]).extractall(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template and tokenizer.decode(group.replies[0], skip_special_tokens=True) == LIKED
    base, _ = load_unquantized(base_files)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}, "as large as the base"
    before, after = (
        [logprob(each, group.prompt, reply) for reply in group.replies] for each in (base, model.float().eval())
    )
    assert after[0] - before[0] > after[1] - before[1] + 0.2


def test_a_merge_keeps_all_chat_templates(trained: Path, base_files: BaseFiles, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_files.full)
    templates = {"default": tokenizer.chat_template, "tool_use": "{{ tools }}" + tokenizer.chat_template}
    tokenizer.chat_template = templates
    full, bundle = tmp_path / "full", tmp_path / "bundle"
    tokenizer.save_pretrained(full)
    for path in base_files.full.glob("*"):
        if not path.name.startswith(("tokenizer", "chat_template")):
            (full / path.name).symlink_to(path)
    merge(replace(base_files, full=full), trained, bundle)
    assert all(path.is_file() for path in bundle.iterdir()), "of which each is hashed and packed"
    again = AutoTokenizer.from_pretrained(bundle)
    assert again.chat_template == templates
    turns = [{"role": "user", "content": ASKED}]
    assert Renderer(again).prompt(turns) == Renderer(tokenizer).prompt(turns)


def logprob(model: torch.nn.Module, prompt: list[int], reply: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return float(torch.log_softmax(logits.float(), -1)[range(len(reply)), reply].sum())


def test_the_zip_holds_what_it_should_and_its_hashes_are_right(
    packed: dict[Format, Path], trained: Path, base_files: BaseFiles
) -> None:
    own: dict[Format, set[str]] = {
        "peft": {CONFIG, WEIGHTS},
        "vllm": {CONFIG, WEIGHTS, "serve.sh"},
        "gguf": {"adapter.gguf", "Modelfile"},
    }
    for kind, path in packed.items():
        archive = zipfile.ZipFile(path)
        names = set(archive.namelist())
        assert names == own[kind] | {"README.md", "manifest.json"} if kind in own else "model.safetensors" in names
        manifest = json.loads(archive.read("manifest.json"))
        for name, entry in manifest["files"].items():
            data = archive.read(name)
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
        assert set(manifest["files"]) == names - {"manifest.json"}
        assert manifest["base"]["id"] == base_files.base_id and manifest["base"]["revision"] in base_files.base_id
        card = archive.read("README.md").decode()
        assert base_files.base_id in card and "30 acts of feedback" in card and "| kl | 0.05 | 0.1 | passed |" in card
        assert "KL from the version as it is served (base in NF4)" in card
    assert zipfile.ZipFile(packed["peft"]).read(WEIGHTS) == (trained / WEIGHTS).read_bytes()
    assert "--lora-modules" in zipfile.ZipFile(packed["vllm"]).read("serve.sh").decode()
    assert "ADAPTER ./adapter.gguf" in zipfile.ZipFile(packed["gguf"]).read("Modelfile").decode()


def test_no_local_path_is_inside(packed: dict[Format, Path], base_files: BaseFiles, trained: Path) -> None:
    for path in packed.values():
        archive = zipfile.ZipFile(path)
        for name in archive.namelist():
            for local in (base_files.folder, trained, Path.home(), Path.cwd(), path.parent):
                assert str(local).encode() not in archive.read(name), f"{name} holds {local}"
    config = json.loads(zipfile.ZipFile(packed["peft"]).read("adapter_config.json"))
    assert config["base_model_name_or_path"] == base_files.name


def test_the_same_version_gives_the_same_bytes(
    packed: dict[Format, Path], trained: Path, base_files: BaseFiles, tmp_path: Path
) -> None:
    export_version(trained, base_files, ABOUT, "gguf", tmp_path / "out.zip", tmp_path)
    assert (tmp_path / "out.zip").read_bytes() == packed["gguf"].read_bytes()


def test_a_damaged_version_is_not_exported(trained: Path, base_files: BaseFiles, tmp_path: Path) -> None:
    damaged = tmp_path / "v1"
    shutil.copytree(trained, damaged)
    (damaged / WEIGHTS).write_bytes((damaged / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(CorruptFile):
        export_version(damaged, base_files, ABOUT, "peft", tmp_path / "out.zip", tmp_path / "work")
    assert not (tmp_path / "out.zip").exists()


# ---- what is wrong is refused -------------------------------------------------------------------------------------


def without_effect(bundle: Path) -> None:
    """Matrices of zeros."""
    tensors = load_file(bundle / WEIGHTS)
    save_file({key: value * (0 if "lora_B" in key else 1) for key, value in tensors.items()}, bundle / WEIGHTS)


def in_the_wrong_order(bundle: Path, trained: Path, base: BaseFiles) -> None:
    """A GGUF with the rows of queries and keys as transformers has them."""
    model = json.loads((base.full / "config.json").read_text()) | {"num_attention_heads": 1, "num_key_value_heads": 1}
    write_gguf(
        bundle / "adapter.gguf", load_file(trained / WEIGHTS), json.loads((trained / CONFIG).read_text()), model, "x"
    )


def twice_as_strong(bundle: Path) -> None:
    """Another alpha than the version's."""
    config = json.loads((bundle / CONFIG).read_text())
    (bundle / CONFIG).write_text(json.dumps(config | {"lora_alpha": 2 * config["lora_alpha"]}))


def the_base_alone(bundle: Path, base: BaseFiles) -> None:
    """A merge that forgot the adapter."""
    shutil.copytree(base.full, bundle, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def served(trained: Path, base_files: BaseFiles) -> list[Served]:
    return as_served(base_files, trained)


def test_a_broken_bundle_of_each_format_is_found(
    packed: dict[Format, Path],
    served: list[Served],
    trained: Path,
    base_files: BaseFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export_check, "as_served", lambda files, version: served)
    broken: list[tuple[Format, Callable[[Path], Any]]] = [
        ("peft", without_effect),
        ("vllm", twice_as_strong),
        ("gguf", lambda bundle: in_the_wrong_order(bundle, trained, base_files)),
        ("merged", lambda bundle: the_base_alone(bundle, base_files)),
    ]
    for number, (kind, damage) in enumerate(broken):
        bundle = tmp_path / str(number)
        zipfile.ZipFile(packed[kind]).extractall(bundle)
        damage(bundle)
        assert check(base_files, trained, bundle, kind)["off"] > 2 * export.MOST_OFF[kind], kind


def test_nothing_is_handed_out_and_the_reason_is_told(
    trained: Path, base_files: BaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_wrongly(bundle: Path, *given: Any) -> None:
        export_fill(bundle, *given)
        without_effect(bundle)

    export_fill = export._fill
    monkeypatch.setattr(export, "_fill", fill_wrongly)
    with pytest.raises(ExportFailed, match=r"does something else than the version \(100% of its effect differs"):
        export_version(trained, base_files, ABOUT, "peft", tmp_path / "out.zip", tmp_path / "work")
    assert not (tmp_path / "out.zip").exists() and list((tmp_path / "work").iterdir()) == []
