"""The policy: one frozen base with many LoRA adapters, of which at most one is on at a time.

The base is split once. Below `split` is the trunk, which no adapter touches; above it are the layers that carry LoRA.
Trunk activations are therefore the same for every person and version: training reuses them, and the reward head's
latent features, taken from them, cannot drift with the policy. The reference policy is the policy with its adapter off.

A Policy belongs to one thread. PEFT's switches are global to the model, so whoever shares it takes
turns; `Generation` names its adapter and every forward switches first.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from adapters.attention import use_grouped_attention
from adapters.base_model import BaseFiles, load_base
from adapters.decoding import Part
from adapters.lean import lean_step_for
from adapters.lean_layers import together
from adapters.lean_top import lean_top_for
from adapters.logprobs import selected_logprobs
from adapters.packing import Group, PackedBatch
from adapters.rendering import ChatMessage, Renderer
from feedback.errors import CorruptFile

LORA_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
READ_ROWS = 16  # given replies read at once


@dataclass(frozen=True)
class AdapterConfig:
    """Which LoRA a person gets.

    rank, alpha: as in Hu et al. 2021. top_share: share of the layers, from the top, that carry it. train_a: also train
    A; off, one frozen random A serves everyone, so that adapters add exactly and x·A is common to a mixed batch.
    """

    rank: int = 8
    alpha: int = 16
    top_share: float = 1 / 3
    train_a: bool = False

    def first_layer(self, depth: int) -> int:
        """The first layer that carries LoRA, of `depth`; all below are the trunk."""
        return depth - max(1, round(depth * self.top_share))


class _Skip(nn.Module):
    """Stands in for a trunk layer while the top runs alone."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        return hidden_states


