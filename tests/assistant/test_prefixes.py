"""Beginnings of prompts that were read already: the longest that fits, each person's and adapter's own, bounded."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters.prefill import READ_AT_ONCE, Prefix
from assistant.prefixes import Prefixes

ONE, TWO, OTHER = (list(range(start, start + READ_AT_ONCE)) for start in (0, 1000, 2000))


def read(*ids: Sequence[int]) -> Prefix:
    """A beginning whose states tell their place."""
    tokens = [token for part in ids for token in part]
    places = torch.arange(len(tokens), dtype=torch.float32)
    return Prefix(tuple(tokens), (places.expand(2, 1, 1, -1)[..., None],), places[:, None])


def found(kept: Prefixes, ids: Sequence[int], user_id: str = "u_ada", adapter: str | None = None) -> int:
    """How many tokens are known."""
    prefix = kept.find(user_id, adapter, ids)
    if prefix is None:
        return 0
    assert list(prefix.ids) == list(ids[: len(prefix.ids)])
    assert prefix.states[0].shape[3] == len(prefix.trunk) == len(prefix.ids)
    return len(prefix.ids)


def test_what_two_prompts_begin_with_is_known_in_whole_steps() -> None:
    kept = Prefixes()
    kept.keep("u_ada", None, read(ONE, TWO))
    assert found(kept, [*ONE, *TWO, 7]) == 2 * READ_AT_ONCE
    assert found(kept, [*ONE, *TWO]) == READ_AT_ONCE  # the last token is read in any case: the reply begins there
    assert found(kept, [*ONE, *TWO[:50], 7]) == READ_AT_ONCE
    assert found(kept, [*ONE[:-1], 7, *TWO]) == 0
    assert found(kept, ONE[:20]) == 0


def test_each_person_and_adapter_has_its_own() -> None:
    kept = Prefixes()
    kept.keep("u_ada", None, read(ONE))
    kept.keep("u_ada", "u_ada-v1", read(TWO))
    assert found(kept, [*ONE, 7], "u_bob") == 0
    assert found(kept, [*ONE, 7], adapter="u_ada-v1") == 0
    assert found(kept, [*TWO, 7], adapter="u_ada-v1") == READ_AT_ONCE
    kept.forget("u_ada")
    assert kept.tokens == 0


def test_a_longer_beginning_takes_the_place_of_a_shorter_one() -> None:
    kept = Prefixes()
    kept.keep("u_ada", None, read(ONE))
    kept.keep("u_ada", None, read(ONE, TWO))
    kept.keep("u_ada", None, read(ONE))
    assert kept.tokens == 2 * READ_AT_ONCE
    kept.keep("u_ada", None, None)
    assert found(kept, [*ONE, *TWO, 7]) == 2 * READ_AT_ONCE


def test_the_longest_unused_goes_first() -> None:
    kept = Prefixes(room=2 * READ_AT_ONCE)
    for part in (ONE, TWO):
        kept.keep("u_ada", None, read(part))
    assert found(kept, [*ONE, 7]) == READ_AT_ONCE
    kept.keep("u_bob", None, read(OTHER))
    assert found(kept, [*TWO, 7]) == 0 and found(kept, [*ONE, 7]) == READ_AT_ONCE
    kept.keep("u_bob", None, read(ONE, TWO, OTHER))  # more than there is room for
    assert kept.tokens == 2 * READ_AT_ONCE
