"""A day of use, compressed: what a server's memory grows by; and how soon it is back after it was killed.

    python -m benchmarks.endurance            # 24 hours of sixteen people, KILLS deaths: an hour, idle
    python -m benchmarks.endurance day        # the hours alone
    python -m benchmarks.endurance deaths     # the deaths alone
    python -m benchmarks.endurance --quick    # three hours of four people, one death

A death is a kill -9 in the middle of an update, whose worker is still there when the next server starts; it counts from
the start of that to its first token, against a start after an orderly end, in turn.

What is compressed is waiting, writing and training: people act without a pause, four at a time, replies end after
TOKENS tokens, an update draws a few drafts (UPDATE) and its gate lets it pass. Everything else is whole: a real server
process, asked over HTTP and by its pages. In an hour each person asks twice for two replies (every fifth time they are
the best of 16 drafts by their head), every other one clicks, which fits their head anew, and every fourth signs in
anew, searches twice and opens the pages, as a new browser would. Every third hour one of them is trained, and served by
the new version from then on; and at the end of each there are ten seconds in which nobody wants anything.

Before that, in WARM hours, everybody does BUSY times as much, signs in every time and is trained once. They fill what a
server keeps for good reasons, and only up to a bound: sixteen adapters (assistant/shelf.py), what 200 pages show
(assistant/ui/app.py), how chats begin (assistant/prefixes.py, 96 MB). What that comes to is told by itself. Then the
memory at the end of every hour is compared: growth is the median of the last three against that of the first three.
Nothing else may come or go meanwhile: the server writes with as many threads as others leave it, and each has its own
memory. With OMP_NUM_THREADS=1 it has one, whatever else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil
import torch

from adapters.files import read_json, write_json
from adapters.prompts import shipped_prompts
from assistant.engine import REST_SECONDS
from benchmarks.report import columns
from benchmarks.server import ADMIN, Client, Server
from benchmarks.server_speed import recovery
from benchmarks.work import RESULTS, commit, machine

PEOPLE, HOURS, WARM, BUSY, TRAINED = 16, 24, 4, 4, 3  # TRAINED: hours from one update to the next
OFTEN = 0.25  # of the hours in which somebody signs in
AT_ONCE = 4
TOKENS = 4
UPDATE = {
    "pool": {"prompts": 4, "replies": 4, "max_tokens": 8, "chunk": 2},
    "ppo": {"batches": 2, "prompts": 2, "replies": 2, "max_tokens": 8, "epochs": 1, "minibatches": 1},
    "gate": {
        "measured": {
            "prompts": 2, "replies": 2, "provoking": 2, "provoking_replies": 1, "limits": 2, "limits_replies": 1,
            "questions": 4, "max_tokens": 8,
        },
        "learned": 0.0, "foretold": -1e9, "sure": 0.0,
        "kl_most": 100.0, "kl_at_30": 100.0, "shortest": 0.0, "longest": 100.0,
        "bad_endings": 1.0, "off_subject": 1.0, "coined": 1.0, "least_variety": 0.0, "most_variety": 100.0,
        "alpha": 1e-12,
    },
    "own_replies": 2,
    "own_prompts": 2,
}  # fmt: skip
KILLS = 5
ENDS = 3  # hours at either end that are compared


@dataclass
class Somebody:
    """A person with a program and, now and then, a browser."""

    client: Client
    password: str
    random: np.random.Generator

    def hour(self, server: Server, number: int, often: float = OFTEN) -> Counter[str]:
        """What they do within an hour; how much of each. often: the chance that they sign in."""
        done: Counter[str] = Counter()
        prompts = [text for _, text in shipped_prompts("pool")]
        for turn in range(2):
            arm = "rerank" if (2 * number + turn) % 5 == 0 else "auto"
            text = prompts[int(self.random.integers(len(prompts)))]
            answer = self.client.chat(text, n=2, arm=arm, max_tokens=TOKENS, seed=int(self.random.integers(2**31)))
            done["replies"] += len(answer.choices)
        if self.random.random() < 0.5:
            first, second = (answer.choices[place] for place in self.random.permutation(2))
            self.client.rank([[first.reply_id], [second.reply_id]])
            done["clicks"] += 1
        if self.random.random() < often:
            with httpx.Client(base_url=server.address, headers={"Origin": server.address}, timeout=120) as browser:
                self.sign_in(browser)
                done["searches"] += self.search(browser)
                done["pages"] += self.look(browser)
            done["sign-ins"] += 1
        return done

    def sign_in(self, browser: httpx.Client) -> None:
        """With the form."""
        typed = {"name": self.client.name, "password": self.password}
        assert browser.post("/sign-in", data=typed).status_code == 303

    def search(self, browser: httpx.Client) -> int:
        """Two searches."""
        for word in ("water", "a book"):
            assert browser.get("/search", params={"q": word}).status_code == 200
        return 2

    def look(self, browser: httpx.Client) -> int:
        """Open every page, as a browser does: the document, its configuration, and the events of its load."""
        pages = ("/", "/my-assistant")
        for page in pages:
            html = browser.get(page).text
            found = re.search(r"window\.gradio_config = (\{.*?\});</script>", html, re.DOTALL)
            assert found is not None, "the page holds no configuration"
            session = secrets.token_hex(6)
            for event in json.loads(found[1])["dependencies"]:
                if event["backend_fn"] and not event["inputs"] and any(kind == "load" for _, kind in event["targets"]):
                    call = {"fn_index": event["id"], "data": [], "session_hash": session, "event_data": None}
                    answer = browser.post("/gradio_api/run/predict", json=call)
                    assert answer.status_code == 200, answer.text
        return len(pages)


def add(server: Server, admin: Client, number: int) -> Somebody:
    """A new person, with labels enough for an update."""
    name, password = f"person-{number}", os.urandom(12).hex()
    admin.post("/v1/admin/users", {"name": name, "password": password})
    client = server.client(name)
    pairs = [
        {
            "messages": [{"role": "user", "content": text}],
            "replies": ["You and I will find out!", f"That is number {place}."],
            "ranking": [[number % 2], [1 - number % 2]],
        }
        for place, (_, text) in enumerate(shipped_prompts("pool")[:10])
    ]
    client.post("/v1/me/preferences", pairs)
    return Somebody(client, password, np.random.default_rng(number))


def growth(memory: Sequence[float], warm: int) -> float:
    """The share by which memory (one figure an hour) has grown after the first `warm` hours."""
    counted = memory[warm:]
    ends = min(ENDS, max(1, len(counted) // 2))
    return median(counted[-ends:]) / median(counted[:ends]) - 1


def measure(people: int, hours: int, warm: int) -> dict[str, Any]:
    """Live through the hours; the figures."""
    done, memory, started = Counter[str](), list[float](), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="mynah-endurance-") as folder,
        Server(Path(folder) / "data", *_options(Path(folder))) as server,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        admin = server.client(ADMIN)
        everybody = [add(server, admin, number) for number in range(people)]
        for hour in range(warm + hours):
            counted = hour - warm
            often = OFTEN if counted >= 0 else 1.0
            for _ in range(1 if counted >= 0 else BUSY):
                for each in pool.map(partial(Somebody.hour, server=server, number=hour, often=often), everybody):
                    done += each
            trained = everybody[hour * people // warm : (hour + 1) * people // warm]
            if counted >= 0:
                trained = [] if counted % TRAINED else [everybody[counted // TRAINED % people]]
            for person in trained:
                state = person.client.update()["state"]
                assert state == "promoted", state
                done["updates"] += 1
            time.sleep(2 * REST_SECONDS)  # at the end of an hour everybody rests
            memory.append(resident(server.pid) / 2**20)
            print(f"hour {hour + 1 - warm:3}: {memory[-1]:.1f} MB", flush=True)
        for client in (admin, *(person.client for person in everybody)):
            client.close()
    return {
        "people": people,
        "hours": hours,
        "warm_hours": warm,
        "done": dict(done),
        "seconds": time.monotonic() - started,
        "memory_mb": memory,
        "growth": growth(memory, warm),
    }


def resident(pid: int) -> int:
    """Bytes of memory that a process and those below it hold, pages that others map too counted whole: by shares, a
    server would seem to grow when another program that uses the same libraries ends."""
    root = psutil.Process(pid)
    return int(sum(process.memory_info().rss for process in (root, *root.children(recursive=True))))


def deaths(count: int) -> dict[str, list[float]]:
    """Seconds to a first token after each kill, and after each orderly end."""
    with recovery() as (killed, orderly):
        pairs = [(killed(), orderly()) for _ in range(count)]
    return {"killed": [killed for killed, _ in pairs], "orderly": [orderly for _, orderly in pairs]}


def _options(folder: Path) -> list[str]:
    """Small updates, only when asked for, and no limits of an hour that lasts a minute."""
    write_json(folder / "update.json", UPDATE)
    (folder / "data").mkdir()
    given = ("updates", "off"), ("update-config", str(folder / "update.json")), ("requests-per-minute", "100000")
    return [word for name, value in given for word in (f"--{name}", value)]


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.1f} s ({min(seconds):.1f}–{max(seconds):.1f})"


def report(found: dict[str, Any]) -> str:
    """What was measured of a day and of deaths, each if it was."""
    rows = []
    if day := found.get("day"):
        memory = day["memory_mb"]
        rows += [
            ["done", ", ".join(f"{count} {what}" for what, count in day["done"].items())],
            ["memory after the first hour", f"{memory[0]:.0f} MB"],
            ["memory after the warm-up", f"{memory[day['warm_hours']]:.0f} MB"],
            ["memory at the end", f"{memory[-1]:.0f} MB"],
            ["growth", f"{day['growth']:+.1%}"],
        ]
    if first_token := found.get("deaths"):
        rows += [[f"to a first token, {how}", _spread(first_token[how])] for how in ("killed", "orderly")]
    return columns(["what", "measured"], rows)


def main() -> None:
    """Measure, keep each part with what it was measured on, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("day", "deaths"), help="both, where none is named")
    parser.add_argument("--quick", action="store_true", help="three hours of four people, one death")
    given = parser.parse_args()
    path = RESULTS / ("work/endurance-quick.json" if given.quick else "endurance.json")
    kept: dict[str, Any] = read_json(path) if path.exists() else {}
    about = {"commit": commit(), "machine": machine(), "threads": torch.get_num_threads()}
    found: dict[str, Any] = {}
    if given.part != "day":
        found["deaths"] = about | deaths(1 if given.quick else KILLS)
        write_json(path, kept := kept | found)
    if given.part != "deaths":
        found["day"] = about | (measure(4, 3, 1) if given.quick else measure(PEOPLE, HOURS, WARM))
        write_json(path, kept | found)
    print(report(found))


if __name__ == "__main__":
    main()
