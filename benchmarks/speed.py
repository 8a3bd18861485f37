"""How fast Mynah writes, as ratios to a peer in the same process: medians of interleaved runs, with their spread.

    python -m benchmarks.speed            # some minutes on two idle cores: `make bench-speed`
    python -m benchmarks.speed --quick    # fewer runs of fewer things

    a step      one more token for 1 to 68 replies, with and without an adapter, against transformers with PEFT
    a draw      34 prompts of different lengths, two replies each, against the same
    re-ranking  the best of 16 drafts of 64 tokens and its rest up to 128, against one base reply of 128
    a person    a reply by an adapter against one by the base

Machines are shared and noisy: what is compared takes turns, and a ratio is the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch

from adapters.base_model import DEFAULT_BASE, prepare_base
from adapters.decoding import Generation, Sampling
from adapters.files import write_json
from adapters.policy import Policy
from adapters.prompts import shipped_prompts
from adapters.rollout import roll_out
from assistant.config import default_models_dir
from assistant.writing import NARROW_AT
from benchmarks.report import columns
from benchmarks.work import RESULTS, commit, machine

ROWS = (1, 2, 4, 8, 16, 68)
TOKENS = 128  # of a whole reply
ADAPTER = "measured"


class Speed:
    """The embedded base with one adapter that changes a little."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.policy = Policy.load(prepare_base(DEFAULT_BASE, default_models_dir(), "nf4"))
        self.policy.new_adapter(ADAPTER)
        state = self.policy.adapter_state(ADAPTER)
        random = torch.Generator().manual_seed(0)
        moved = {name: value + 0.005 * torch.randn(value.shape, generator=random) for name, value in state.items()}
        self.policy.set_adapter_state(ADAPTER, moved)
        texts = [text for _, text in shipped_prompts("gate")]
        self.prompts = [self.policy.render([{"role": "user", "content": text}]) for text in texts]
        self._lean = self.policy.lean

    @contextmanager
    def peer(self, wanted: bool) -> Iterator[None]:
        """Within the block transformers and PEFT take the steps, if wanted."""
        self.policy.lean = None if wanted else self._lean
        try:
            yield
        finally:
            self.policy.lean = self._lean

    def step(self, rows: int, adapter: str | None, *, peer: bool, count: int = 24) -> float:
        """Milliseconds of one more token for so many replies to a prompt of usual length."""
        prompt = sorted(self.prompts, key=len)[len(self.prompts) // 2]
        batch = Generation([prompt], rows, Sampling(0.8, 1.0, count + 1, 1), [], adapter=adapter)
        self.policy.use(adapter)
        with self.peer(peer):
            batch.step(self.policy)
            started = time.perf_counter()
            batch.run(self.policy)
        return (time.perf_counter() - started) / count * 1000

    def draw(self, *, peer: bool) -> float:
        """Seconds of two replies to every gate prompt by the adapter."""
        started = time.perf_counter()
        with self.peer(peer):
            roll_out(self.policy, self.prompts, 2, Sampling(0.8, 1.0, 64, 1), adapter=ADAPTER)
        return time.perf_counter() - started

    def reply(self, drafts: int, adapter: str | None = None) -> float:
        """Seconds of a whole reply, the best of so many drafts; which one is chosen takes no time worth measuring."""
        batch = Generation([self.prompts[0]], drafts, Sampling(0.8, 1.0, TOKENS, 1), [], adapter=adapter)
        self.policy.use(adapter)
        started = time.perf_counter()
        while not batch.done:
            batch.step(self.policy)
            if drafts > 1 and len(batch.replies[0]) == NARROW_AT:
                batch.drop(range(1, drafts), self.policy.device)
        return time.perf_counter() - started

    def versus(self, mine: Callable[[], float], other: Callable[[], float]) -> dict[str, float]:
        """Both in turn: their medians, and median and quartiles of the ratio other / mine."""
        mine(), other()  # what is done once, at the first use, is not measured
        pairs = [(mine(), other()) for _ in range(self.runs)]
        low, middle, high = quantiles([b / a for a, b in pairs], n=4)
        return {
            "mine": median(a for a, _ in pairs),
            "other": median(b for _, b in pairs),
            "ratio": middle,
            "low": low,
            "high": high,
        }

    def all(self, quick: bool) -> dict[str, dict[str, float]]:
        """Every figure."""
        found: dict[str, dict[str, float]] = {}
        for rows in (1, 16) if quick else ROWS:
            for adapter in (None, ADAPTER):
                name = f"a step of {rows}, {'with an adapter' if adapter else 'the base'} (ms)"
                step = partial(self.step, rows, adapter)
                found[name] = self.versus(partial(step, peer=False), partial(step, peer=True))
                print(name, flush=True)
        if not quick:
            peers = partial(self.draw, peer=False), partial(self.draw, peer=True)
            found["two replies to 34 prompts (s)"] = self.versus(*peers)
        whole = partial(self.reply, 1)
        found["a re-ranked reply, the other: a base one (s)"] = self.versus(partial(self.reply, 16), whole)
        found["a reply by an adapter, the other: by the base (s)"] = self.versus(partial(self.reply, 1, ADAPTER), whole)
        return found


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs of fewer things")
    quick = parser.parse_args().quick
    found = Speed(runs=3 if quick else 7).all(quick)
    about: dict[str, Any] = {"figures": found, "commit": commit(), "machine": machine(), "quick": quick}
    write_json(RESULTS / ("work/speed-quick.json" if quick else "speed.json"), about)
    rows = [
        [name, f"{f['mine']:.1f}", f"{f['other']:.1f}", f"{f['ratio']:.2f} ({f['low']:.2f}–{f['high']:.2f})"]
        for name, f in found.items()
    ]
    print(columns(["what", "Mynah", "the other", "other / Mynah (quartiles)"], rows))


if __name__ == "__main__":
    main()
