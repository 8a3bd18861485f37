"""Writing replies, one token a step, for a batch of drafts that share a prompt or not.

A `Generation` owns its key/value cache and its random numbers; whoever drives it (the chat engine, a rollout) decides
when to take the next step, so several generations can take turns on one model. The same prompts, seed, adapter and
batch shape give the same tokens. Beam search and repetition penalties are left out on purpose: PPO needs the
policy's own distribution.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from feedback.errors import InvalidInput

CACHE_BLOCK = 64
READ_AT_ONCE = 256  # tokens of a single prompt that one step reads; others' steps may come in between
PREFILL_ROWS = 8  # prompts read at once: more gain nothing, and long ones among them make all of them long


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. temperature 0 means the most likely one."""

    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 2.0:
            raise InvalidInput(f"temperature is {self.temperature}; it can be 0 to 2.", param="temperature")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidInput(f"top_p is {self.top_p}; it can be above 0, up to 1.", param="top_p")
        if self.max_tokens < 1:
            raise InvalidInput(f"max_tokens is {self.max_tokens}; it must be at least 1.", param="max_tokens")


@dataclass(frozen=True)
class Part:
    """What a batch needs for its next token: (B, 1) ids, (B, L) mask of 0 and 1 or None, (B, 1) positions."""

    ids: Tensor
    mask: Tensor | None
    positions: Tensor
    cache: Cache
    adapter: str | None


