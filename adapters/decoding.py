"""Writing replies, one token a step, for a batch of drafts that share a prompt or not.

A `Generation` owns its key/value cache and its random numbers; whoever drives it (the chat engine, a rollout) decides
when to take the next step, so several generations can take turns on one model. The same prompts, seed, adapter and
batch shape give the same tokens. Beam search and repetition penalties are left out on purpose: PPO needs the
policy's own distribution.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from adapters.cache import GrowingLayer
from adapters.prefill import Prefix, PromptReader, Stepper, read_prompts
from feedback.errors import InvalidInput

SPARE = 8  # finished rows stay in a batch until they are one in so many


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


class JointStepper(Protocol):
    """A model that takes the next steps of several batches as one."""

    device: torch.device

    def steps(self, parts: Sequence[Part]) -> list[tuple[Tensor, Tensor]]:
        """What `step` gives for each part, by the part's own adapter."""
        ...


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
        self.prefix: Prefix | None = None  # after the first step: how the only prompt begins, for the next that does
        self._reader = PromptReader(prompts[0], known) if len(prompts) == 1 else None  # until the first step
        self._cache: Cache | None = None
        self._batch = list(range(len(self.replies)))  # rows of the running batch, as indices into `replies`
        self._unfinished = set(self._batch)
        self._sums: Tensor | None = None
        self._trunks: list[tuple[list[int], Tensor]] = []
        self._last = torch.empty(0, dtype=torch.long)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])
        self._mask: Tensor | None = None

    @property
    def done(self) -> bool:
        """Every reply has ended or reached the limit."""
        return not self._unfinished

    @property
    def unfinished(self) -> frozenset[int]:
        """Replies that are still being written."""
        return frozenset(self._unfinished)

    @property
    def rows(self) -> int:
        """Rows of a step that writes the next token; 0 before the prompts are read."""
        return len(self._batch) if self._cache is not None else 0

    def step(self, model: Stepper) -> dict[int, int]:
        """Write one more token for every unfinished reply; returns {row: token id}."""
        if self._cache is None:
            return self._draw(self._prefill(model), model.device)
        part = self._part()
        return self._take(*model.step(part.ids, part.mask, part.positions, part.cache), model.device)

    @property
    def reading(self) -> bool:
        """Whether there is more of a single prompt to `read` before the first step."""
        return self._reader is not None and not self._reader.last

    def read(self, model: Stepper) -> None:
        """Read some more of the only prompt: worth a step of its own."""
        assert self._reader is not None
        self._reader.step(model)

    def _draw(self, logits: Tensor, device: torch.device) -> dict[int, int]:
        """One more token for every unfinished reply, in the order of the batch."""
        rows = [row for row in self._batch if row in self._unfinished]
        draws = torch.rand(len(self.replies), generator=self._random)[rows]
        tokens = sample(logits, self.sampling.temperature, self.sampling.top_p, draws.to(logits.device)).tolist()
        written = dict(zip(rows, tokens, strict=True))
        for row, token in written.items():
            self.replies[row].append(token)
            self.ended[row] = token in self._end_ids
            if self.ended[row] or len(self.replies[row]) >= self.sampling.max_tokens:
                self._unfinished.remove(row)
        self._compact(device)
        return written

    def drop(self, rows: Collection[int], device: torch.device) -> None:
        """Stop writing some replies (a stop string was met, a draft lost)."""
        self._unfinished.difference_update(rows)
        self._compact(device)

    def resample(self, parents: Mapping[int, int], device: torch.device) -> None:
        """Let replies, finished or not, go on as copies of unfinished ones: {reply: the one it becomes a copy of}."""
        assert self._sums is not None and not self.keep_trunk, "copies of what was not kept"
        assert self._unfinished.issuperset(parents.values()), "nothing follows what is finished"
        places = {row: place for place, row in enumerate(self._batch)}
        for row, beginning in {row: list(self.replies[parent]) for row, parent in parents.items()}.items():
            self.replies[row], self.ended[row] = beginning, False
        self._sums[list(parents)] = self._sums[list(parents.values())]
        self._unfinished.update(parents)
        self._batch = sorted(self._unfinished)
        self._take_rows([places[parents.get(row, row)] for row in self._batch], device)

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
        """Read what is left of the prompts; the logits of every reply's first token."""
        if self._reader is not None:
            read, self.prefix = self._reader.finish(model)
            self._reader = None
        else:
            read = read_prompts(self.prompts, model)
        self.prompt_trunks, self._cache = read.trunks, read.cache
        copies = torch.arange(len(self.prompts)).repeat_interleave(self.copies)
        longest = int(self._lengths.max())
        real = torch.arange(longest) >= longest - self._lengths[:, None]
        self._mask = None if bool(real.all()) else real.long()[copies].to(model.device)
        self._lengths = self._lengths[copies].to(model.device)
        rows = read.places[copies].to(model.device)
        if len(rows) > 1:
            self._select(rows)
        self._sums = read.trunks[0].new_zeros((len(rows), read.trunks[0].shape[-1]), dtype=torch.float32)
        return read.logits[rows]

    def _part(self) -> Part:
        assert self._cache is not None
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones((len(self._batch), 1))], dim=1)
        return Part(self._last[:, None], self._mask, self._lengths[:, None], self._cache, self.adapter)

    def _take(self, logits: Tensor, trunk: Tensor, device: torch.device) -> dict[int, int]:
        assert self._sums is not None
        self._lengths = self._lengths + 1
        places = [place for place, row in enumerate(self._batch) if row in self._unfinished]
        rows, hidden = [self._batch[place] for place in places], trunk[:, 0]
        if len(places) < len(self._batch):
            logits, hidden = logits[places], hidden[places]
        self._sums[rows] += hidden.float()
        if self.keep_trunk:
            self._trunks.append((rows, hidden))
        return self._draw(logits, device)

    def _compact(self, device: torch.device) -> None:
        """Go on, without the finished rows once they are an eighth of the batch: to take rows out copies the cache, and
        a batch of another size has its products compiled first. Both take longer than to write on for nothing."""
        keep = [place for place, row in enumerate(self._batch) if row in self._unfinished]
        if not keep:
            self._batch, self._cache = [], None
            return
        if (len(self._batch) - len(keep)) * SPARE >= len(self._batch):
            self._batch = [self._batch[place] for place in keep]
            self._take_rows(keep, device)
        else:
            self._last = torch.tensor([self.replies[row][-1] for row in self._batch], device=device)

    def _take_rows(self, places: Sequence[int], device: torch.device) -> None:
        """What the model keeps of each reply of the batch, from where it has been until now."""
        rows = torch.tensor(places, device=device)
        self._select(rows)
        self._lengths = self._lengths[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]
        self._last = torch.tensor([self.replies[row][-1] for row in self._batch], device=device)

    def _select(self, rows: Tensor) -> None:
        assert self._cache is not None
        for layer in self._cache.layers:
            assert isinstance(layer, GrowingLayer)
            layer.select(rows)


