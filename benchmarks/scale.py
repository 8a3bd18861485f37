"""Mynah for a million people, on paper: where adapters lie, when updates run, and what a month needs.

    python -m benchmarks.scale            # a minute on one core; writes benchmarks/results/scale.json

People are simulated: sessions of a few turns, more of them in the evening, a few people write most. What a turn and an
update cost is counted from the product's own settings and put on one accelerator's roofline, at the share of its rate
that training reaches on two cores (LOG.md); nothing here was measured on such an accelerator. Sizes on
disk are measured with the real store, head and file format. The text around the tables is docs/SCALE.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.files import write_json
from adapters.job import UpdateConfig
from adapters.policy import AdapterConfig
from adapters.prompts import limit_prompts, shipped_prompts
from benchmarks.report import columns
from benchmarks.search_load import fill
from benchmarks.work import RESULTS, commit
from feedback.population import load_population
from feedback.store import Store

DAY = 86_400.0
MILLION = 1_000_000


@dataclass(frozen=True)
class People:
    """What is assumed of those who have an account.

    turns_a_day: mean over all of them. spread: standard deviation of the logarithm of a person's activity. session:
    turns in a row, `pause` seconds apart. trough: traffic at the quietest hour as a share of the mean; the peak is as
    far above. labels_a_turn: clicks.
    """

    count: int = 20_000
    turns_a_day: float = 4.0
    spread: float = 1.3
    session: float = 5.0
    pause: float = 90.0
    trough: float = 0.3
    labels_a_turn: float = 0.15
    days: int = 4


@dataclass(frozen=True)
class Shape:
    """A base model whose layers have the usual seven matrices."""

    name: str
    layers: int
    hidden: int
    inner: int
    shared: int  # width of keys and of values
    vocabulary: int

    @property
    def layer_weights(self) -> int:
        """Numbers in one decoder layer's matrices."""
        return self.hidden * (2 * self.hidden + 2 * self.shared + 3 * self.inner)

    @property
    def weights(self) -> int:
        """Numbers that a token is multiplied by."""
        return self.layers * self.layer_weights + self.hidden * self.vocabulary

    @property
    def weights_bytes(self) -> float:
        """Read once for every step of a batch: layers in 4 bits, the output matrix in 16."""
        return 0.5 * self.layers * self.layer_weights + 2.0 * self.hidden * self.vocabulary

    def adapter_bytes(self, config: AdapterConfig) -> int:
        """A version's tensors, as Mynah writes them (fp32)."""
        inputs_and_outputs = (
            2 * (self.hidden + self.hidden)
            + 2 * (self.hidden + self.shared)
            + 2 * (self.hidden + self.inner)
            + (self.inner + self.hidden)
        )
        return 4 * config.rank * inputs_and_outputs * (self.layers - config.first_layer(self.layers))


@dataclass(frozen=True)
class Accelerator:
    """One device by its data sheet. share: of its product rate that work reaches; rows: of a decoding batch."""

    name: str = "one H100 (data sheet)"
    bytes_a_second: float = 3.35e12
    operations_a_second: float = 990e12
    share: float = 0.3
    rows: int = 128

    def writing(self, shape: Shape, tokens: float) -> float:
        """Seconds of decoding: every step reads the weights once and multiplies all rows by them."""
        multiplied = 2.0 * shape.weights * self.rows / (self.operations_a_second * self.share)
        return tokens / self.rows * max(shape.weights_bytes / self.bytes_a_second, multiplied)

    def reading(self, weights: float, tokens: float, passes: float = 1.0) -> float:
        """Seconds of forward passes (3 with a backward one) over tokens."""
        return 2.0 * weights * tokens * passes / (self.operations_a_second * self.share)


EMBEDDED = Shape("SmolLM2-135M", 30, 576, 1536, 192, 49_152)
EIGHT_BILLION = Shape("8B, the shape of Llama 3", 32, 4096, 14_336, 1024, 128_256)

PROMPT, REPLY, DRAFTS, BEGINNING = 400, 200, 16, 64  # tokens of a usual turn, re-ranked


def turn_seconds(shape: Shape, device: Accelerator) -> float:
    """A re-ranked reply: all drafts' beginnings, the rest of one, the prompt once."""
    written = DRAFTS * BEGINNING + REPLY - BEGINNING
    return device.writing(shape, written) + device.reading(shape.weights, PROMPT)


