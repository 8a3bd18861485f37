"""The drafts of one request while they are written: what a `Writing` needs of whoever finds the next token.

`LocalDrafts` are written by the policy here; those that a model server writes are in vllm_drafts.py. Left out on
purpose: text, stop strings and the choice among drafts, which are the same for both (writing.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor

from adapters.decoding import Generation
from adapters.policy import Policy
from adapters.prefill import Stepper
from adapters.rendering import Rendered
from assistant.prefixes import Prefixes
from assistant.shelf import Shelf
from assistant.writing import Ask


class Drafts(Protocol):
    """Drafts under way; the names are those of `adapters.decoding.Generation`, which tells what they mean."""

    replies: list[list[int]]
    ended: list[bool]

    @property
    def done(self) -> bool: ...

    @property
    def unfinished(self) -> frozenset[int]: ...

    @property
    def rows(self) -> int: ...

    @property
    def ready(self) -> bool:
        """Whether a step would find something to do; asked from any thread."""
        ...

    def step(self, model: Policy) -> dict[int, int]:
        """One more token for every unfinished draft; {} when something else was done first."""
        ...

    def drop(self, rows: Collection[int], device: torch.device) -> None: ...

    def resample(self, parents: Mapping[int, int], device: torch.device) -> None: ...

    def trunk_means(self) -> Tensor: ...

    def prompt_means(self, newest: int) -> Tensor: ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class LocalDrafts(Generation):
    """Drafts that the policy here writes. Raises CorruptFile when the version asked for is damaged."""

    ready = True

    def __init__(self, policy: Policy, shelf: Shelf, prefixes: Prefixes, ask: Ask, prompt: Rendered) -> None:
        self._policy, self._shelf, self._prefixes, self._user_id = policy, shelf, prefixes, ask.user_id
        adapter = shelf.take(ask.adapter) if ask.adapter is not None else None
        super().__init__(
            [prompt.ids],
            ask.copies,
            ask.sampling,
            policy.renderer.end_ids,
            adapter=adapter,
            known=prefixes.find(ask.user_id, adapter, prompt.ids),
        )

    def step(self, model: Stepper) -> dict[int, int]:
        """The next token of each draft, or {} after a piece of a long prompt."""
        self._policy.use(self.adapter)
        if self.reading:
            self.read(model)
            return {}
        first = not self.replies[0]
        written = super().step(model)
        if first:
            self._prefixes.keep(self._user_id, self.adapter, self.prefix)
        return written

    def close(self) -> None:
        """Give the adapter back."""
        if self.adapter is not None:
            self._shelf.give(self.adapter)
