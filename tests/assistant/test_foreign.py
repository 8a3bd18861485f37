"""An adapter made elsewhere: what fits is a version that waits for its owner; everything else is refused in words."""

from __future__ import annotations

import json
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.base_model import BaseFiles, load_unquantized, origin
from adapters.foreign import read_foreign
from adapters.policy import Policy
from adapters.versions import CONFIG, WEIGHTS
from assistant.chat import ChatRequest
from assistant.commands import REJECTED
from assistant.foreign import bring
from assistant.mynah import Mynah
from feedback.errors import AdapterRefused, Conflict
from feedback.types import User
from tests.assistant.serving import OPEN_GATE, PASSWORD, SHUT_GATE, open_mynah, own_models, settings, tiny_numbers
from tests.assistant.test_cli import Here, Place, here, models, place  # noqa: F401


@pytest.fixture(scope="session")
def made(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """An adapter saved by plain PEFT: rank 4, two kinds of module, another scaling; and what it makes of a prompt, as
    (V,) logits of the next token on the unquantized base."""
    model, tokenizer = load_unquantized(base_files)
    depth = model.config.num_hidden_layers
    config = LoraConfig(
        r=4, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM",
        layers_to_transform=list(range(depth - 10, depth)), layers_pattern="layers",
    )  # fmt: skip
    torch.manual_seed(3)
    with warnings.catch_warnings():  # as in adapters/policy.py
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        tuned = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
        ids = tokenizer("The sea is", return_tensors="pt").input_ids
        logits = tuned(ids).logits[0, -1].float()
        with tuned.disable_adapter():
            assert (tuned(ids).logits[0, -1] - logits).abs().max() > 0.5
    folder = tmp_path_factory.mktemp("foreign") / "adapter"
    tuned.save_pretrained(str(folder))
    written = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(
        json.dumps(written | {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"})
    )
    return folder, logits


@pytest.fixture
def adapter(made: tuple[Path, Tensor], tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    return Path(shutil.copytree(made[0], tmp_path / "adapter"))


def zipped(folder: Path, inside: str = "") -> Path:
    out = folder.with_suffix(".zip")
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{inside}{path.name}")
    return out


@pytest.fixture(scope="session")
def base(base_files: BaseFiles) -> dict[str, str]:
    return origin(base_files)


def test_it_does_here_what_it_did_where_it_was_made(
    made: tuple[Path, Tensor], base_files: BaseFiles, base: dict[str, str]
) -> None:
    folder, logits = made
    model, tokenizer = load_unquantized(base_files)
    policy = Policy(model.requires_grad_(False), tokenizer, base_files.base_id)
    foreign = read_foreign(folder, policy, base)
    policy.new_adapter("brought")
    policy.set_adapter_state("brought", foreign.state)
    policy.use("brought")
    with torch.no_grad():
        here = policy.model(tokenizer("The sea is", return_tensors="pt").input_ids).logits[0, -1].float()
    assert torch.allclose(here, logits, atol=1e-3)
    assert (foreign.rank, foreign.alpha) == (4, 4.0)


def test_a_folder_and_a_zip_are_the_same(adapter: Path, policy: Policy, base: dict[str, str]) -> None:
    states = [read_foreign(source, policy, base).state for source in (adapter, zipped(adapter, "some/folder/"))]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert policy.adapters == []


# ---- what is refused ----------------------------------------------------------------------------------------------

Spoil = Callable[[Path], Path]
FIRST = "base_model.model.model.layers.20.self_attn.q_proj.lora_A.weight"


def says(**changes: Any) -> Spoil:
    """Another description."""

    def spoil(folder: Path) -> Path:
        (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | changes))
        return folder

    return spoil


def weighs(change: Callable[[dict[str, Tensor]], object]) -> Spoil:
    """Other weights."""

    def spoil(folder: Path) -> Path:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)
        return folder

    return spoil


def holds(name: str, data: bytes) -> Spoil:
    """A file more, or in the place of one."""

    def spoil(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder

    return spoil


def member(name: str, size: int = 3, copies: int = 1) -> Spoil:
    """A zip with a member more."""

    def spoil(folder: Path) -> Path:
        with zipfile.ZipFile(zipped(folder), "a", zipfile.ZIP_DEFLATED) as archive:
            for copy in range(copies):
                archive.writestr(name.format(copy), b"0" * size)
        return folder.with_suffix(".zip")

    return spoil


def bomb(folder: Path) -> Path:
    """A zip of some kilobytes whose weights unpack to more than any adapter."""
    (folder / WEIGHTS).unlink()
    return member(WEIGHTS, 200 * 2**20)(folder)


def cut(folder: Path) -> Path:
    return holds(WEIGHTS, (folder / WEIGHTS).read_bytes()[:-1000])(folder)


def cut_zip(folder: Path) -> Path:
    out = zipped(folder)
    out.write_bytes(out.read_bytes()[: out.stat().st_size // 2])
    return out


def packed_with(method: int) -> Spoil:
    """A zip packed in another way, of which bytes were lost."""

    def spoil(folder: Path) -> Path:
        out = folder.with_suffix(".zip")
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.write(folder / CONFIG, CONFIG)
        data = bytearray(out.read_bytes())
        start = 30 + len(CONFIG)  # of what is packed, after the header and the name
        data[start + 9 : start + 60] = bytes(255 - byte for byte in data[start + 9 : start + 60])
        out.write_bytes(data)
        return out

    return spoil


def named_wrongly(folder: Path) -> Path:
    """A zip with a name that says it is UTF-8 and is not."""
    out = member("ü.txt")(folder)
    out.write_bytes(out.read_bytes().replace("ü".encode(), b"\xff\xff"))
    return out


def encrypted(folder: Path) -> Path:
    """A zip whose directory says that a password is needed."""
    out = zipped(folder)
    data = bytearray(out.read_bytes())
    for found in re.finditer(b"PK\x01\x02", bytes(data)):
        data[found.start() + 8] |= 1
    out.write_bytes(data)
    return out


def without(name: str) -> Spoil:
    def spoil(folder: Path) -> Path:
        (folder / name).unlink()
        return folder

    return spoil


REFUSED: dict[str, tuple[Spoil, str]] = {
    "another base by its name": (says(base_model_name_or_path="meta-llama/Llama-3.2-1B"), "made for the base 'meta-l"),
    "another base by its hash": (
        holds("manifest.json", b'{"base": {"id": "other@000000000000/nf4"}}'),
        "for the base ot",
    ),
    "another base by its shapes": (
        weighs(lambda s: s.update({FIRST: torch.zeros(4, 2048)})),
        r"\[4, 2048\].*\[4, 576\]",
    ),
    "another rank than it says": (weighs(lambda s: s.update({FIRST: torch.zeros(5, 576)})), "another rank"),
    "a larger rank": (says(r=64), "r is 64; adapters here have a rank of 8"),
    "a rank that is none": (says(r=True), "r is True"),
    "no scaling": (says(lora_alpha=float("nan")), "lora_alpha is nan"),
    "other modules": (says(target_modules=["q_proj", "lm_head"]), "It changes lm_head"),
    "another method": (says(peft_type="IA3"), "peft_type is 'IA3'"),
    "DoRA": (says(use_dora=True), "use_dora is True"),
    "biases": (says(bias="all"), "bias is 'all'"),
    "whole modules": (says(modules_to_save=["embed_tokens"]), "modules_to_save"),
    "ranks by layer": (says(rank_pattern={"q_proj": 2}), "rank_pattern"),
    "something newer": (says(use_quantum=True), "use_quantum is True"),
    "no JSON": (holds(CONFIG, b"{"), "is no JSON"),
    "no object": (holds(CONFIG, b"[1]"), "holds list"),
    "no description": (without(CONFIG), f"holds no {CONFIG}"),
    "no weights": (without(WEIGHTS), f"holds no {WEIGHTS}"),
    "a pickle": (holds("adapter_model.bin", b"\x80\x04."), "adapter_model.bin', a pickle"),
    "a pickle by another name": (holds(WEIGHTS, b"\x80\x04\x95cos\nsystem\n."), "no whole safetensors file"),
    "a lost end": (cut, "no whole safetensors file"),
    "a broken zip": (cut_zip, "no zip that can be read"),
    "a broken zip, LZMA": (packed_with(zipfile.ZIP_LZMA), "no zip that can be read"),
    "a broken zip, bzip2": (packed_with(zipfile.ZIP_BZIP2), "cannot be read|no zip that can be read"),
    "an encrypted zip": (encrypted, "no zip that can be read"),
    "a name in no alphabet": (named_wrongly, "no zip that can be read"),
    "no numbers": (weighs(lambda s: s[FIRST].fill_(float("nan"))), "not finite"),
    "whole numbers": (weighs(lambda s: s.update({FIRST: torch.zeros(4, 576, dtype=torch.int32)})), "floating-point"),
    "wrong keys": (weighs(lambda s: s.update({"lora_A": s.pop(FIRST)})), "lora_A is no weight of an adapter"),
    "layers of the trunk": (
        weighs(lambda s: s.update({FIRST.replace(".20.", ".3."): s.pop(FIRST)})),
        "changes layer 3",
    ),
    "half of a pair": (weighs(lambda s: s.pop(FIRST)), "without"),
    "nothing": (weighs(lambda s: s.clear()), "holds no weights"),
    "a bomb": (bomb, "is larger than"),
    "a name that leads out": (member("../../evil.safetensors"), "leads out of its folder"),
    "an absolute name": (member("/etc/cron.d/evil"), "leads out of its folder"),
    "a name for Windows": (member("..\\evil"), "leads out of its folder"),
    "a crowd of files": (member("{}.txt", copies=101), "at most 100"),
    "two adapters": (member(f"other/{CONFIG}"), "twice"),
    "nowhere": (lambda folder: folder / "nowhere", "no folder or file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_in_words(
    what: str, adapter: Path, policy: Policy, base: dict[str, str], tmp_path: Path
) -> None:
    spoil, words = REFUSED[what]
    source = spoil(adapter)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AdapterRefused, match=words):
        read_foreign(source, policy, base)
    assert policy.adapters == [] and sorted(tmp_path.rglob("*")) == before


# ---- what becomes of it -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    folder = tmp_path_factory.mktemp("bringing")
    opened = open_mynah(settings(own_models(base_files, folder / "models"), folder / "data"), run_updates=False)
    yield opened
    opened.close()


@pytest.fixture
def user(mynah: Mynah) -> User:
    return mynah.accounts.add(f"person {len(mynah.accounts.people())}", PASSWORD)


def brought(mynah: Mynah, user: User, source: Path, gate: dict[str, Any]) -> Any:
    numbers = mynah.updates.numbers.from_dict(tiny_numbers(gate))
    return bring(mynah.store, mynah.versions, mynah.files, numbers, user, source, lambda line: None)


def ask(mynah: Mynah, user: User) -> tuple[str, int | None, str]:
    request = ChatRequest([{"role": "user", "content": "Tell me about the sea."}], arm="auto", max_tokens=24, seed=1)
    (reply,) = mynah.chat.start(user, request).replies()
    return reply.arm, reply.version, reply.text


def test_it_is_served_once_its_owner_says_so(mynah: Mynah, user: User, adapter: Path) -> None:
    before = ask(mynah, user)
    version = brought(mynah, user, adapter, OPEN_GATE)
    assert (version.number, version.status, version.imported) == (1, "rolled back", True)
    assert {check["check"] for check in version.gate} == {
        "finite", "length", "endings", "subject", "words", "variety", "questions", "flattery",
        "limits", "safety",
    }  # fmt: skip
    assert mynah.active(user) is None and ask(mynah, user) == before
    assert mynah.versions.check(version).is_dir()
    assert "brought from elsewhere" in mynah.trials_told(user)[1]

    mynah.updates.activate(user, "v1")
    turn = mynah.chat.start(
        user, ChatRequest([{"role": "user", "content": "Tell me about the sea."}], arm="adapter", max_tokens=24, seed=1)
    )
    (reply,) = turn.replies()
    assert reply.version == 1 and reply.text and reply.text != before[2]
    assert mynah.store.versions.version(user.id, 1).status == "active", "and not on trial"
    mynah.updates.activate(user, "base")
    assert ask(mynah, user) == before


def test_what_fails_a_check_is_never_served(mynah: Mynah, user: User, adapter: Path) -> None:
    strict = {**OPEN_GATE, "least_variety": 50.0}
    assert SHUT_GATE.keys() & set(OPEN_GATE), "a win rate that nobody reaches does not count here"
    assert brought(mynah, user, adapter, {**OPEN_GATE, **SHUT_GATE}).status == "rolled back"
    assert brought(mynah, user, adapter, strict).status == "rejected"
    with pytest.raises(Conflict, match="gate"):
        mynah.updates.activate(user, "v2")


def test_nothing_is_kept_of_what_is_refused(mynah: Mynah, user: User, adapter: Path) -> None:
    with pytest.raises(AdapterRefused):
        brought(mynah, user, says(r=64)(adapter), OPEN_GATE)
    assert mynah.store.versions.versions(user.id) == []
    assert not mynah.versions.path(user.id, 1).parent.exists()


def test_the_command_says_what_it_did(place: Place, here: Here, adapter: Path) -> None:  # noqa: F811
    here.run("user", "add", "Ada", "--admin", "--password-stdin", stdin=PASSWORD)
    assert "no person named 'Eve'" in here.refuses("import-adapter", "Eve", str(adapter))
    assert "no folder or file" in here.refuses("import-adapter", "Ada", str(adapter / "none"))
    out, _ = here.run("import-adapter", "Ada", str(zipped(adapter)))
    assert out.startswith("v1 of Ada is there and not in use")
    assert "1 adapter versions are whole" in here.run("doctor")[0]
    numbers = place.folder / "update.json"
    numbers.write_text(json.dumps(tiny_numbers({**OPEN_GATE, "least_variety": 50.0})))
    assert "never served" in here.run("import-adapter", "Ada", str(adapter), expect=REJECTED)[0]