def update_seconds(shape: Shape, device: Accelerator, config: UpdateConfig) -> float:
    """An update by its settings: replies that are written, read by policy and base, and learned from."""
    top = shape.weights - config.adapter.first_layer(shape.layers) * shape.layer_weights
    pool, ppo, gate = config.pool, config.ppo, config.gate.measured
    learned = (len(shipped_prompts("pool")) + config.own_prompts) * config.warm_start.replies * pool.max_tokens
    episodes = ppo.batches * ppo.prompts * ppo.replies * ppo.max_tokens
    judged = (
        len(shipped_prompts("gate")) * gate.replies * gate.max_tokens * 1.75
    )  # half of it three times a stage, the rest at the end
    asked = gate.provoking * gate.provoking_replies + len(limit_prompts("gate")) * gate.limits_replies
    own = config.own_prompts * config.own_replies * pool.max_tokens
    written = own + episodes + judged + asked * gate.max_tokens
    steps = learned + ppo.epochs * episodes
    return device.writing(shape, written) + device.reading(top, 2 * written) + device.reading(top, steps, passes=2.0)


def turns(people: People, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All turns of all days in order: (N,) seconds since the first midnight, and (N,) who."""
    activity = random.lognormal(0.0, people.spread, people.count)
    sessions = random.poisson(people.turns_a_day / people.session * people.days * activity / activity.mean())
    who = np.repeat(np.arange(people.count), sessions)
    # The hour by inversion: density 1 - swing cos(2 pi t), quietest at midnight.
    grid = np.linspace(0.0, 1.0, 1441)
    swing = 1.0 - people.trough
    cumulative = grid - swing * np.sin(2 * np.pi * grid) / (2 * np.pi)
    start = (
        np.interp(random.random(len(who)), cumulative, grid) * DAY + random.integers(people.days, size=len(who)) * DAY
    )
    lengths = random.geometric(1.0 / people.session, len(who))
    owner = np.repeat(np.arange(len(who)), lengths)
    pauses = random.exponential(people.pause, len(owner))
    passed = np.cumsum(pauses)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    when = start[owner] + passed - passed[first][owner]
    order = np.argsort(when, kind="stable")
    return when[order], who[owner][order]


def hit_rate(who: Sequence[int], slots: int) -> float:
    """Share of the turns whose adapter was in a cache of so many, the least recently used leaving first; the first half
    only warms it."""
    kept: OrderedDict[int, None] = OrderedDict()
    hits, warm = 0, len(who) // 2
    for number, person in enumerate(who):
        if person in kept:
            kept.move_to_end(person)
            hits += number >= warm
        else:
            kept[person] = None
            if len(kept) > slots:
                kept.popitem(last=False)
    return hits / max(len(who) - warm, 1)


def cache_table(who: NDArray[np.int64], people: People, nodes: int = 4) -> list[dict[str, float]]:
    """Hit rates of `nodes` servers by the share of people whose adapters have room, with a person always on the same
    server and with turns going anywhere."""
    rows = []
    anywhere = np.random.default_rng(1).integers(nodes, size=len(who))
    for share in (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1):
        slots = round(people.count * share / nodes)
        same, any_one = (
            float(np.mean([hit_rate(who[at == node].tolist(), slots) for node in range(nodes)]))
            for at in (who % nodes, anywhere)
        )
        rows.append({"share": share, "same_server": same, "any_server": any_one})
    return rows


def due_times(when: NDArray[np.float64], who: NDArray[np.int64], people: People, every: int) -> NDArray[np.float64]:
    """When somebody's labels since the last update reach `every`, in order; people come in with some already."""
    random = np.random.default_rng(2)
    labels = random.integers(every, size=people.count)
    found = []
    for second, person, labelled in zip(when, who, random.random(len(who)) < people.labels_a_turn, strict=True):
        if labelled:
            labels[person] += 1
            if labels[person] == every:
                labels[person] = 0
                found.append(float(second))
    return np.array(found)


def waiting(
    due: NDArray[np.float64], when: NDArray[np.float64], turn: float, update: float, devices: float, days: int
) -> dict[str, float]:
    """How long updates wait, first come first served, for what chat leaves of so many devices: hours, a fluid model in
    steps of ten minutes. Chat comes first."""
    step = 600.0
    edges = np.arange(0.0, days * DAY + step, step)
    chat = np.histogram(when, edges)[0] * turn
    room = np.maximum(devices * step - chat, 0.0)
    arrived = np.cumsum(np.histogram(due, edges)[0] * update)
    served, done = np.zeros(len(room)), 0.0
    for at in range(len(room)):
        done = min(float(arrived[at]), done + float(room[at]))
        served[at] = done
    position = (np.arange(len(due)) + 1) * update
    finished = np.searchsorted(served, position - 1e-9)
    late = finished >= len(room)
    waits = np.where(late, np.inf, (edges[np.minimum(finished, len(room) - 1)] + step - due) / 3600)
    waits = waits[due > DAY]  # the first day fills the line
    return {
        "busy_at_peak": float(chat.max() / (devices * step)),
        "busy_on_average": float(chat.mean() / (devices * step)),
        "updates_a_day": len(due) / days,
        "median_hours": float(np.median(waits)),
        "worst_hours_of_95": float(np.quantile(waits, 0.95)),
        "never_in_time": float(late.mean()),
    }


def bytes_kept() -> dict[str, float]:
    """What a turn and a head take on disk, in the real store."""
    conversations, messages = 50, 2000
    with tempfile.TemporaryDirectory(prefix="mynah-scale-") as folder:
        path = Path(folder) / "mynah.db"
        store = Store(path)
        user = store.people.add("somebody", "somebody", "")
        store.database.checkpoint()
        empty = path.stat().st_size
        fill(store, user.id, conversations, messages)
        store.database.checkpoint()
        turn = (path.stat().st_size - empty) / (messages / 2)
        store.close()
    size = len(load_population(20).names)
    return {"turn": turn, "head": 8.0 * (size * size + size + 2)}


def measure(people: People, device: Accelerator) -> dict[str, Any]:
    """Every table."""
    config, kept = UpdateConfig(), bytes_kept()
    when, who = turns(people, np.random.default_rng(0))
    due = due_times(when, who, people, every=20)
    sizes = list[dict[str, Any]]()
    for shape in (EMBEDDED, EIGHT_BILLION):
        turn, update = turn_seconds(shape, device), update_seconds(shape, device, config)
        sizes.append(
            {"base": shape.name, "adapter_mb": shape.adapter_bytes(config.adapter) / 2**20, "turn_seconds": turn,
             "update_seconds": update}
        )  # fmt: skip
    turn, update = sizes[-1]["turn_seconds"], sizes[-1]["update_seconds"]
    peak = np.histogram(when, np.arange(0.0, people.days * DAY + 600, 600))[0].max() * turn / 600
    plans = []
    for spare in (1.1, 1.25, 1.5, 2.0):
        line = waiting(due, when, turn, update, float(peak) * spare, people.days)
        plans.append({"devices_a_million": float(peak) * spare * MILLION / people.count, **line})
    return {
        "people": asdict(people),
        "device": asdict(device),
        "sizes": sizes,
        "cache": cache_table(who, people),
        "plans": plans,
        "kept_bytes": kept,
        "turns_a_day": len(who) / people.days / people.count,
        "busiest_tenth": _share_of_busiest(who, people),
        "commit": commit(),
    }


def _share_of_busiest(who: NDArray[np.int64], people: People) -> float:
    counts = np.sort(np.bincount(who, minlength=people.count))
    return float(counts[-people.count // 10 :].sum() / counts.sum())


def main() -> None:
    """Simulate, keep, print."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    found = measure(People(), Accelerator())
    write_json(RESULTS / "scale.json", found)
    print(columns(["base", "adapter (MB)", "a re-ranked turn (s of the device)", "an update (s)"], [
        [each["base"], f"{each['adapter_mb']:.1f}", f"{each['turn_seconds']:.3f}", f"{each['update_seconds']:.1f}"]
        for each in found["sizes"]
    ]))  # fmt: skip
    print(columns(["adapters kept, of all people's", "hits, a person's own server", "hits, any server"], [
        [f"{each['share']:.2%}", f"{each['same_server']:.1%}", f"{each['any_server']:.1%}"] for each in found["cache"]
    ]))  # fmt: skip
    print(columns(["devices for a million", "busy at peak", "on average", "updates wait, median (h)", "95% (h)"], [
        [math.ceil(each["devices_a_million"]), f"{each['busy_at_peak']:.0%}", f"{each['busy_on_average']:.0%}",
         f"{each['median_hours']:.1f}", f"{each['worst_hours_of_95']:.1f}"]
        for each in found["plans"]
    ]))  # fmt: skip
    kept = found["kept_bytes"]
    print(f"a turn on disk {kept['turn'] / 1024:.1f} kB, a head {kept['head'] / 1024:.0f} kB")


if __name__ == "__main__":
    main()
