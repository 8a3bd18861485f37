"""Drafts that a vLLM server writes, taken in step: a `Writing` sees them as it sees drafts that are written here.

What comes in waits until every unfinished draft has its next token; so drafts are told apart when each is as long as
the others, however the server takes turns. A draft that becomes a copy of another goes on as a stream of its own, from
that beginning; the server has read it already. What the reward head looks at comes from the base here: it reads the
prompt while the server writes, and each draft once, a few at a time, before it is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from adapters.cache import GrowingLayer
from adapters.policy import Policy
from adapters.prefill import READ_AT_ONCE, PromptReader, Prompts
from adapters.rendering import Rendered
from assistant import writing
from assistant.prefixes import Prefixes
from assistant.vllm import ModelServer
from assistant.writing import Ask

READ_ROWS = 4  # drafts read in one turn


class RemoteDrafts:
    """The drafts of one request. `take` and `fail` come from the server's thread, all else from the engine's."""

    rows = 0  # takes no step with others

    def __init__(
        self,
        server: ModelServer,
        policy: Policy,
        prefixes: Prefixes,
        ask: Ask,
        prompt: Rendered,
        rouse: Callable[[], None],
    ) -> None:
        """rouse: tells the engine's thread that a step can be taken."""
        self.replies: list[list[int]] = [[] for _ in range(ask.copies)]
        self.ended = [False] * ask.copies
        self._policy, self._prefixes, self._ask, self._rouse = policy, prefixes, ask, rouse
        self._unfinished = set(range(ask.copies))
        self._streams = list(range(ask.copies))  # which stream each draft comes by
        self._coming: list[deque[int]] = [deque() for _ in range(ask.copies)]  # by stream
        self._finish: list[str | None] = [None] * ask.copies  # by stream: why nothing comes after that
        self._error: Exception | None = None
        self._reader = PromptReader(prompt.ids, prefixes.find(ask.user_id, None, prompt.ids))
        self._prompt: Prompts | None = None  # once it is read
        self._length = len(prompt.ids)
        self._means: Tensor | None = None  # (R, H) fp32, of each draft's first tokens
        self._read = [0] * ask.copies  # how many those are
        self._server, self._ids = server, prompt.ids
        self._requests = [server.write(ask.adapter, ask.user_id, [prompt.ids] * ask.copies, ask.sampling, self)]

    # ---- the server's thread ----------------------------------------------------------------------------------------

    def take(self, row: int, tokens: Sequence[int], finish: str | None) -> None:
        """More tokens of a stream, and why there are no more."""
        self._coming[row].extend(tokens)
        self._finish[row] = finish
        if self._has_come:
            self._rouse()

    def fail(self, error: Exception) -> None:
        """Nothing more comes."""
        self._error = error
        self._rouse()

    # ---- the engine's thread ----------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Every draft has ended or reached the limit."""
        return not self._unfinished

    @property
    def unfinished(self) -> frozenset[int]:
        """Drafts that are still being written."""
        return frozenset(self._unfinished)

    @property
    def ready(self) -> bool:
        """Whether the next tokens are here, or something can be read meanwhile."""
        return self._error is not None or self._prompt is None or self._has_come

    def step(self, model: Policy) -> dict[int, int]:
        """One more token of every unfinished draft; {} when a piece of what was written was read first.

        Raises what went wrong with the server.
        """
        if self._error is not None:
            raise self._error
        if self._prompt is None and (self._decides or not self._has_come):
            self._read_prompt()
            return {}
        if not self._has_come:
            return {}
        if self._decides and (behind := self._behind(ahead=1)):
            self._read_drafts(behind[:READ_ROWS], ahead=1)
            return {}
        return self._next()

    def drop(self, rows: Collection[int], device: torch.device) -> None:
        """Stop writing some of them."""
        self._unfinished.difference_update(rows)
        self._drop_streams([self._streams[row] for row in rows])

    def resample(self, parents: Mapping[int, int], device: torch.device) -> None:
        """Let drafts go on as copies of unfinished ones, after `trunk_means`."""
        assert self._means is not None, "copies of what was not read"
        self._drop_streams([self._streams[row] for row in parents])
        first, ask = len(self._coming), self._ask
        self._coming += [deque() for _ in parents]
        self._finish += [None] * len(parents)
        for stream, (row, beginning) in enumerate(
            {row: list(self.replies[parent]) for row, parent in parents.items()}.items(), first
        ):
            self._streams[row], self.replies[row], self.ended[row] = stream, beginning, False
            self._read[row] = self._read[parents[row]]
        self._means[list(parents)] = self._means[list(parents.values())]
        self._unfinished.update(parents)
        begun = [[*self._ids, *self.replies[row]] for row in parents]
        left = ask.sampling.max_tokens - max(len(self.replies[row]) for row in parents)
        how = replace(ask.sampling, max_tokens=left)
        self._requests.append(self._server.write(ask.adapter, ask.user_id, begun, how, self, first, self._requests[0]))

    def trunk_means(self) -> Tensor:
        """Mean trunk activation over each draft's tokens but its last, (R, H) fp32."""
        while self._prompt is None:
            self._read_prompt()
        while behind := self._behind():
            self._read_drafts(behind[:READ_ROWS])
        assert self._means is not None
        return self._means

    def prompt_means(self, newest: int) -> Tensor:
        """Mean trunk activation of the prompt's newest tokens, (1, H) fp32; after `trunk_means`."""
        assert self._prompt is not None
        return torch.stack([trunk[-newest:].float().mean(0) for trunk in self._prompt.trunks])

    def close(self) -> None:
        """Let the server stop."""
        for request in self._requests:
            request.close()

    def _drop_streams(self, streams: Sequence[int]) -> None:
        for request in self._requests:
            request.drop(streams)

    @property
    def _has_come(self) -> bool:
        """Whether every unfinished draft has its next token, or is over."""
        streams = [self._streams[row] for row in tuple(self._unfinished)]
        return all(self._coming[stream] or self._finish[stream] for stream in streams)

    @property
    def _decides(self) -> bool:
        """Whether drafts are told apart, or all are done, after the next tokens; known once those have come."""
        if not self._has_come:
            return False
        longest = max((len(self.replies[row]) for row in self._unfinished), default=0)
        narrows = self._ask.narrow is not None and longest + 1 == writing.NARROW_AT
        narrows |= self._ask.resample is not None and longest + 1 == writing.RESAMPLE_AT
        return narrows or all(self._ends(row) for row in self._unfinished)

    def _ends(self, row: int) -> bool:
        """Whether a draft's next token is its last."""
        coming, limit = self._coming[self._streams[row]], self._ask.sampling.max_tokens
        over = self._finish[self._streams[row]] is not None and len(coming) <= 1
        return over or len(self.replies[row]) + 1 >= limit or coming[0] in self._policy.renderer.end_ids

    def _next(self) -> dict[int, int]:
        coming = {row: self._coming[self._streams[row]] for row in sorted(self._unfinished)}
        taken = {row: tokens.popleft() for row, tokens in coming.items() if tokens}
        for row in tuple(self._unfinished):
            reply, over = self.replies[row], self._finish[self._streams[row]] if not coming[row] else None
            if row in taken:
                reply.append(taken[row])
                self.ended[row] = taken[row] in self._policy.renderer.end_ids
            self.ended[row] |= over == "stop"  # by a token that only the server takes for an end
            if self.ended[row] or over or len(reply) >= self._ask.sampling.max_tokens:
                self._unfinished.remove(row)
        return taken

    # ---- what the base here makes of it -----------------------------------------------------------------------------

    def _read_prompt(self) -> None:
        """Read a piece of it."""
        self._policy.use(None)
        if not self._reader.last:
            self._reader.step(self._policy)
            return
        self._prompt, prefix = self._reader.finish(self._policy)
        self._prefixes.keep(self._ask.user_id, None, prefix)
        width = self._prompt.trunks[0].shape[-1]
        self._means = self._prompt.trunks[0].new_zeros((len(self.replies), width), dtype=torch.float32)

    def _wanted(self, row: int, ahead: int) -> int:
        """How many of a draft's tokens are to be read: all but its last; ahead: of those that are about to come."""
        return max(0, len(self.replies[row]) - 1 + (ahead if row in self._unfinished else 0))

    def _behind(self, ahead: int = 0) -> list[int]:
        return [row for row, read in enumerate(self._read) if read < self._wanted(row, ahead)]

    def _read_drafts(self, rows: Sequence[int], ahead: int = 0) -> None:
        """Read some drafts, after the prompt, from their beginnings on."""
        assert self._prompt is not None and self._means is not None
        self._policy.use(None)
        drafts = [self.replies[row][: self._wanted(row, ahead)] for row in rows]
        sums = torch.zeros_like(self._means[: len(rows)])
        cache = _repeated(self._prompt.cache, len(rows))
        at_once = READ_AT_ONCE // len(rows)
        for at in range(0, max(map(len, drafts)), at_once):
            parts = [draft[at : at + at_once] for draft in drafts]
            width = max(map(len, parts))
            ids = torch.tensor([part + [0] * (width - len(part)) for part in parts], device=self._policy.device)
            positions = torch.arange(self._length + at, self._length + at + width, device=self._policy.device)
            # Padding on the right is seen by nothing before it.
            _, trunk = self._policy.step(ids, None, positions.expand(len(rows), -1), cache)
            for place, part in enumerate(parts):
                sums[place] += trunk[place, : len(part)].float().sum(0)
        for place, row in enumerate(rows):
            self._read[row] = len(drafts[place])
            self._means[row] = sums[place] / len(drafts[place])


def _repeated(cache: Cache, rows: int) -> Cache:
    """A copy of a cache of one row, as many times."""
    copy = Cache(layers=[GrowingLayer() for _ in cache.layers])
    for mine, layer in zip(copy.layers, cache.layers, strict=True):
        assert isinstance(layer, GrowingLayer)
        mine.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1))
    return copy