def step_together(batches: Sequence[Generation], model: JointStepper) -> list[dict[int, int]]:
    """`Generation.step` of several batches at once, each with its own adapter; all have read their prompts."""
    found = model.steps([batch._part() for batch in batches])
    return [batch._take(*each, model.device) for batch, each in zip(batches, found, strict=True)]


@torch.inference_mode()
def sample(logits: Tensor, temperature: float, top_p: float, draws: Tensor) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    logits: (B, V) fp32, which are written over: fresh memory for every step takes longer than what is done there.
    draws: (B,) uniform in [0, 1). Returns (B,) token ids. top_p keeps the smallest set of most likely tokens whose mass
    reaches it (Holtzman et al. 2020).
    """
    top, likeliest = logits.max(-1, keepdim=True)
    if temperature == 0.0:
        return likeliest[:, 0]
    weights = logits.sub_(top).div_(temperature).exp_()
    if top_p < 1.0:
        ordered, order = (weights / weights.sum(-1, keepdim=True)).sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= top_p, 0.0)
        return order.gather(-1, _invert(ordered, draws)[:, None])[:, 0]
    return _invert(weights, draws)


def _invert(weights: Tensor, draws: Tensor) -> Tensor:
    """Index at which the running sum of weights passes draw x total, (B, V), (B,) → (B,); the sum takes their place."""
    running = weights.cumsum_(-1)
    target = draws[:, None].to(running.dtype) * running[:, -1:]
    index = torch.searchsorted(running, target, right=True)[:, 0]
    # Rounding may push past the end; the last token with any mass is where the sum first reaches its total.
    last = torch.searchsorted(running, running[:, -1:].contiguous())[:, 0]
    return torch.minimum(index, last)
