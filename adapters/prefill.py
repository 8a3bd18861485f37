"""Reading prompts before the first token: one in steps, from a known beginning on; or many side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from adapters.cache import GrowingLayer, side_by_side

READ_AT_ONCE = 256  # tokens of a single prompt that one step reads; others' steps may come in between
PREFILL_ROWS = 8  # prompts read at once: more gain nothing, and long ones among them make all of them long


class Stepper(Protocol):
    """What a generation needs of the model: one forward with a cache."""

    device: torch.device
    depth: int

    def step(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """(B, T) ids → last logits (B, V) fp32 and trunk activations (B, T, H)."""
        ...


@dataclass(frozen=True)
class Prefix:
    """How a prompt begins, read already: what a model makes of it depends on nothing that follows.

    Whole steps of `READ_AT_ONCE` tokens, so that a prompt that goes on from here is read in the same steps as one that
    does not, with the same bits. ids: T tokens; states: (2, 1, heads, T, d) a layer; trunk: (T, H).
    """

    ids: tuple[int, ...]
    states: tuple[Tensor, ...]
    trunk: Tensor

    def shared(self, ids: Sequence[int]) -> Prefix | None:
        """As much of it as another prompt begins with, short of that prompt's last token."""
        alike = 0
        for mine, other in zip(self.ids, ids[:-1], strict=False):
            if mine != other:
                break
            alike += 1
        whole = alike // READ_AT_ONCE * READ_AT_ONCE
        if not whole or whole == len(self.ids):
            return self if whole else None
        return Prefix(self.ids[:whole], tuple(each[..., :whole, :] for each in self.states), self.trunk[:whole])


@dataclass(frozen=True)
class Prompts:
    """P prompts that were read: a cache of P rows, padded on the left, and the logits after each (P, V).

    places: (P,) each prompt's row in them; trunks: each prompt's trunk activations (T, H).
    """

    cache: Cache
    logits: Tensor
    places: Tensor
    trunks: list[Tensor]


class PromptReader:
    """A single prompt, read in steps of at most READ_AT_ONCE tokens. known: how it begins, if that was read before."""

    def __init__(self, prompt: Sequence[int], known: Prefix | None = None) -> None:
        self._prompt, self._known = prompt, known
        self._cache: Cache | None = None
        self._trunks = [] if known is None else [known.trunk]

    @property
    def last(self) -> bool:
        """Whether one step is left: `finish`."""
        return len(self._prompt) - self._read <= READ_AT_ONCE

    def step(self, model: Stepper) -> Tensor:
        """Read some more; the logits after it."""
        if self._cache is None:
            self._cache = Cache(layers=[GrowingLayer() for _ in range(model.depth)])
            for layer, (keys, values) in zip(
                self._cache.layers, self._known.states if self._known else (), strict=False
            ):
                layer.update(keys, values)
        at, stop = self._read, min(self._read + READ_AT_ONCE, len(self._prompt))
        ids = torch.tensor([self._prompt[at:stop]], device=model.device)
        positions = torch.arange(at, stop, device=model.device)[None]
        logits, trunk = model.step(ids, None, positions, self._cache)
        self._trunks.append(trunk[0])
        return logits

    def finish(self, model: Stepper) -> tuple[Prompts, Prefix | None]:
        """Read the rest. Also how the prompt begins, for the next one that does: its last step is left out, so it is
        None where there was only one."""
        while not self.last:
            self.step(model)
        logits = self.step(model)
        assert self._cache is not None
        trunk, known = torch.cat(self._trunks), self._known
        whole = (len(self._prompt) - 1) // READ_AT_ONCE * READ_AT_ONCE
        if whole and (known is None or len(known.ids) < whole):
            both = ((layer.keys[..., :whole, :], layer.values[..., :whole, :]) for layer in self._cache.layers)
            known = Prefix(tuple(self._prompt[:whole]), tuple(map(torch.stack, both)), trunk[:whole])
        return Prompts(self._cache, logits, torch.zeros(1, dtype=torch.long), [trunk]), known

    @property
    def _read(self) -> int:
        return sum(map(len, self._trunks))


def read_prompts(prompts: Sequence[Sequence[int]], model: Stepper) -> Prompts:
    """Read many prompts, those of like length together."""
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    caches, logits, trunks = list[Cache](), list[Tensor](), dict[int, Tensor]()
    for start in range(0, len(order), PREFILL_ROWS):
        part = order[start : start + PREFILL_ROWS]
        cache = Cache(layers=[GrowingLayer() for _ in range(model.depth)])
        last, trunk = model.step(*_padded([prompts[row] for row in part], model.device), cache)
        trunks |= {row: trunk[at, trunk.shape[1] - len(prompts[row]) :] for at, row in enumerate(part)}
        caches.append(cache)
        logits.append(last)
    cache, places = side_by_side(caches, max(map(len, prompts))), torch.tensor(order).argsort()
    return Prompts(cache, torch.cat(logits), places, [trunks[row] for row in range(len(prompts))])


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
    """Prompts of different lengths as ids, a mask unless all are equally long, and positions; padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    real = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, real if bool((real == 0).any()) else None, (real.cumsum(1) - 1).clamp(min=0)
