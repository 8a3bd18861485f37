"""How fast Mynah writes, as ratios to a peer in the same process: medians of interleaved runs, with their spread.

    python -m benchmarks.speed            # half an hour on two idle cores: `make bench-speed`; stopped, it goes on
    python -m benchmarks.speed --quick    # fewer runs of fewer things

    a step      one more token for 1 to 68 replies, with and without an adapter, against transformers with PEFT on the
                base in 4 bits
    a draw      34 prompts of different lengths, two replies each, against the same
    eight       one more token for eight people, each by their own adapter, against the same by the base, against
                one after the other, and against PEFT's batch of mixed adapters (`adapter_names`)
    re-ranking  the best of 16 drafts of 64 tokens and its rest up to 128, against one base reply of 128
    a person    a reply by an adapter against one by the base, and a token against llama.cpp with the same adapter
    training    forward and backward of a PPO batch, against the matrix products it needs at the machine's own
                rate, in bf16 or fp32 as it is faster
    PPO         episodes a second against TRL's PPOTrainer: same base, prompts, lengths, batches and epochs, and the
                time until the same reward
    a server    from its start to a first token, against imports and loading; eight who chat, against the same without
                992 others who have an account

Machines are shared and noisy: what is compared takes turns, and a ratio is the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
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
from adapters.expanded import faster_in_fp32
from adapters.files import write_json
from adapters.packing import Group, lay_out
from adapters.policy import Policy
from adapters.pool import MAX_POSITIONS
from adapters.ppo import PPOConfig, PPOStats, ppo_loss, ppo_update
from adapters.prompts import shipped_prompts
from adapters.rollout import roll_out
from assistant.config import default_models_dir
from assistant.writing import NARROW_AT
from benchmarks import peers
from benchmarks.report import columns
from benchmarks.server_speed import crowd, first_token
from benchmarks.work import RESULTS, Unit, Work, commit, machine

ROWS = (1, 4, 16, 68)
TOKENS = 128  # of a whole reply
LEARNING = 4  # PPO batches in which TRL shows what it can earn
ADAPTER = "measured"
Figures = dict[str, float]  # "mine", "other", and of their ratio other / mine: "ratio", "low", "high"
PEOPLE = tuple(f"person-{number}" for number in range(8))


class Speed:
    """The embedded base with one adapter that changes a little."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.files = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
        self.policy, self.other = Policy.load(self.files), Policy.load(self.files, expand=False)
        self.other.lean = self.other.lean_top = None  # transformers, PEFT and bitsandbytes as they come
        random = torch.Generator().manual_seed(0)
        for adapter in (ADAPTER, *PEOPLE):
            self.policy.new_adapter(adapter)
            self.other.new_adapter(adapter)
            state = self.policy.adapter_state(adapter)
            moved = {name: value + 0.005 * torch.randn(value.shape, generator=random) for name, value in state.items()}
            self.policy.set_adapter_state(adapter, moved)
            self.other.set_adapter_state(adapter, moved)
        texts = [text for _, text in shipped_prompts("gate")]
        self.prompts = [self.policy.render([{"role": "user", "content": text}]) for text in texts]

    def step(self, rows: int, adapter: str | None, *, peer: bool, count: int = 24) -> float:
        """Milliseconds of one more token for so many replies to a prompt of usual length."""
        prompt = sorted(self.prompts, key=len)[len(self.prompts) // 2]
        batch = Generation([prompt], rows, Sampling(0.8, 1.0, count + 1, 1), [], adapter=adapter)
        policy = self.other if peer else self.policy
        policy.use(adapter)
        batch.step(policy)
        started = time.perf_counter()
        batch.run(policy)
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
        model: Any = self.other._peft
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
        policy = self.other if peer else self.policy
        roll_out(policy, self.prompts, 2, Sampling(0.8, 1.0, 64, 1), adapter=ADAPTER)
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

    def llama_cpp(self, python: Path) -> Iterator[tuple[str, Figures]]:
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

    def training(self) -> tuple[Callable[[], float], Callable[[], float]]:
        """Seconds of forward and backward over one PPO batch, and of what it needs at the rate of large products."""
        config = PPOConfig(max_tokens=48)
        sampling = Sampling(config.temperature, 1.0, config.max_tokens, 1)
        groups = roll_out(self.policy, self.prompts[: config.prompts], config.replies, sampling, adapter=ADAPTER)
        parts = lay_out(groups, range(len(groups)), MAX_POSITIONS, self.policy.device, self.policy.dtype)
        needed = operations(self.policy, groups)
        square = torch.randn(2048, 2048, dtype=torch.float32 if faster_in_fp32() else self.policy.dtype)

        def step() -> float:
            parameters = self.policy.trainable(ADAPTER)
            started = time.perf_counter()
            for part in parts:
                logprobs = self.policy.logprobs(part.packed, config.temperature)
                mask = part.packed.response_mask
                loss, _ = ppo_loss(logprobs, logprobs.detach(), torch.ones_like(logprobs), mask, config.clip_range)
                torch.autograd.grad(loss, parameters)
            taken = time.perf_counter() - started
            self.policy.freeze(ADAPTER)
            return taken

        def bound() -> float:
            started = time.perf_counter()
            for _ in range(8):
                square @ square
            return (time.perf_counter() - started) / 8 * needed / (2 * 2048**3)

        return step, bound

    def learn(self, config: PPOConfig, until: float | None = None) -> tuple[float, int]:
        """Seconds and episodes of a PPO run, or of its batches until one of them earns `until` on average. What a reply
        is worth is the share of its tokens with an even number."""
        name, earned, started = "learning", list[tuple[float, float]](), time.perf_counter()

        def score(groups: Sequence[Group]) -> list[np.ndarray]:
            return [np.array([fmean(token % 2 == 0 for token in reply) for reply in group.replies]) for group in groups]

        class Enough(Exception):
            """The reward is reached."""

        def on_batch(done: int, stats: PPOStats) -> None:
            earned.append((stats.scores, time.perf_counter() - started))
            if until is not None and stats.scores >= until:
                raise Enough

        self.policy.new_adapter(name)
        try:
            with suppress(Enough):
                ppo_update(self.policy, name, self.prompts, score, config, seed=1, on_batch=on_batch)
        finally:
            self.policy.drop_adapter(name)
        return earned[-1][1], len(earned) * config.prompts * config.replies

    def trl(self, python: Path) -> Iterator[tuple[str, Figures]]:
        """The peer as it comes and spared its models, each once between two runs of one's own: it takes minutes."""
        config = PPOConfig(max_tokens=48)
        for spared in (False, True):
            before = self._episode(config)
            found = peers.trl(python, self.prompts, replace(config, batches=LEARNING if spared else 2), spared=spared)
            other, mine = found["seconds"] / found["episodes"], [before, self._episode(config)]
            low, high = sorted(other / each for each in mine)
            name = f"a PPO episode, the other: TRL{', spared its models' if spared else ''} (s)"
            yield name, {"mine": fmean(mine), "other": other, "ratio": other / fmean(mine), "low": low, "high": high}
        scores, seconds = found["scores"], found["seconds"]
        reached = max(fmean(scores[i : i + 2]) for i in range(len(scores) - 1))
        runs = [self.learn(replace(config, batches=2 * LEARNING), until=reached)[0] for _ in range(2)]
        name = f"until replies earn {reached:.3f} (at first {scores[0]:.3f}), the other: TRL, spared its models (s)"
        low, high = sorted(seconds / run for run in runs)
        yield name, {"mine": fmean(runs), "other": seconds, "ratio": seconds / fmean(runs), "low": low, "high": high}

    def _episode(self, config: PPOConfig) -> float:
        seconds, episodes = self.learn(config)
        return seconds / episodes

    def versus(self, mine: Callable[[], float], other: Callable[[], float]) -> Figures:
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

    def parts(self, quick: bool) -> dict[str, Callable[[], Iterable[tuple[str, Figures]]]]:
        """All there is to measure, part by part."""
        parts: dict[str, Callable[[], Iterable[tuple[str, Figures]]]] = {
            f"steps of {rows}": partial(self._steps, rows) for rows in ((1, 16) if quick else ROWS)
        }
        parts |= {"eight people": self._eight, "replies": self._replies, "training": self._training}
        if (python := peers.python_of("llama.cpp")) is not None:
            parts["llama.cpp"] = partial(self.llama_cpp, python)
        if not quick:
            parts |= {"draws": self._draws, "servers": self._servers}
            if (python := peers.python_of("trl")) is not None:
                parts["TRL"] = partial(self.trl, python)
        return parts

    def _steps(self, rows: int) -> Iterator[tuple[str, Figures]]:
        for adapter in (None, ADAPTER):
            step = partial(self.step, rows, adapter)
            name = f"a step of {rows}, {'with an adapter' if adapter else 'the base'} (ms)"
            yield name, self.versus(partial(step, peer=False), partial(step, peer=True))

    def _eight(self) -> Iterator[tuple[str, Figures]]:
        own, base = partial(self.eight, PEOPLE, together=True), partial(self.eight, [None] * len(PEOPLE), together=True)
        yield "eight people, the other: the same without adapters (ms)", self.versus(own, base)
        in_turn = partial(self.eight, PEOPLE, together=False)
        yield "eight people, the other: one after the other (ms)", self.versus(own, in_turn)
        yield "eight people, the other: PEFT's mixed batch (ms)", self.versus(own, self.eight_by_peft)

    def _replies(self) -> Iterator[tuple[str, Figures]]:
        whole = partial(self.reply, 1)
        yield "a re-ranked reply, the other: a base one (s)", self.versus(partial(self.reply, 16), whole)
        name = "a reply by an adapter, the other: by the base (s)"
        yield name, self.versus(partial(self.reply, 1, ADAPTER), whole)

    def _training(self) -> Iterator[tuple[str, Figures]]:
        yield "a training step, the other: its products at the machine's rate (s)", self.versus(*self.training())

    def _draws(self) -> Iterator[tuple[str, Figures]]:
        draws = partial(self.draw, peer=False), partial(self.draw, peer=True)
        yield "two replies to 34 prompts (s)", self.versus(*draws)

    def _servers(self) -> Iterator[tuple[str, Figures]]:
        with first_token() as seconds:
            yield "start to first token, the other: imports and load (s)", self.versus(*seconds)
        with crowd() as seconds:
            yield "eight replies at once among 1,000 accounts, the other: among 8 (s)", self.versus(*seconds)


def operations(policy: Policy, groups: Sequence[Group]) -> float:
    """Floating point operations that learning from these groups needs, nothing computed twice or for padding.

    Of what is frozen a product forward and one backward, of B one more; of attention what tokens see.
    """
    positions = sum(group.packed_length for group in groups)
    replies = sum(len(reply) for group in groups for reply in group.replies)
    seen = 0
    for group in groups:
        start = len(group.prompt)
        lengths = [len(reply) - 1 for reply in group.replies]
        seen += start * (start + 1) // 2 + sum(n * start + n * (n + 1) // 2 for n in lengths)
    layers = policy.decoder.layers[policy.split :]
    weights = sum(
        module.weight.numel()
        for layer in layers
        for name, module in layer.named_modules()
        if name.endswith("base_layer")
    )
    lora = {half: sum(p.numel() for n, p in policy._parameters(ADAPTER) if half in n) for half in ("lora_A", "lora_B")}
    frozen = 4.0 * (weights + lora["lora_A"]) * positions + 4.0 * policy._head.weight.numel() * replies
    width = policy.model.config.hidden_size
    return frozen + 6.0 * lora["lora_B"] * positions + 12.0 * len(layers) * width * seen


def _rows(measure: Callable[[], Iterable[tuple[str, Figures]]]) -> Unit:
    return dict(measure())


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs of fewer things")
    quick = parser.parse_args().quick
    runs = 3 if quick else 5
    work, speed, found = Work("speed", {"runs": runs, "quick": quick}), Speed(runs), dict[str, Figures]()
    for name, measure in speed.parts(quick).items():
        print(f"{time.strftime('%H:%M:%S')}  {name}", flush=True)
        part = work.unit(name, partial(_rows, measure))
        found |= {row: figures for row, figures in part.items() if row != "unit_seconds"}
    if work.mixed:
        print(f"Measured by other code than today's: {', '.join(work.mixed)}.")
    about: dict[str, Any] = {"figures": found, "commit": commit(), "machine": machine(), "quick": quick}
    write_json(RESULTS / ("work/speed-quick.json" if quick else "speed.json"), about)
    rows = [
        [name, f"{f['mine']:.1f}", f"{f['other']:.1f}", f"{f['ratio']:.2f} ({f['low']:.2f}–{f['high']:.2f})"]
        for name, f in found.items()
    ]
    print(columns(["what", "Mynah", "the other", "other / Mynah (quartiles)"], rows))
    work.forget()


if __name__ == "__main__":
    main()
