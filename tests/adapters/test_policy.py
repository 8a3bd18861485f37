"""Invariants of the policy, on the real model."""

from __future__ import annotations

import json
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from adapters.base_model import BaseFiles, load_unquantized
from adapters.decoding import Generation, Sampling
from adapters.packing import pack
from adapters.policy import AdapterConfig, Policy
from adapters.pool import reply_logprobs
from feedback.errors import CorruptFile
from tests.adapters.helpers import disturb, prompts, replies, write


def save_adapter(policy: Policy, name: str, folder: Path) -> Path:
    """As a version folder holds it."""
    folder.mkdir()
    policy.lora_config().save_pretrained(str(folder))
    save_file(policy.adapter_state(name), folder / "adapter_model.safetensors")
    return folder


# ---- fresh adapters and the reference --------------------------------------------------------------------------------


def test_a_fresh_adapter_has_kl_zero_and_ratio_one(policy: Policy) -> None:
    policy.new_adapter("mia")
    groups = replies(policy, adapter="mia")
    reference = torch.cat(reply_logprobs(policy, groups, 0.8))
    fresh = torch.cat(reply_logprobs(policy, groups, 0.8, "mia"))
    assert abs(float((fresh - reference).mean())) < 1e-3
    torch.testing.assert_close((fresh - reference).exp(), torch.ones_like(fresh), atol=1e-3, rtol=0)
    disturb(policy, "mia", seed=1)
    moved = torch.cat(reply_logprobs(policy, groups, 0.8, "mia"))
    assert float((moved - reference).abs().mean()) > 0.05, "the check above could not have failed"


def test_everyone_starts_from_the_same_adapter(policy: Policy) -> None:
    policy.new_adapter("mia")
    disturb(policy, "mia", seed=1)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    policy.new_adapter("noah")
    assert torch.equal(torch.get_rng_state(), before), "drawing an adapter leaves the global generator alone"
    policy.new_adapter("ida")
    noah, ida = policy.adapter_state("noah"), policy.adapter_state("ida")
    assert all(torch.equal(noah[key], ida[key]) for key in noah)
    assert all(bool(value.any()) == ("lora_A" in key) for key, value in noah.items())


def test_reference_is_the_base_and_puts_the_adapter_back(policy: Policy) -> None:
    policy.new_adapter("mia")
    disturb(policy, "mia", seed=1)
    group = replies(policy)[0]
    batch = pack([group], policy.device, policy.dtype)
    with torch.no_grad():
        base = policy.logprobs(batch, 1.0)
        policy.use("mia")
        adapted = policy.logprobs(batch, 1.0)
        with policy.reference():
            assert torch.equal(policy.logprobs(batch, 1.0), base)
        assert torch.equal(policy.logprobs(batch, 1.0), adapted)
        with pytest.raises(KeyError), policy.reference():
            raise KeyError
        assert torch.equal(policy.logprobs(batch, 1.0), adapted)
    assert not torch.equal(base, adapted)


# ---- gradients -------------------------------------------------------------------------------------------------------


def gradients(policy: Policy) -> dict[str, torch.Tensor]:
    """Gradient of every LoRA matrix, A and B, of the log-probability of a text, right after a generate."""
    policy.new_adapter("mia")
    disturb(policy, "mia", seed=1)
    prompt = prompts(policy, 1)[0]
    write(policy, prompt, "mia", tokens=2)
    text = policy.renderer.reply_ids("Cats eat fish, meat and sometimes grass.")
    batch = pack([policy.read(prompt, [text], [True])], policy.device, policy.dtype)
    parameters = policy.trainable("mia")
    policy.logprobs(batch, 0.8).sum().backward()
    named = {name: p for name, p in policy.model.named_parameters() if ".mia." in name}
    assert len(parameters) == len(named) == 2 * 7 * (policy.depth - policy.split), "7 projections a layer, A and B"
    return {name: p.grad for name, p in named.items() if p.grad is not None}


