"""The lean decoding step says what transformers says, with and without an adapter, for one reply and for many."""

from __future__ import annotations

import copy

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.functional import _convert_weight_packed_for_cpu, has_avx512bf16
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.cache_utils import Cache

from adapters import expanded as in_memory
from adapters import lean
from adapters.base_model import BaseFiles, load_base
from adapters.decoding import Generation, Sampling, step_together
from adapters.expanded import FourBit
from adapters.lean import lean_step_for
from adapters.lean_layers import pack
from adapters.policy import Policy
from tests.adapters.helpers import disturb, prompts


def steps(
    policy: Policy, copies: int, adapter: str | None, *, use: bool, count: int = 4
) -> list[tuple[Tensor, Tensor]]:
    """Logits and trunk of some steps after the prompts, always fed the same tokens. use: the lean step, or else not."""
    kept, found = policy.lean, list[tuple[Tensor, Tensor]]()
    batch = Generation(prompts(policy), copies, Sampling(0.0, 1.0, 8, 0), [])
    policy.use(adapter)
    try:
        policy.lean = None
        batch.step(policy)
        policy.lean = kept if use else None
        for number in range(count):
            batch._last = torch.arange(len(batch.replies)) * 37 + 100 * number + 5
            batch.step(Watched(policy, found))
    finally:
        policy.lean = kept
    return found


