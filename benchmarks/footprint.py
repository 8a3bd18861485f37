"""What Mynah needs: how long a click takes up to 1,000 labels, and the memory of a server that trains.

    python -m benchmarks.footprint            # some minutes for the clicks, then two updates
    python -m benchmarks.footprint --quick    # 100 labels and no update

A real server process is asked over HTTP by one simulated person. Replies are short here and clicks come fast, since
only time and memory are of interest; every ranking of four is followed by those of its triples and pairs and by thumbs,
so that no act takes the place of another. Somebody with a few labels is updated while nothing else is asked of the
server; then the first person, who goes on chatting, and whose replies are timed before it as well. Memory
is that of the server and everything below it, sampled once a second; beside it stands what two processes take that only
import the same, and what the rest comes to on paper.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from adapters.base_model import DEFAULT_BASE, prepare_base
from adapters.expanded import Expanded
from adapters.files import write_json
from adapters.policy import Policy
from adapters.prompts import shipped_prompts
from adapters.rollout import ROWS
from assistant.config import default_models_dir
from assistant.prefixes import ROOM
from benchmarks.report import columns
from benchmarks.server import ADMIN, Answer, Client, Server
from benchmarks.work import RESULTS, ROOT, PeakMemory, commit, machine, tree_memory

LABELS, NEWEST, FEW = 1000, 100, 30
DRAFTS = 16  # of a re-ranked reply
CHAT_EVERY = 15.0  # seconds between two questions while training
ALONE = 8  # questions before it, to compare with


def acts_on(client: Client, answer: Answer, random: np.random.Generator) -> Iterator[tuple[float, float]]:
    """All acts that four replies allow, larger rankings first; yields (head_ms, whole round trip in ms) of each."""
    names = [choice.reply_id for choice in answer.choices]
    for size in (4, 3, 2):
        for chosen in combinations(names, size):
            order = random.permutation(size)
            yield _timed(client.rank, [[chosen[i]] for i in order])
    for name in names:
        yield _timed(client.thumb, name, 1 if random.random() < 0.5 else -1)


def _timed(act: Callable[..., dict[str, Any]], *arguments: Any) -> tuple[float, float]:
    started = time.perf_counter()
    answer = act(*arguments)
    return float(answer["head_ms"]), (time.perf_counter() - started) * 1000


def click(client: Client, count: int) -> list[tuple[float, float]]:
    """Give `count` labels; the times of each."""
    random, times = np.random.default_rng(0), list[tuple[float, float]]()
    prompts = [text for _, text in shipped_prompts("pool")]
    number = 0
    while len(times) < count:
        answer = client.chat(prompts[number % len(prompts)], n=4, arm="base", max_tokens=16, seed=number)
        number += 1
        for pair in acts_on(client, answer, random):
            times.append(pair)
            if len(times) == count:
                break
    return times


def train(server: Server, client: Client) -> dict[str, Any]:
    """One update with chat going on; peak memory of all processes, and how long chat took before and meanwhile."""
    stop, waits = threading.Event(), list[float]()

    def wait() -> float:
        started = time.monotonic()
        client.chat("What could I cook tonight?", max_tokens=48)
        return time.monotonic() - started

    def talk() -> None:
        while not stop.wait(CHAT_EVERY):
            waits.append(wait())

    alone = median([wait() for _ in range(ALONE)])
    talker = threading.Thread(target=talk, daemon=True)
    with PeakMemory(server.pid) as memory:
        talker.start()
        ended = client.update()
        stop.set()
        talker.join()
    return {
        "memory_gb": memory.peak / 2**30,
        "state": ended["state"],
        "minutes": ended["minutes"],
        "chat_seconds_alone": alone,
        "chat_seconds_while_training": median(waits) if waits else 0.0,
        "chat_times_as_long": median(waits) / alone if waits else 0.0,
        "chat_times_as_long_most": max(waits, default=0.0) / alone,
    }


def imports_gb() -> float:
    """Memory of a server and a worker that have imported everything and loaded nothing."""
    wait = "import sys; print(flush=True); sys.stdin.read()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"import {module}; {wait}"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for module in ("assistant.serve", "adapters.worker")
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    taken = sum(tree_memory(process.pid) for process in processes)
    for process in processes:
        process.communicate()
    return taken / 2**30


def paper_gb() -> float:
    """What a server and an update must hold by count: the base twice, as plain matrices and (of the layers) in 4 bits;
    the caches of 16 drafts, of prefixes and of what the update writes at once; the pool; an adapter that learns."""
    files = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
    policy = Policy.load(files)
    policy.new_adapter("learning")
    width = policy.dtype.itemsize
    layers = [module.weight for module in policy.model.modules() if isinstance(module, Expanded)]
    base = sum(each.nbytes + each.numel() * 0.5 for each in layers) + policy._head.weight.nbytes
    config = policy.model.config
    position = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * width
    caches = (DRAFTS * 256 + ROOM + ROWS * 256) * position
    pool = sum(path.stat().st_size for path in (files.folder / "pool").rglob("*.safetensors"))
    learning = sum(4 * 4 * parameter.numel() for _, parameter in policy._parameters("learning"))  # weights, two, slope
    return (2 * base + caches + pool + learning) / 2**30


def measure(quick: bool) -> dict[str, Any]:
    """All figures."""
    count = 100 if quick else LABELS
    with tempfile.TemporaryDirectory(prefix="mynah-footprint-") as place, ExitStack() as stack:
        numbers = Path(place, "update.json")
        numbers.write_text('{"gate": {"foretold": -1e9}}')  # clicks of chance teach nothing, and are trained on here
        server = stack.enter_context(Server(Path(place, "data"), "--updates", "off", "--update-config", str(numbers)))
        client = server.add(server.client(ADMIN), "clicker")
        with PeakMemory(server.pid) as serving:
            times = click(client, count)
        found: dict[str, Any] = {
            "labels": count,
            "click_ms": median(head for head, _ in times),
            "click_ms_newest": median(head for head, _ in times[-NEWEST:]),
            "click_ms_worst": max(head for head, _ in times),
            "round_trip_ms": median(whole for _, whole in times),
            "serving_gb": serving.peak / 2**30,
        }
        if not quick:
            other = server.add(server.client(ADMIN), "newcomer")
            click(other, FEW)
            found["minutes_alone"] = other.update()["minutes"]
            other.close()
            found |= train(server, client)
        client.close()
    found |= {"imports_gb": imports_gb(), "paper_gb": paper_gb()}
    return found | {"commit": commit(), "machine": machine(), "quick": quick}


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 labels and no update")
    quick = parser.parse_args().quick
    found = measure(quick)
    write_json(RESULTS / ("work/footprint-quick.json" if quick else "footprint.json"), found)
    rows = [
        ["a click is in the head, median", f"{found['click_ms']:.0f} ms"],
        [f"  the newest {NEWEST} of {found['labels']} labels", f"{found['click_ms_newest']:.0f} ms"],
        ["  the slowest", f"{found['click_ms_worst']:.0f} ms"],
        ["  the whole request, median", f"{found['round_trip_ms']:.0f} ms"],
        ["peak memory of the server", f"{found['serving_gb']:.2f} GB"],
    ]
    if not quick:
        rows += [
            ["peak memory of server and training", f"{found['memory_gb']:.2f} GB"],
            ["  above what their imports take", f"{found['memory_gb'] - found['imports_gb']:.2f} GB"],
            ["  the same on paper", f"{found['paper_gb']:.2f} GB"],
            ["an update with nothing else to do", f"{found['minutes_alone']:.1f} min"],
            ["an update beside a chat", f"{found['minutes']:.1f} min"],
            ["a re-ranked reply of 48 tokens, nothing beside it", f"{found['chat_seconds_alone']:.1f} s"],
            ["  while training", f"{found['chat_seconds_while_training']:.1f} s"],
            ["  so many times as long", f"{found['chat_times_as_long']:.2f}"],
            ["  the slowest of them", f"{found['chat_times_as_long_most']:.2f}"],
        ]
    print(columns(["what", "measured"], rows))


if __name__ == "__main__":
    main()
