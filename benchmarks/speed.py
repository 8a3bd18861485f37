"""How fast Mynah writes, as ratios to a peer in the same process: medians of interleaved runs, with their spread.

    python -m benchmarks.speed            # some minutes on two idle cores: `make bench-speed`
    python -m benchmarks.speed --quick    # fewer runs of fewer things

    a step      one more token for 1 to 68 replies, with and without an adapter, against transformers with PEFT
    a draw      34 prompts of different lengths, two replies each, against the same
    eight       one more token for eight people, each by their own adapter, against the same by the base, against
                one after the other, and against PEFT's batch of mixed adapters (`adapter_names`)
    re-ranking  the best of 16 drafts of 64 tokens and its rest up to 128, against one base reply of 128
    a person    a reply by an adapter against one by the base, and a token against llama.cpp with the same adapter
    PPO         episodes a second against TRL's PPOTrainer: same base, prompts, lengths, batches and epochs

Machines are shared and noisy: what is compared takes turns, and a ratio is the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean, median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from adapters.base_model import DEFAULT_BASE, prepare_base
from adapters.cache import GrowingLayer
from adapters.decoding import Generation, Sampling, sample, step_together
from adapters.files import write_json
from adapters.policy import Policy
from adapters.ppo import PPOConfig, ppo_update
from adapters.prompts import shipped_prompts
from adapters.rollout import roll_out
from assistant.config import default_models_dir
from assistant.writing import NARROW_AT
from benchmarks import peers
from benchmarks.report import columns
from benchmarks.work import RESULTS, commit, machine

ROWS = (1, 2, 4, 8, 16, 68)
TOKENS = 128  # of a whole reply
ADAPTER = "measured"
PEOPLE = tuple(f"person-{number}" for number in range(8))


class Speed:
    """The embedded base with one adapter that changes a little."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.files = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
        self.policy = Policy.load(self.files)
        random = torch.Generator().manual_seed(0)
        for adapter in (ADAPTER, *PEOPLE):
            self.policy.new_adapter(adapter)
            state = self.policy.adapter_state(adapter)
            moved = {name: value + 0.005 * torch.randn(value.shape, generator=random) for name, value in state.items()}
            self.policy.set_adapter_state(adapter, moved)
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

    def eight(self, adapters: Sequence[str | None], *, together: bool, count: int = 24) -> float:
        """Milliseconds of one more token for eight people; together: as one batch, else one after the other."""
        sampling = Sampling(0.8, 1.0, count + 1, 1)
        batches = [
            Generation([prompt], 1, sampling, [], adapter=adapter)
            for prompt, adapter in zip(self.prompts, adapters, strict=False)
        ]
        for batch in batches:
            self.policy.use(batch.adapter)
            batch.step(self.policy)
        started = time.perf_counter()
        for _ in range(count):
            if together:
                step_together(batches, self.policy)
            else:
                for batch in batches:
                    self.policy.use(batch.adapter)
                    batch.step(self.policy)
        return (time.perf_counter() - started) / count * 1000

    def eight_by_peft(self, count: int = 24) -> float:
        """The same by transformers and PEFT, in one padded batch."""
        model: Any = self.policy._peft
        model.eval()  # the wrapper alone still says that it trains, and then takes no mixed batch
        prompts = self.prompts[: len(PEOPLE)]
        longest = max(map(len, prompts))
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        ids = torch.tensor([[0] * (longest - len(each)) + list(each) for each in prompts])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = Cache(layers=[GrowingLayer() for _ in range(self.policy.depth)])
        started = 0.0
        with torch.inference_mode():
            for number in range(count + 1):
                if number == 1:
                    started = time.perf_counter()
                out = model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                    adapter_names=list(PEOPLE),
                )
                ids = sample(out.logits[:, -1].float(), 0.8, 1.0, torch.rand(len(prompts)))[:, None]
                mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], dim=1)
                positions = positions[:, -1:] + 1
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

    def llama_cpp(self, python: Path) -> Iterator[tuple[str, dict[str, float]]]:
        """A token after the usual prompt, by the base and by an adapter."""
        prompt = sorted(self.prompts, key=len)[len(self.prompts) // 2]
        with TemporaryDirectory() as folder:
            lora = peers.as_gguf(Path(folder) / "adapter.gguf", self.policy, ADAPTER, self.files)
            for adapter in (None, ADAPTER):
                peer = peers.LlamaCpp(python, prompt, 64, lora if adapter else None)
                by = "an adapter" if adapter else "the base"
                mine = partial(self.step, 1, adapter, peer=False, count=64)
                yield f"a token by {by}, the other: llama.cpp, Q4_1 (ms)", self.versus(mine, peer.milliseconds)
                peer.close()

    def episode(self, config: PPOConfig) -> float:
        """Seconds of a PPO episode; what a reply is worth is counted, not computed."""
        name = "learning"
        self.policy.new_adapter(name)
        score = lambda groups: [  # noqa: E731
            np.array([fmean(token % 2 == 0 for token in reply) for reply in group.replies]) for group in groups
        ]
        started = time.perf_counter()
        ppo_update(self.policy, name, self.prompts, score, config, seed=1, checkpoint=None, on_batch=lambda *_: None)
        taken = time.perf_counter() - started
        self.policy.drop_adapter(name)
        return taken / (config.batches * config.prompts * config.replies)

    def trl(self, python: Path) -> dict[str, float]:
        """The peer once, between two runs of one's own: it takes minutes."""
        config = PPOConfig(max_tokens=48)
        before = self.episode(config)
        found = peers.trl(python, self.prompts, config)
        other, mine = found["seconds"] / found["episodes"], [before, self.episode(config)]
        low, high = sorted(other / each for each in mine)
        return {"mine": fmean(mine), "other": other, "ratio": other / fmean(mine), "low": low, "high": high}

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
        own = partial(self.eight, PEOPLE, together=True)
        base = partial(self.eight, [None] * len(PEOPLE), together=True)
        found["eight people, the other: the same without adapters (ms)"] = self.versus(own, base)
        in_turn = partial(self.eight, PEOPLE, together=False)
        found["eight people, the other: one after the other (ms)"] = self.versus(own, in_turn)
        found["eight people, the other: PEFT's mixed batch (ms)"] = self.versus(own, self.eight_by_peft)
        print("eight people", flush=True)
        if not quick:
            draws = partial(self.draw, peer=False), partial(self.draw, peer=True)
            found["two replies to 34 prompts (s)"] = self.versus(*draws)
        whole = partial(self.reply, 1)
        if (python := peers.python_of("llama.cpp")) is not None:
            found |= dict(self.llama_cpp(python))
        if not quick and (python := peers.python_of("trl")) is not None:
            found["a PPO episode, the other: TRL (s)"] = self.trl(python)
            print("PPO", flush=True)
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
