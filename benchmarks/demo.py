"""`make demo`: all of Mynah without a browser, for simulated people, and a true report of it.

    python -m benchmarks.demo            # about a quarter of an hour on two idle cores
    python -m benchmarks.demo --quick    # one person, few labels, a small update

A real server on an empty data folder; every step over HTTP or the command line. Each person chats and clicks until the
next reply changes, goes on to the labels an update takes, starts it, follows it through the gate, chats with the new
version, is measured on a few unseen prompts and rolls back; an admin downloads the adapter, and plain PEFT loads it.
What was not reached is printed as such. The figures are of few prompts: `personalize` measures, this shows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.base_model import DEFAULT_BASE, prepare_base
from adapters.files import write_json
from adapters.prompts import shipped_prompts
from assistant.config import default_models_dir
from benchmarks.base_replies import Draw, base_replies, texts_of
from benchmarks.clicks import SHOWN, TURNS
from benchmarks.demo_report import Judge, Plan, Story, check_export, report, unseen, wins_of
from benchmarks.people import REPORT, Person, make_person
from benchmarks.report import text_report, write_report
from benchmarks.server import ADMIN, Client, Server
from benchmarks.work import RESULTS, PeakMemory
from feedback.errors import MynahError

PROBE = "How can I sleep better?"
FIRST_CLICKS = 4  # the reply to the probe is looked at after each of them, until it has changed
QUICK = Plan(
    people=("friendly_coach",),
    labels=12,
    prompts=5,
    update={"pool": {"prompts": 48}, "ppo": {"batches": 1}},
)


def live(server: Server, admin: Client, person: Person, plan: Plan) -> Story:
    """One person's way through, from the first chat to the rollback."""
    story = Story(person.name)
    print(f"\n{person.name}", flush=True)
    client = server.add(admin, person.name)
    questions = [text for _, text in shipped_prompts("pool")]
    try:
        click_until_changed(client, person, questions[:FIRST_CLICKS], story)
        for number in range(FIRST_CLICKS, plan.labels):
            act(client, person, questions[number], number)
        tell_learned(client, story)
        story.before = [client.chat(text, n=2, arm="base", seed=1) for text in unseen(plan)]
        update(client, story)
        answer_unseen(client, story, plan)
        if story.promoted:
            roll_back(client, story)
            story.archive = admin.download(f"/v1/admin/users/{person.name}/versions/{story.version}/export?format=peft")
    except MynahError as error:
        story.tell("the way through", False, f"stopped: {error}")
    finally:
        client.close()
    return story


def act(client: Client, person: Person, question: str, number: int) -> int:
    """Ask, read, click: one label. Returns the labels so far."""
    kind = TURNS[number % len(TURNS)]
    choices = client.chat(question, n=SHOWN[kind]).choices
    if kind == "thumb":
        return int(client.thumb(choices[0].reply_id, person.thumb(choices[0].text))["labels"])
    tiers = person.rank([choice.text for choice in choices])
    return int(client.rank([[choices[place].reply_id for place in tier] for tier in tiers])["labels"])


def click_until_changed(client: Client, person: Person, questions: Sequence[str], story: Story) -> None:
    """The same question with the same seed after every click: when does the head choose otherwise?"""
    first = client.chat(PROBE, arm="rerank", seed=7).choices[0].text
    changed = 0
    for number, question in enumerate(questions):
        act(client, person, question, number)
        if not changed and client.chat(PROBE, arm="rerank", seed=7).choices[0].text != first:
            changed = number + 1
    words = f"after {changed} label(s)" if changed else f"not within {len(questions)} labels"
    story.tell("the next reply changed", bool(changed), words)


def tell_learned(client: Client, story: Story) -> None:
    """What the person's page would say."""
    me, traits = client.get("/v1/me"), client.get("/v1/me/profile")["traits"]
    known = [trait["words"] for trait in traits if trait["words"].startswith(("clearly", "leaning"))]
    story.tell(
        "something was learned", bool(known), f"{me['labels']} labels: {', '.join(known[:3]) or 'nothing clear'}"
    )


def update(client: Client, story: Story) -> None:
    """Start an update, follow it to the gate's verdict."""
    last = [""]

    def watch(seen: dict[str, Any]) -> None:
        stage = f"{seen['state']} {seen['metrics'].get('stage', '')}".strip()
        if stage != last[0]:
            last[0] = stage
            print(f"    {stage}, {seen['progress']:.0%}", flush=True)

    ended = client.update(watch)
    story.update = {
        "state": ended["state"],
        "minutes": ended["minutes"],
        "gate": ended["gate"],
        "steps": ended["metrics"].get("steps", []),
        "version": ended["version"],
    }
    why = [check["words"] for check in ended["gate"] if not check["passed"]] or [ended["reason"]]
    words = "; ".join([f"{ended['state']} after {ended['minutes']:.1f} minutes", *filter(None, why)])
    story.tell("the update passed the gate", story.promoted, words)


def answer_unseen(client: Client, story: Story, plan: Plan) -> None:
    """What every arm answers to the unseen prompts."""
    arms = ["context", "rerank"]
    if story.promoted:
        arms += ["adapter", "adapter+rerank"]
        said = client.chat(PROBE)
        story.tell("chat uses the new version", said.version == story.version, f"{said.arm}, {said.version}")
    for arm in arms:
        story.after[arm] = [client.chat(text, arm=arm, seed=2) for text in unseen(plan)]
    story.served = client.get("/v1/me")["served_arm"]


def roll_back(client: Client, story: Story) -> None:
    """Back to the base, and a reply to prove it."""
    client.post("/v1/me/versions/base/activate")
    listed, said = client.get("/v1/me/versions"), client.chat(PROBE)
    passed = listed["active"] == "base" and said.version is None
    story.tell(
        "rolled back to the base", passed, f"{story.version} is {listed['versions'][-1]['status']}; now {said.arm}"
    )


def people_of(plan: Plan) -> list[Person]:
    """The simulated people, their noise fitted to kept base replies."""
    samples = texts_of(base_replies(Draw("pool", 0, 12, 6)))
    return [make_person(name, REPORT[name], samples, seed=0) for name in plan.people]


def main() -> None:
    """Run it all, print the table, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one person, few labels, a small update")
    parser.add_argument("--out", type=Path, default=RESULTS / "work" / "demo.json", help="where the results go")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="mynah-demo-"))
    try:
        files = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
        people = people_of(plan)
        numbers = folder / "update.json"
        numbers.write_text(json.dumps(plan.update))
        options = ("--updates", "off", "--update-config", str(numbers))
        with Server(folder / "data", *options) as server, PeakMemory(server.pid) as memory:
            print(f"Mynah is at {server.address}, on an empty data folder", flush=True)
            admin = server.client(ADMIN)
            stories = [live(server, admin, person, plan) for person in people]
            admin.close()
        print("\nthe exports, without Mynah", flush=True)
        judge = Judge(files)
        wins = {}
        for person, story in zip(people, stories, strict=True):
            wins[story.name] = wins_of(judge, person, story, plan)
            print(f"  {person.name}", flush=True)
            check_export(files, person, story, folder, plan)
        results = report(plan, stories, wins, time.monotonic() - started, memory.peak / 2**30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(arguments.out, results)
    print(f"\n{text_report(results)}\n\nThe page is {write_report(results, arguments.out)}")


if __name__ == "__main__":
    main()