class Stepper(Protocol):
    """What a generation needs of the model: one forward with a cache."""

    device: torch.device
    depth: int

    def step(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """(B, T) ids → last logits (B, V) fp32 and trunk activations (B, T, H)."""
        ...


class JointStepper(Protocol):
    """A model that takes the next steps of several batches as one."""

    device: torch.device

    def steps(self, parts: Sequence[Part]) -> list[tuple[Tensor, Tensor]]:
        """What `step` gives for each part, by the part's own adapter."""
        ...


class GrowingLayer(DynamicLayer):
    """A key/value cache that grows in blocks instead of being copied at every token."""

    keys: Tensor
    values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append (B, heads, T, d) keys and values; returns all so far, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._store: Tensor | None = None
        have, new = self.get_seq_length(), key_states.shape[-2]
        store = self.reserve(new, key_states)
        store[0, ..., have : have + new, :], store[1, ..., have : have + new, :] = key_states, value_states
        self.keys, self.values = store[..., : have + new, :]
        return self.keys, self.values

    def append(self, both: Tensor) -> Tensor:
        """One more position: (2, B, heads, 1, d) keys and values; returns the whole store, see `reserve`."""
        have = self.get_seq_length()
        store = self.reserve(1, self.keys)
        store[..., have : have + 1, :] = both
        self.keys, self.values = store[..., : have + 1, :]
        return store

    def reserve(self, new: int, like: Tensor | None = None) -> Tensor:
        """Make room for so many more positions: (2, B, heads, room, d) keys and values, zeros where none are yet.

        Each half is contiguous, so that products with all of it copy nothing.
        """
        have = self.get_seq_length()
        if self._store is None or self._store.shape[-2] < have + new:
            like = self.keys if like is None else like
            room = -(-(have + new) // CACHE_BLOCK) * CACHE_BLOCK + CACHE_BLOCK
            grown = like.new_zeros((2, *like.shape[:-2], room, like.shape[-1]))
            if have:
                grown[0, ..., :have, :], grown[1, ..., :have, :] = self.keys, self.values
            self._store = grown
        return self._store

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) the given batch rows."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        self._store = None


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


class Generation:
    """Replies under way: `copies` drafts for each of the prompts.

    adapter: name of the adapter to write with, or None for the base. keep_trunk: keep every position's trunk
    activation (for training); otherwise only each reply's mean is kept (for the reward head's latent features). known:
    how the only prompt begins, as the same adapter read it before.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        copies: int,
        sampling: Sampling,
        end_ids: Collection[int],
        *,
        adapter: str | None = None,
        keep_trunk: bool = False,
        known: Prefix | None = None,
    ) -> None:
        assert known is None or len(prompts) == 1, "only one prompt can be gone on with"
        self.prompts, self.copies, self.sampling, self.adapter = prompts, copies, sampling, adapter
        self.replies: list[list[int]] = [[] for _ in range(len(prompts) * copies)]
        self.ended = [False] * len(self.replies)
        self.keep_trunk = keep_trunk
        self.prompt_trunks: list[Tensor] = []
        self._end_ids = frozenset(end_ids)
        self._random = torch.Generator().manual_seed(sampling.seed)
        self._known = known
        self._begun: Cache | None = None  # while a single prompt is being read
        self._begun_trunk: list[Tensor] = []
        self._cache: Cache | None = None
        self._live = list(range(len(self.replies)))  # rows of the running batch, as indices into `replies`
        self._sums: Tensor | None = None
        self._trunks: list[tuple[list[int], Tensor]] = []
        self._last = torch.empty(0, dtype=torch.long)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])
        self._mask: Tensor | None = None

    @property
    def done(self) -> bool:
        """Every reply has ended or reached the limit."""
        return not self._live

    @property
    def rows(self) -> int:
        """Replies that only need their next token; 0 before the prompts are read."""
        return len(self._live) if self._cache is not None else 0

    def step(self, model: Stepper) -> dict[int, int]:
        """Write one more token for every unfinished reply; returns {row: token id}."""
        if self._cache is None:
            while self.reading:
                self.read(model)
            return self._draw(self._prefill(model), model.device)
        part = self._part()
        return self._take(*model.step(part.ids, part.mask, part.positions, part.cache), model.device)

    @property
    def reading(self) -> bool:
        """Whether there is more of a single prompt to `read` before the first step."""
        return len(self.prompts) == 1 and self._sums is None and len(self.prompts[0]) - self._read > READ_AT_ONCE

    def read(self, model: Stepper) -> None:
        """Read some more of the prompt, at most READ_AT_ONCE tokens: worth a step of its own."""
        self._go_on(model, self._read + READ_AT_ONCE)

    def prefix(self) -> Prefix | None:
        """How the only prompt begins, for the next one that does; after the first step, None if it is too short.

        Some of its tokens, those of the prompt's last step, are left out.
        """
        return self._known

    @property
    def _read(self) -> int:
        """Tokens of a single prompt that were read, or known."""
        return sum(map(len, self._begun_trunk)) if self._begun else len(self._known.ids) if self._known else 0

    def _go_on(self, model: Stepper, stop: int) -> Tensor:
        """Read a single prompt as far as `stop`; the last token's logits."""
        if self._begun is None:
            self._begun = Cache(layers=[GrowingLayer() for _ in range(model.depth)])
            if self._known is not None:
                self._begun_trunk.append(self._known.trunk)
                for layer, (keys, values) in zip(self._begun.layers, self._known.states, strict=True):
                    layer.update(keys, values)
        at = self._read
        ids = torch.tensor([self.prompts[0][at:stop]], device=model.device)
        positions = torch.arange(at, stop, device=model.device)[None]
        logits, trunk = model.step(ids, None, positions, self._begun)
        self._begun_trunk.append(trunk[0])
        return logits

    def _prefill_one(self, model: Stepper) -> Tensor:
        """The last part of a single prompt; remembers how it began."""
        prompt = self.prompts[0]
        logits = self._go_on(model, len(prompt))
        assert self._begun is not None
        trunk = torch.cat(self._begun_trunk)
        whole = (len(prompt) - 1) // READ_AT_ONCE * READ_AT_ONCE
        if whole and (self._known is None or len(self._known.ids) < whole):
            states = [
                torch.stack((layer.keys[..., :whole, :], layer.values[..., :whole, :])) for layer in self._begun.layers
            ]
            self._known = Prefix(tuple(prompt[:whole]), tuple(states), trunk[:whole])
        self.prompt_trunks, self._cache, self._begun = [trunk], self._begun, None
        if self.copies > 1:
            self._select(torch.zeros(self.copies, dtype=torch.long, device=model.device))
        self._lengths = self._lengths.repeat(self.copies).to(model.device)
        self._sums = trunk.new_zeros((self.copies, trunk.shape[-1]), dtype=torch.float32)
        return logits.repeat(self.copies, 1)

    def _draw(self, logits: Tensor, device: torch.device) -> dict[int, int]:
        draws = torch.rand(len(self.replies), generator=self._random)[self._live]
        tokens = sample(logits, self.sampling.temperature, self.sampling.top_p, draws.to(logits.device)).tolist()
        written = dict(zip(self._live, tokens, strict=True))
        keep: list[int] = []
        for position, (row, token) in enumerate(written.items()):
            self.replies[row].append(token)
            self.ended[row] = token in self._end_ids
            if not self.ended[row] and len(self.replies[row]) < self.sampling.max_tokens:
                keep.append(position)
        if len(keep) < len(self._live):
            self._compact(keep, device)
        self._last = torch.tensor([written[row] for row in self._live], device=device)
        return written

    def drop(self, rows: Collection[int], device: torch.device) -> None:
        """Stop writing some replies (a stop string was met, a draft lost)."""
        keep = [position for position, row in enumerate(self._live) if row not in rows]
        if len(keep) < len(self._live):
            self._last = self._last[keep]
            self._compact(keep, device)

    def run(self, model: Stepper) -> None:
        """Step until every reply is done."""
        while not self.done:
            self.step(model)

    def trunk_means(self) -> Tensor:
        """Mean trunk activation over each reply's tokens but its last (which is never fed back), (R, H) fp32."""
        assert self._sums is not None, "nothing was written yet"
        counts = torch.tensor([max(len(reply) - 1, 1) for reply in self.replies], device=self._sums.device)
        return self._sums / counts[:, None]

    def prompt_means(self, newest: int) -> Tensor:
        """Mean trunk activation of the newest tokens of each prompt, (P, H) fp32."""
        return torch.stack([trunk[-newest:].float().mean(0) for trunk in self.prompt_trunks])

    def trunks(self) -> list[Tensor]:
        """With keep_trunk: each reply's trunk activations (len(reply) - 1, H), the last token's left out."""
        columns: list[list[Tensor]] = [[] for _ in self.replies]
        for rows, hidden in self._trunks:
            for position, row in enumerate(rows):
                columns[row].append(hidden[position])
        width = self.prompt_trunks[0].shape[-1]
        return [torch.stack(c) if c else self.prompt_trunks[0].new_empty((0, width)) for c in columns]

    def _prefill(self, model: Stepper) -> Tensor:
        """Read the prompts, those of like length together, and put their caches side by side, padded on the left."""
        if len(self.prompts) == 1:
            return self._prefill_one(model)
        longest = int(self._lengths.max())
        order = sorted(range(len(self.prompts)), key=lambda row: len(self.prompts[row]))
        caches, logits, trunks = list[Cache](), list[Tensor](), dict[int, Tensor]()
        for start in range(0, len(order), PREFILL_ROWS):
            part = order[start : start + PREFILL_ROWS]
            cache = Cache(layers=[GrowingLayer() for _ in range(model.depth)])
            last, trunk = model.step(*_padded([self.prompts[row] for row in part], model.device), cache)
            trunks |= {row: trunk[at, trunk.shape[1] - len(self.prompts[row]) :] for at, row in enumerate(part)}
            caches.append(cache)
            logits.append(last)
        self.prompt_trunks = [trunks[row] for row in range(len(self.prompts))]
        copies = torch.arange(len(self.prompts)).repeat_interleave(self.copies)
        rows = torch.tensor(order).argsort()[copies].to(model.device)
        self._cache = _side_by_side(caches, longest)
        if len(rows) > 1:
            self._select(rows)
        real = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in self.prompts])
        self._mask = real[copies].to(model.device) if bool((real == 0).any()) else None
        self._lengths = self._lengths[copies].to(model.device)
        self._sums = trunk.new_zeros((len(rows), trunk.shape[-1]), dtype=torch.float32)
        return torch.cat(logits)[rows]

    def _part(self) -> Part:
        assert self._cache is not None
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones((len(self._live), 1))], dim=1)
        return Part(self._last[:, None], self._mask, self._lengths[:, None], self._cache, self.adapter)

    def _take(self, logits: Tensor, trunk: Tensor, device: torch.device) -> dict[int, int]:
        assert self._sums is not None
        self._lengths = self._lengths + 1
        hidden = trunk[:, 0]
        self._sums[self._live] += hidden.float()
        if self.keep_trunk:
            self._trunks.append((list(self._live), hidden))
        return self._draw(logits, device)

    def _compact(self, keep: list[int], device: torch.device) -> None:
        """Continue with some rows of the batch only."""
        self._live = [self._live[position] for position in keep]
        if not self._live:
            self._cache = None
            return
        rows = torch.tensor(keep, device=device)
        self._select(rows)
        self._lengths = self._lengths[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]

    def _select(self, rows: Tensor) -> None:
        assert self._cache is not None
        for layer in self._cache.layers:
            assert isinstance(layer, GrowingLayer)
            layer.select(rows)