def agreement(some: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[float]:
    """Cosine of the two gradients of every matrix."""
    return [float(torch.cosine_similarity(some[name].flatten(), other[name].flatten(), 0)) for name in some]


@pytest.fixture(scope="module")
def plain_gradients(base_files: BaseFiles) -> dict[str, torch.Tensor]:
    """Gradients through the same weights held as plain matrices, which need no special kernels."""
    return gradients(Policy.load(base_files, AdapterConfig(train_a=True), expand=True))


def test_after_a_generate_every_lora_layer_gets_the_right_gradient(
    base_files: BaseFiles, plain_gradients: dict[str, torch.Tensor]
) -> None:
    four_bit = gradients(Policy.load(base_files, AdapterConfig(train_a=True), expand=False))
    assert set(four_bit) == set(plain_gradients)
    assert len(four_bit) == 140
    assert all(float(gradient.norm()) > 0 for gradient in four_bit.values())
    assert min(agreement(four_bit, plain_gradients)) > 0.97


@pytest.mark.skipif(torch.cuda.is_available(), reason="the bug is in the kernels for the CPU")
def test_the_cure_of_the_silent_gradient_bug_is_in_place(base_files: BaseFiles) -> None:
    policy = Policy.load(base_files, expand=False)
    layers = [module for module in policy.model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(layers) == 7 * policy.depth
    write(policy, prompts(policy, 1)[0], None, tokens=2)
    for layer in layers:
        assert layer.support_avx512bf16_for_cpu is False
        assert not getattr(layer.weight.quant_state, "packing_format_for_cpu", False), "a forward repacked the weights"


@pytest.mark.skipif(not bnb.functional.has_avx512bf16(), reason="this processor has no such kernel")
@pytest.mark.filterwarnings("ignore:.*autograd kernel was not registered")
def test_without_the_cure_gradients_are_silently_wrong(
    base_files: BaseFiles, plain_gradients: dict[str, torch.Tensor]
) -> None:
    """When this fails, bitsandbytes has repaired it, and the cure can go."""
    policy = Policy.load(base_files, AdapterConfig(train_a=True), expand=False)
    for module in policy.model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = True
    ill = gradients(policy)
    assert len(ill) == 140, "nothing seems to be missing, but"
    assert sum(cosine < 0.9 for cosine in agreement(ill, plain_gradients)) > 70


def test_only_b_learns_by_default_and_nothing_after_freeze(policy: Policy) -> None:
    policy.new_adapter("mia")
    parameters = policy.trainable("mia")
    learning = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert len(parameters) == len(learning) == 70
    assert all("lora_B.mia" in name for name in learning)
    policy.freeze("mia")
    assert not any(p.requires_grad for p in policy.model.parameters())


# ---- features --------------------------------------------------------------------------------------------------------


def test_features_do_not_change_when_the_adapter_does(policy: Policy) -> None:
    policy.new_adapter("mia")
    written = replies(policy, adapter=None)
    before = [policy.read(group.prompt, group.replies, group.ended) for group in written]
    disturb(policy, "mia", seed=1, size=1.0)
    policy.use("mia")
    after = [policy.read(group.prompt, group.replies, group.ended) for group in written]
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.prompt_trunk, other.prompt_trunk)
        assert all(torch.equal(a, b) for a, b in zip(one.trunks, other.trunks, strict=True))


def test_reading_a_text_gives_the_activations_of_writing_it(exact: Policy) -> None:
    for group in replies(exact, copies=2):
        read = exact.read(group.prompt, group.replies, group.ended)
        assert (read.replies, read.ended) == (group.replies, group.ended)
        torch.testing.assert_close(read.prompt_trunk, group.prompt_trunk, atol=2e-3, rtol=1e-3)
        for a, b in zip(read.trunks, group.trunks, strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)


# ---- many people -----------------------------------------------------------------------------------------------------


def test_two_people_asked_in_turn_never_mix(policy: Policy) -> None:
    for seed, name in enumerate(("mia", "noah")):
        policy.new_adapter(name)
        disturb(policy, name, seed, size=0.15)
    asked = prompts(policy, 2)
    alone = {(name, i): write(policy, asked[i], name, tokens=2) for name in ("mia", "noah") for i in range(2)}
    assert len({tuple(reply) for reply in alone.values()}) == 4, "the four replies must differ to tell them apart"
    for turn in range(50):
        name, i = ("mia", "noah")[turn % 2], turn // 2 % 2
        assert write(policy, asked[i], name, tokens=2) == alone[name, i]


def test_nor_when_their_replies_are_written_token_by_token_in_turn(policy: Policy) -> None:
    for seed, name in enumerate(("mia", "noah")):
        policy.new_adapter(name)
        disturb(policy, name, seed, size=0.15)
    prompt = prompts(policy, 1)[0]
    alone = {name: write(policy, prompt, name) for name in ("mia", "noah", None)}
    batches = [
        Generation([prompt], 1, Sampling(0.0, 1.0, 6, 0), policy.renderer.end_ids, adapter=name) for name in alone
    ]
    while not all(batch.done for batch in batches):
        for batch in batches:
            if not batch.done:
                policy.use(batch.adapter)
                batch.step(policy)
    assert {batch.adapter: batch.replies[0] for batch in batches} == alone


def test_dropping_the_adapter_in_use_leaves_the_base_on(policy: Policy) -> None:
    prompt = prompts(policy, 1)[0]
    base = write(policy, prompt, None)
    for seed, name in enumerate(("mia", "noah")):
        policy.new_adapter(name)
        disturb(policy, name, seed, size=0.2)
    policy.use("mia")
    policy.drop_adapter("mia")
    assert policy.adapters == ["noah"]
    assert write(policy, prompt, None) == base
    policy.drop_adapter("noah")
    policy.new_adapter("mia")
    assert write(policy, prompt, "mia") == base, "a name may come back, as a fresh adapter"


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT 0.21 under transformers 5
def test_a_saved_adapter_gives_the_same_logits_in_plain_peft(
    exact: Policy, base_files: BaseFiles, tmp_path: Path
) -> None:
    exact.new_adapter("mia")
    disturb(exact, "mia", seed=1)
    folder = save_adapter(exact, "mia", tmp_path / "v1")
    ids = torch.tensor([prompts(exact, 1)[0]])
    with torch.no_grad():
        base = exact.model(ids).logits
        exact.use("mia")
        ours = exact.model(ids).logits
        plain = PeftModel.from_pretrained(load_unquantized(base_files)[0], str(folder)).eval()(ids).logits
    torch.testing.assert_close(plain, ours, atol=1e-4, rtol=1e-4)
    assert float((ours - base).abs().max()) > 0.1


def test_a_loaded_adapter_is_the_one_that_was_saved(policy: Policy, tmp_path: Path) -> None:
    policy.new_adapter("mia")
    disturb(policy, "mia", seed=1)
    policy.load_adapter("noah", save_adapter(policy, "mia", tmp_path / "v1"))
    mia, noah = policy.adapter_state("mia"), policy.adapter_state("noah")
    assert mia.keys() == noah.keys()
    assert all(torch.equal(mia[key], noah[key]) for key in mia)
    prompt = prompts(policy, 1)[0]
    assert write(policy, prompt, "noah") == write(policy, prompt, "mia")


@pytest.mark.parametrize("damage", ["rank", "alpha", "nan", "missing", "bytes", "config"])
def test_an_adapter_that_does_not_fit_is_refused_and_leaves_nothing_behind(
    policy: Policy, tmp_path: Path, damage: str
) -> None:
    policy.new_adapter("mia")
    folder = save_adapter(policy, "mia", tmp_path / "v1")
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    state = policy.adapter_state("mia")
    key = min(state)
    if damage == "rank":
        save_file({**state, key: state[key][:4].contiguous()}, weights)
    elif damage == "alpha":
        config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 99}))
    elif damage == "nan":
        save_file({**state, key: state[key] * torch.nan}, weights)
    elif damage == "missing":
        save_file({name: value for name, value in state.items() if name != key}, weights)
    elif damage == "bytes":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        config.write_text("[]")
    with pytest.raises(CorruptFile, match="v1"):
        policy.load_adapter("noah", folder)
    assert policy.adapters == ["mia"]
