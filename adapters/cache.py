"""Keys and values of what was read and written, in a cache that grows in blocks."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

CACHE_BLOCK = 64


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
            grown = _zeros((2, *like.shape[:-2], room, like.shape[-1]), like)
            if have:
                grown[0, ..., :have, :], grown[1, ..., :have, :] = self.keys, self.values
            self._store = grown
        return self._store

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) the given batch rows."""
        have = self.get_seq_length()
        if self._store is None:
            self.keys, self.values = self.keys[rows], self.values[rows]
        else:
            chosen = _zeros((2, len(rows), *self._store.shape[2:]), self._store)
            torch.index_select(self._store[..., :have, :], 1, rows, out=chosen[..., :have, :])
            self._store = chosen
            self.keys, self.values = self._store[..., :have, :]


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros of the type and on the device of another tensor; on a CPU, in pages of their own.

    What nobody has written to yet takes no memory there, and all of it goes back to the system with the tensor. glibc
    would keep it: caches are the largest blocks of all, and the next has another size (LOG.md).
    """
    size = math.prod(shape) * like.dtype.itemsize
    if like.device.type != "cpu" or not size or sys.platform == "win32":
        return like.new_zeros(shape)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=like.dtype).view(shape)


def side_by_side(caches: Sequence[Cache], longest: int) -> Cache:
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