class Watched:
    """A policy whose steps are kept."""

    def __init__(self, policy: Policy, found: list[tuple[Tensor, Tensor]]) -> None:
        self.device, self.depth, self._policy, self._found = policy.device, policy.depth, policy, found

    def step(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        self._found.append(self._policy.step(ids, mask, positions, cache))
        return self._found[-1]


@pytest.mark.parametrize("adapter", [None, "mia"])
def test_in_full_precision_it_is_the_same(exact: Policy, adapter: str | None) -> None:
    exact.new_adapter("mia")
    disturb(exact, "mia", seed=1)
    for copies in (1, 4):
        pairs = zip(steps(exact, copies, adapter, use=True), steps(exact, copies, adapter, use=False), strict=True)
        for (logits, trunk), (other_logits, other_trunk) in pairs:
            torch.testing.assert_close(logits, other_logits, atol=2e-3, rtol=1e-4)
            torch.testing.assert_close(trunk, other_trunk, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("adapter", [None, "mia"])
@pytest.mark.parametrize("copies", [1, 6])  # 3 rows go through the fused kernel, 18 do not
def test_in_the_served_precision_it_is_as_near_as_bf16_allows(policy: Policy, adapter: str | None, copies: int) -> None:
    policy.new_adapter("mia")
    disturb(policy, "mia", seed=1)
    pairs = zip(steps(policy, copies, adapter, use=True), steps(policy, copies, adapter, use=False), strict=True)
    for (logits, trunk), (other_logits, other_trunk) in pairs:
        mine, theirs = logits.log_softmax(-1), other_logits.log_softmax(-1)
        assert float((theirs.exp() * (theirs - mine)).sum(-1).max()) < 0.03, "nats between the two distributions"
        assert float((trunk - other_trunk).float().norm() / other_trunk.float().norm()) < 0.03


def test_four_bits_on_a_processor_without_bf16(base_files: BaseFiles) -> None:
    model, tokenizer = load_base(base_files, expand=False)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.compute_dtype = torch.float32
        elif (weight := getattr(module, "weight", None)) is not None:
            weight.data = weight.data.float()
    plain = Policy(model, tokenizer, base_files.base_id)
    plain.new_adapter("mia")
    disturb(plain, "mia", seed=1)
    assert plain.dtype == torch.float32 and plain.lean is not None
    pairs = zip(steps(plain, 1, "mia", use=True), steps(plain, 1, "mia", use=False), strict=True)
    for (logits, _), (other, _) in pairs:
        mine, theirs = logits.log_softmax(-1), other.log_softmax(-1)
        assert float((theirs.exp() * (theirs - mine)).sum(-1).max()) < 0.03


def test_several_batches_take_a_step_together_as_each_would_alone(policy: Policy) -> None:
    """To the last bit where the fused kernel runs: prompts of different lengths, two adapters and the base."""
    adapters = [None, "mia", "noa", "mia"]
    for seed, name in enumerate(("mia", "noa"), start=1):
        policy.new_adapter(name)
        disturb(policy, name, seed=seed)

    def begun() -> list[Generation]:
        asked = prompts(policy)
        found = []
        for number, adapter in enumerate(adapters):
            part = asked[:2] if number == 3 else [asked[number % len(asked)]]  # one of padded prompts
            found.append(Generation(part, 1 + number % 2, Sampling(0.8, 1.0, 8, number), [], adapter=adapter))
            policy.use(adapter)
            found[-1].step(policy)
        return found

    alone, together = begun(), begun()
    for batch in alone:
        policy.use(batch.adapter)
        batch.run(policy)
    assert sum(batch.rows for batch in together) <= policy.together
    while not all(batch.done for batch in together):
        step_together(together, policy)
    assert [batch.replies for batch in together] == [batch.replies for batch in alone]
    assert policy.lean is not None
    fused = has_avx512bf16()
    for batch, other in zip(together, alone, strict=True):
        if fused:
            assert torch.equal(batch.trunk_means(), other.trunk_means())
        else:
            torch.testing.assert_close(batch.trunk_means(), other.trunk_means())
    assert together[1].replies[0] != together[2].replies[0], "adapters that differ too little to tell"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_whole_step_gives_every_row_the_logits_that_it_gets_alone(policy: Policy, size: int) -> None:
    """As many rows as there may be, by several adapters: one to a person, or several drafts each."""
    names = ("mia", "noa", "kim")
    for seed, name in enumerate(names, start=1):
        policy.new_adapter(name)
        disturb(policy, name, seed=seed)

    def begun() -> list[Generation]:
        asked, found = prompts(policy), []
        for number in range(policy.together // size):
            batch = Generation(
                [asked[number % len(asked)]],
                size,
                Sampling(0.8, 1.0, 8, number),
                [],
                adapter=names[number % len(names)],
            )
            policy.use(batch.adapter)
            batch.step(policy)
            found.append(batch)
        return found

    found = policy.steps([batch._part() for batch in begun()])
    for batch, (logits, trunk) in zip(begun(), found, strict=True):
        policy.use(batch.adapter)
        part = batch._part()
        alone, its_trunk = policy.step(part.ids, part.mask, part.positions, part.cache)
        if has_avx512bf16():
            assert torch.equal(logits, alone) and torch.equal(trunk, its_trunk)
        else:
            torch.testing.assert_close(logits, alone, atol=0.1, rtol=0.02)


def test_the_adapter_counts_as_it_is_now(policy: Policy) -> None:
    policy.new_adapter("mia")
    plain = steps(policy, 2, None, use=True)
    for (logits, _), (other, _) in zip(steps(policy, 2, "mia", use=True), plain, strict=True):
        torch.testing.assert_close(logits, other)
    for parameter in policy.trainable("mia"):
        with torch.no_grad():
            parameter.add_(0.02)
    policy.freeze("mia")
    changed = steps(policy, 2, "mia", use=True)
    assert not torch.allclose(changed[0][0], plain[0][0], atol=0.5)
    disturb(policy, "mia", seed=2)
    assert not torch.allclose(steps(policy, 2, "mia", use=True)[0][0], changed[0][0], atol=0.1)
    policy.drop_adapter("mia")
    policy.new_adapter("mia")
    for (logits, _), (other, _) in zip(steps(policy, 2, "mia", use=True), plain, strict=True):
        torch.testing.assert_close(logits, other)


def test_no_more_stacks_are_kept_than_there_is_room_for(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "STACKS_KEPT", 2)
    for name in ("one", "two", "three"):
        policy.new_adapter(name)
        steps(policy, 1, name, use=True, count=1)
    assert policy.lean is not None and list(policy.lean._stacks) == ["two", "three"]
    policy.drop_adapter("three")
    assert list(policy.lean._stacks) == ["two"]


def test_the_kernels_order_of_weights(base_files: BaseFiles) -> None:
    policy = Policy.load(base_files, expand=False)
    assert policy.lean is not None
    for group in policy.lean._layers[3].groups:
        packed = pack([FourBit(each.weight.data, each.weight.quant_state) for each in group.modules])
        theirs = []
        for module in group.modules:
            state = copy.deepcopy(module.weight.quant_state)
            theirs.append(_convert_weight_packed_for_cpu(module.weight.data.clone(), state))
        assert torch.equal(packed.weights, torch.cat([weights for weights, _ in theirs]))
        assert torch.equal(packed.scales, torch.cat([state.absmax for _, state in theirs], dim=1))
        assert packed.weights.shape == (packed.outputs, group.modules[0].in_features // 2)


def test_the_kernel_says_what_the_operator_around_it_says(base_files: BaseFiles) -> None:
    """To the last bit, for any number of rows, whoever else is there, and however they lie in memory."""
    if not has_avx512bf16():
        assert in_memory.nf4_kernel() is None, "bitsandbytes has none for this processor"
        return
    policy = Policy.load(base_files, expand=False)
    assert policy.lean is not None
    for group in policy.lean._layers[3].groups:
        (first, *_), packed = group.modules, group._pack()
        inputs = torch.randn(first.in_features, 11).bfloat16().T
        shape = [packed.outputs, first.in_features]
        theirs = torch.ops.bitsandbytes.gemv_4bit.default(
            inputs[:4].contiguous(), packed.weights, shape, packed.scales, first.weight.quant_state.code, packed.block
        )
        mine = packed.multiply(inputs)
        assert torch.equal(mine[:4], theirs)
        for row in range(len(inputs)):
            assert torch.equal(packed.multiply(inputs[row : row + 1]), mine[row : row + 1])


def test_the_fused_kernel_is_used_where_there_is_one(policy: Policy) -> None:
    steps(policy, 1, None, use=True, count=1)
    assert policy.lean is not None
    group = policy.lean._layers[0].qkv
    assert (group._packed is not None) == has_avx512bf16() == group._packs


def test_what_is_expanded_keeps_one_copy_in_four_bits(base_files: BaseFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the fused kernel, in its order from its first use; many rows go by the plain matrix, which has a gradient."""
    monkeypatch.setattr(in_memory, "faster_in_fp32", lambda: False)  # the prompt is read by bf16 matrices both times
    expanded, packed = (Policy.load(base_files, expand=expand) for expand in (True, False))
    assert expanded.lean is not None
    modules = [module for layer in expanded.lean._layers for group in layer.groups for module in group.modules]
    assert all((module.four_bit is not None) == has_avx512bf16() for module in modules)
    for copies, exact in ((1, has_avx512bf16()), (6, False)):
        pairs = zip(steps(expanded, copies, None, use=True), steps(packed, copies, None, use=True), strict=True)
        for (logits, _), (other, _) in pairs:
            if exact:
                assert torch.equal(logits, other)
            else:
                torch.testing.assert_close(logits, other, atol=0.3, rtol=0.05)
    assert all(module.four_bit is None for module in modules)


def test_other_models_are_left_to_transformers() -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
             "intermediate_size": 64, "vocab_size": 32}  # fmt: skip
    plain = LlamaForCausalLM(LlamaConfig(**sizes))
    assert lean_step_for(plain, 1) is not None
    assert lean_step_for(LlamaForCausalLM(LlamaConfig(**sizes, attention_bias=True)), 1) is None
    assert lean_step_for(LlamaForCausalLM(LlamaConfig(**sizes, hidden_act="gelu")), 1) is None
    assert lean_step_for(Qwen2ForCausalLM(Qwen2Config(**sizes)), 1) is None

    class Strange(nn.Linear):
        pass

    plain.model.layers[1].mlp.up_proj = Strange(64, 64, bias=False)
    assert lean_step_for(plain, 1) is None