class Policy:
    """A base model and the adapters loaded onto it. lean, lean_top: the fast decoding step and the fast layers for
    training, None to let transformers do it."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        base_id: str,
        config: AdapterConfig | None = None,
        max_prompt_tokens: int = 1536,
    ) -> None:
        self.config = config or AdapterConfig()
        self.base_id = base_id
        self.tokenizer = tokenizer
        self.renderer = Renderer(tokenizer, max_prompt_tokens)
        use_grouped_attention(model)
        self.model: Any = model
        self.decoder: Any = model.model
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.get_input_embeddings().weight.dtype
        self.depth = len(self.decoder.layers)
        self.split = self.config.first_layer(self.depth)
        self._head: Any = model.get_output_embeddings()
        self._softcap: float | None = getattr(model.config, "final_logit_softcapping", None)
        self._all_layers = self.decoder.layers
        self._top_layers = nn.ModuleList([_Skip() for _ in range(self.split)] + list(self._all_layers[self.split :]))
        self._tap: Tensor | None = None
        self._all_layers[self.split].register_forward_pre_hook(self._remember_trunk, with_kwargs=True)
        self.lean = lean_step_for(model, self.split)
        self.lean_top = None if self.config.train_a else lean_top_for(model, self.split)
        self._peft: PeftModel | None = None
        self._on: str | None = None

    @classmethod
    def load(cls, files: BaseFiles, config: AdapterConfig | None = None, *, expand: bool | None = None) -> Policy:
        """Load a prepared base (see `base_model.prepare_base`)."""
        model, tokenizer = load_base(files, expand=expand)
        return cls(model, tokenizer, files.base_id, config)

    # ---- adapters -------------------------------------------------------------------------------------------------

    def lora_config(self) -> LoraConfig:
        """PEFT's description of an adapter here; loads with plain PEFT."""
        return LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=LORA_MODULES,
            layers_to_transform=list(range(self.split, self.depth)),
            layers_pattern="layers",
            task_type=TaskType.CAUSAL_LM,
        )

    def new_adapter(self, name: str) -> None:
        """Add an adapter that changes nothing yet (B = 0). A is drawn from a fixed seed, the same for everyone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._add(name)
        # PEFT draws A on the base's device and dtype; draw it here so that CPU and GPU agree.
        generator = torch.Generator().manual_seed(0)
        for key, parameter in self._parameters(name):
            with torch.no_grad():
                if "lora_A" in key:  # uniform within 1/sqrt(inputs), as PEFT's own
                    drawn = torch.rand(parameter.shape, generator=generator) * 2 - 1
                    parameter.copy_(drawn / parameter.shape[1] ** 0.5)
                else:
                    parameter.zero_()

    def load_adapter(self, name: str, folder: Path) -> None:
        """Add an adapter from a version folder whose hashes were checked. Raises CorruptFile if it does not fit."""
        try:
            state = load_file(folder / "adapter_model.safetensors")
            kept = json.loads((folder / "adapter_config.json").read_text("utf-8"))
            scaling = kept["lora_alpha"] / kept["r"]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise CorruptFile(f"The adapter in {folder.name} cannot be read ({error}).") from error
        if scaling != self.config.alpha / self.config.rank:
            raise CorruptFile(
                f"The adapter in {folder.name} has lora_alpha / r = {scaling:g}; this server runs adapters with "
                f"{self.config.alpha / self.config.rank:g}."
            )
        self._add(name)
        try:
            self.set_adapter_state(name, state)
        except CorruptFile as error:
            self.drop_adapter(name)
            raise CorruptFile(f"The adapter in {folder.name} cannot be used. {error.message}") from error

    def set_adapter_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Give a loaded adapter the tensors that `adapter_state` gave. Raises CorruptFile if they do not fit."""
        expected = get_peft_model_state_dict(self._peft, adapter_name=name)
        wrong = set(expected) ^ set(state) or {k for k in state if state[k].shape != expected[k].shape}
        if wrong:
            raise CorruptFile(
                f"It does not fit {self.base_id}: {len(wrong)} tensors differ (first: {min(wrong)}), so it was made "
                "for another base or another rank."
            )
        if not all(torch.isfinite(tensor).all() for tensor in state.values()):
            raise CorruptFile("It holds numbers that are not finite.")
        set_peft_model_state_dict(self._peft, state, adapter_name=name)

    def drop_adapter(self, name: str) -> None:
        """Unload an adapter; the base is on afterwards if it was the one in use."""
        assert self._peft is not None
        self.use(None)
        self._peft.delete_adapter(name)
        if self.lean is not None:
            self.lean.forget(name)
        self._activate([])  # PEFT turns on some other adapter after a deletion

    @property
    def adapters(self) -> list[str]:
        """Names of the loaded adapters."""
        return list(self._peft.peft_config) if self._peft is not None else []

    def use(self, name: str | None) -> None:
        """Switch to an adapter, or to the base."""
        if name == self._on:
            return
        assert name is None or name in self.adapters, f"adapter {name} is not loaded"
        self._activate([] if name is None else [name])
        self._on = name

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within the block the policy is its own reference: the same weights, adapter off."""
        before = self._on
        self.use(None)
        try:
            yield
        finally:
            self.use(before)

    def adapter_state(self, name: str) -> dict[str, Tensor]:
        """A copy of an adapter's tensors under PEFT's own names, on the CPU in fp32."""
        state = get_peft_model_state_dict(self._peft, adapter_name=name)
        return {key: value.detach().to("cpu", torch.float32, copy=True).contiguous() for key, value in state.items()}

    def trainable(self, name: str) -> list[nn.Parameter]:
        """Switch to an adapter for training and return the parameters that learn."""
        self.use(name)
        parameters = []
        for key, parameter in self._parameters(name):
            learns = "lora_B" in key or self.config.train_a
            parameter.requires_grad_(learns)
            if learns:
                parameters.append(parameter)
        return parameters

    def freeze(self, name: str) -> None:
        """End of training: no parameter asks for gradients any more."""
        for _, parameter in self._parameters(name):
            parameter.requires_grad_(False)

    def _add(self, name: str) -> None:
        assert "." not in name, "PEFT names hold no dots"
        with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5 for a property it is about to rename
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            if self._peft is None:
                self._peft = get_peft_model(self.model, self.lora_config(), adapter_name=name)
            else:
                self._peft.add_adapter(name, self.lora_config())
        self.freeze(name)
        self._activate([])
        self._on = None

    def _activate(self, names: list[str]) -> None:
        """Switch without touching requires_grad beyond freezing: `trainable` decides what learns."""
        if self._peft is not None:
            self._peft.base_model.set_adapter(names, inference_mode=True)

    def _parameters(self, name: str) -> list[tuple[str, nn.Parameter]]:
        assert self._peft is not None
        return [(key, p) for key, p in self._peft.named_parameters() if f".{name}." in key]

    # ---- forwards -------------------------------------------------------------------------------------------------

    def _remember_trunk(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._tap = args[0] if args else kwargs["hidden_states"]

    @torch.inference_mode()
    def step(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """A forward with a cache: (B, T) ids → last logits (B, V) fp32, trunk activations (B, T, H)."""
        if self.lean is not None and ids.shape[1] == 1:
            hidden, trunk = self.lean([Part(ids, mask, positions, cache, self._on)])
            return self._logits(hidden), trunk
        out = self.decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        assert self._tap is not None
        trunk, self._tap = self._tap, None
        return self._logits(out.last_hidden_state[:, -1]), trunk

    @property
    def together(self) -> int:
        """Rows that may take a step together and get what each would get alone; 0 where batches take turns."""
        return together() if self.lean is not None else 0

    @torch.inference_mode()
    def steps(self, parts: Sequence[Part]) -> list[tuple[Tensor, Tensor]]:
        """A decoding step of several batches as one, each by its own adapter: what `step` gives for each."""
        assert self.lean is not None
        hidden, trunk = self.lean(parts)
        sizes = [len(part.ids) for part in parts]
        return list(zip(self._logits(hidden).split(sizes), trunk.split(sizes), strict=True))

    def top(self, batch: PackedBatch) -> Tensor:
        """Final hidden states (B, L, H) from trunk activations, through the layers that carry LoRA."""
        self.decoder._modules["layers"] = self._top_layers
        try:
            out = self.decoder(
                inputs_embeds=batch.hidden,
                attention_mask=self._mask_argument(batch.attention),
                position_ids=batch.positions,
                use_cache=False,
            )
        finally:
            self.decoder._modules["layers"] = self._all_layers
            self._tap = None
        return out.last_hidden_state

    def logprobs(self, batch: PackedBatch, temperature: float) -> Tensor:
        """Log-probability of every reply token under the adapter now on, (R, T) fp32, 0 where masked.

        Gradients flow to the adapter unless the caller turned them off.
        """
        if self.lean_top is not None:
            hidden = self.lean_top(batch, self._on)
        else:
            hidden = self.top(batch)[batch.rows[batch.response_mask], batch.columns[batch.response_mask]]
        chosen = selected_logprobs(
            hidden, self._head.weight, batch.targets[batch.response_mask], temperature, self._softcap
        )
        out = chosen.new_zeros(batch.targets.shape)
        return out.masked_scatter(batch.response_mask, chosen)

    @torch.inference_mode()
    def read(self, prompt: Sequence[int], replies: Sequence[Sequence[int]], ended: Sequence[bool]) -> Group:
        """Trunk activations of given replies to a prompt, of one token or more each: for texts not written here."""
        assert replies and all(replies), "nothing to read"
        at, trunks = len(prompt), list[Tensor]()
        for start in range(0, len(replies), READ_ROWS):
            rows = [[*prompt, *reply[:-1]] for reply in replies[start : start + READ_ROWS]]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.device)
            hidden = self._trunk(ids)  # padding on the right is seen by nothing before it
            if not start:
                prompt_trunk = hidden[0, :at].clone()
            trunks += [hidden[i, at : len(row)].clone() for i, row in enumerate(rows)]
        return Group(list(prompt), [list(reply) for reply in replies], list(ended), prompt_trunk, trunks)

    def _trunk(self, ids: Tensor) -> Tensor:
        """(B, T) ids, padded at most on the right → trunk activations (B, T, H); the layers above do not run."""
        self.decoder._modules["layers"] = nn.ModuleList([*self._all_layers[: self.split], _Tap(self)])
        depth, self.decoder.config.num_hidden_layers = self.depth, self.split + 1
        try:
            self.decoder(input_ids=ids, use_cache=False)
        finally:
            self.decoder._modules["layers"] = self._all_layers
            self.decoder.config.num_hidden_layers = depth
        assert self._tap is not None
        trunk, self._tap = self._tap, None
        return trunk

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._head(hidden).float()
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def _mask_argument(self, attention: Tensor) -> Any:
        """Models with sliding windows take one mask a kind of layer; ours are all shorter than any window."""
        kinds = set(getattr(self.decoder.config, "layer_types", None) or ["full_attention"])
        return attention if kinds == {"full_attention"} else {kind: attention for kind in kinds}

    def render(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Prompt token ids of a conversation."""
        return self.renderer.prompt(messages).ids


class _Tap(nn.Module):
    """A last layer that only remembers its input."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._remember = policy._remember_trunk

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._remember(self, (hidden_states,), {})
        return hidden_states
