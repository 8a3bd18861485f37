"""Exports: plain PEFT loads them on the unquantized base and finds the same preference; no path leaks."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from adapters.base_model import BaseFiles, load_unquantized
from adapters.export import export_peft
from adapters.packing import Group
from adapters.policy import Policy
from adapters.pool import reply_logprobs
from adapters.versions import WEIGHTS, fill
from adapters.warm_start import Rated, WarmStartConfig, warm_start
from feedback.errors import CorruptFile

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
def packed(trained: Path, base_files: BaseFiles) -> bytes:
    buffer = io.BytesIO()
    export_peft(trained, base_files, ABOUT, buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
def test_plain_peft_finds_the_same_preference(
    packed: bytes, base_files: BaseFiles, group: Group, tmp_path: Path
) -> None:
    zipfile.ZipFile(io.BytesIO(packed)).extractall(tmp_path)
    base, tokenizer = load_unquantized(base_files)

    def logprob(model: torch.nn.Module, reply: list[int]) -> float:
        ids = torch.tensor([group.prompt + reply])
        with torch.no_grad():
            logits = model(ids).logits[0, len(group.prompt) - 1 : -1]
        return float(torch.log_softmax(logits.float(), -1)[range(len(reply)), reply].sum())

    before = [logprob(base, reply) for reply in group.replies]
    model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    after = [logprob(model, reply) for reply in group.replies]
    assert tokenizer.decode(group.replies[0], skip_special_tokens=True) == LIKED
    assert after[0] - before[0] > after[1] - before[1] + 0.2


def test_the_zip_holds_what_it_should_and_its_hashes_are_right(
    packed: bytes, trained: Path, base_files: BaseFiles
) -> None:
    archive = zipfile.ZipFile(io.BytesIO(packed))
    assert sorted(archive.namelist()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    manifest = json.loads(archive.read("manifest.json"))
    for name, entry in manifest["files"].items():
        data = archive.read(name)
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
    assert set(manifest["files"]) == set(archive.namelist()) - {"manifest.json"}
    assert manifest["base"]["id"] == base_files.base_id and manifest["base"]["revision"] in base_files.base_id
    assert archive.read(WEIGHTS) == (trained / WEIGHTS).read_bytes()
    card = archive.read("README.md").decode()
    assert base_files.base_id in card and "30 acts of feedback" in card and "| kl | 0.05 | 0.1 | passed |" in card


def test_no_local_path_is_inside(packed: bytes, base_files: BaseFiles, trained: Path) -> None:
    archive = zipfile.ZipFile(io.BytesIO(packed))
    for name in archive.namelist():
        for path in (base_files.folder, trained, Path.home(), Path.cwd()):
            assert str(path).encode() not in archive.read(name), f"{name} holds {path}"
    config = json.loads(archive.read("adapter_config.json"))
    assert config["base_model_name_or_path"] == base_files.name


def test_the_same_version_gives_the_same_bytes_in_a_file_as_well(
    packed: bytes, trained: Path, base_files: BaseFiles, tmp_path: Path
) -> None:
    export_peft(trained, base_files, ABOUT, tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_bytes() == packed


def test_a_damaged_version_is_not_exported(trained: Path, base_files: BaseFiles, tmp_path: Path) -> None:
    import shutil

    damaged = tmp_path / "v1"
    shutil.copytree(trained, damaged)
    (damaged / WEIGHTS).write_bytes((damaged / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(CorruptFile):
        export_peft(damaged, base_files, ABOUT, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()