def step_together(batches: Sequence[Generation], model: JointStepper) -> list[dict[int, int]]:
    """`Generation.step` of several batches at once, each with its own adapter; all have read their prompts."""
    found = model.steps([batch._part() for batch in batches])
    return [batch._take(*each, model.device) for batch, each in zip(batches, found, strict=True)]


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
    """Prompts of different lengths as ids, a mask unless all are equally long, and positions; padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    real = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, real if bool((real == 0).any()) else None, (real.cumsum(1) - 1).clamp(min=0)


def _side_by_side(caches: Sequence[Cache], longest: int) -> Cache:
    """The rows of several caches in one, each padded on the left to `longest`; takes them apart on the way."""
    if len(caches) == 1:
        return caches[0]
    whole = Cache(layers=[GrowingLayer() for _ in caches[0].layers])
    for place, layer in enumerate(whole.layers):
        parts = [cache.layers[place] for cache in caches]
        keys, values = (
            torch.cat([F.pad(state, (0, 0, longest - state.shape[2], 0)) for state in states])
            for states in ([part.keys for part in parts], [part.values for part in parts])
        )
        layer.update(keys, values)
        for cache in caches:
            cache.layers[place] = GrowingLayer()
    return whole


def sample(logits: Tensor, temperature: float, top_p: float, draws: Tensor) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    logits: (B, V) fp32; draws: (B,) uniform in [0, 1). Returns (B,) token ids. top_p keeps the smallest set of most
    likely tokens whose mass reaches it (Holtzman et al. 2020).
    """
    if temperature == 0.0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= top_p, 0.0)
        return order.gather(-1, _invert(ordered, draws)[:, None])[:, 0]
    return _invert(probabilities, draws)


def _invert(weights: Tensor, draws: Tensor) -> Tensor:
    """Index at which the running sum of weights passes draw x total, (B, V), (B,) → (B,)."""
    running = weights.cumsum(-1)
    target = draws[:, None].to(running.dtype) * running[:, -1:]
    index = torch.searchsorted(running, target, right=True)[:, 0]
    # Rounding may push past the end; the last token with any mass is where the sum first reaches its total.
    last = torch.searchsorted(running, running[:, -1:].contiguous())[:, 0]
    return torch.minimum(index, last)
