"""What the gate lets through when clicks are wrong: it is replayed on the candidates that `personalize` trained.

    python -m benchmarks.personalize     # first: the candidates
    python -m benchmarks.promotions      # some minutes

Every person is the judge of every candidate, their own and those of the others, so that many are bad: by the hidden
taste they win no more than half of the duels with the base on the report prompts. For each pair the person clicks
through 30 prompts, by some other seed than the candidate learned from, and so many of their acts say the opposite;
from these come the heads that the gate asks, and from the candidate's replies to the gate prompts its verdict.
What the gate checks whatever the taste, it has found already; candidates that nobody lets in are kept out of the rates.

Left out on purpose: what candidates would be like that learned from such clicks (re-ranking by them is in
benchmarks/rough_clicks.py). Table on the terminal, JSON in benchmarks/results/promotions.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from adapters.files import read_json, write_json
from adapters.gate import Comparison, draw_sample, taste_checks
from adapters.gate_set import GateFiles, GateSet
from adapters.job import UpdateConfig
from adapters.reward import RewardModel
from adapters.safety import SafetyTerm
from benchmarks.clicks import head_of, heads_of
from benchmarks.judging import Interval, interval, wins_by_prompt
from benchmarks.personalize import Bench, Settings, quick_settings
from benchmarks.report import columns
from benchmarks.work import RESULTS, commit, machine
from feedback.foretelling import Split
from feedback.types import Preference

FLIPPED = (0.0, 0.1, 0.3)
SEEDS = range(10, 15)  # of the clicks; candidates learned from seed 0
OF_TASTE = ("learned", "foretold", "preference")  # the checks that depend on the person
REPLIES = 4  # of a candidate to a report prompt


@dataclass(frozen=True)
class Verdict:
    """One candidate before one person. wins: its true win rate over the base; flipped: share of wrong acts."""

    candidate: str
    person: str
    wins: float
    flipped: float
    seed: int
    passed: bool

    @property
    def bad(self) -> bool:
        return self.wins <= 0.5


class Replay(Bench):
    """The same run, with the gate's own measures of its candidates."""

    def base_side(self) -> GateSet:
        """What the base says at the gate."""
        files = GateFiles(self.files, self.base.policy.split, self.config.gate.measured)
        files.build(self.base.policy)
        return files.load()

    def verdicts(
        self, candidate: str, gate_set: GateSet, heads: Mapping[tuple[str, float, int], Split]
    ) -> list[Verdict]:
        """One candidate before everybody. heads: by person, share of wrong acts and seed."""
        checks = read_json(self.job(candidate) / "gate.json")
        others = passes_for_anybody(checks)
        replies = self.written_by(self.job(candidate) / "result", REPLIES).drafts
        pair = self.at_the_gate(candidate, gate_set)
        true = {
            name: fmean(wins_by_prompt(self.judged(replies, person), self.opponents(person)))
            for name in self.settings.trained
            for person in [self.person(name, 0)]
        }
        return [
            Verdict(candidate, name, true[name], flipped, seed, others and self.passes(pair, known))
            for (name, flipped, seed), known in heads.items()
        ]

    def at_the_gate(self, candidate: str, gate_set: GateSet) -> Comparison:
        """The candidate's replies to the gate prompts beside the base's."""
        policy, config = self.base.policy, self.config
        policy.load_adapter("candidate", self.job(candidate) / "result")
        try:
            sample = draw_sample(
                policy, "candidate", gate_set.prompts, config.gate.measured.replies, config.gate.measured, seed=3
            )
        finally:
            policy.drop_adapter("candidate")
        anybody = head_of([], self.population)
        model = RewardModel(
            anybody, self.population, self.base.latents, policy.renderer, SafetyTerm.load("judge"), config.reward
        )
        return Comparison(model, gate_set.prompts, sample.groups)

    def passes(self, pair: Comparison, heads: Split) -> bool:
        """Whether the checks that depend on the person do."""
        return all(check.passed for check in taste_checks(pair, heads, self.config.gate, seed=3))

    def heads(self) -> dict[tuple[str, float, int], Split]:
        """The heads of everybody's clicks, more and more of them wrong."""
        found = {}
        for name in self.settings.trained:
            for seed in SEEDS:
                _, labels = self.clicks(name, seed, self.settings.many)
                for share in FLIPPED:
                    wrong = np.random.default_rng([seed, 3, *name.encode()])
                    clicks = [opposite(each) if wrong.random() < share else each for each in labels]
                    found[name, share, seed] = heads_of(clicks, self.population)
        return found


def passes_for_anybody(checks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether those checks of a kept verdict of the gate passed that ask nothing of the person."""
    return all(check["passed"] for check in checks if check["check"] not in OF_TASTE)


def opposite(preference: Preference) -> Preference:
    """The contrary act on the same replies."""
    return replace(preference, tiers=preference.tiers[::-1], thumb=-preference.thumb)


def promoted(verdicts: Sequence[Verdict], flipped: float, *, bad: bool) -> Interval | None:
    """Share of the bad (or good) candidates that pass, with its interval over people; None where nobody has any."""
    rates = []
    for person in dict.fromkeys(each.person for each in verdicts):
        mine = [v.passed for v in verdicts if v.person == person and v.flipped == flipped and v.bad == bad]
        if mine:
            rates.append(fmean(mine))
    return interval(rates) if rates else None


def may_pass(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts on candidates that anybody lets in: what fails whoever judges would only thin out the rates."""
    candidates = {each.candidate for each in verdicts if each.passed}
    return [each for each in verdicts if each.candidate in candidates]


def report(everything: Sequence[Verdict]) -> str:
    """The table."""
    verdicts, rows = may_pass(everything), []
    for share in sorted({each.flipped for each in verdicts}):
        let_in = [each for each in verdicts if each.flipped == share and each.passed]
        rows.append([
            f"{share:.0%}",
            str(promoted(verdicts, share, bad=True)),
            str(promoted(verdicts, share, bad=False)),
            f"{sum(each.bad for each in let_in)} of {len(let_in)}",
        ])  # fmt: skip
    pairs = {(each.candidate, each.person): each.bad for each in verdicts}
    head = ["wrong acts", "bad ones let in", "good ones let in", "bad among those let in"]
    left_out = len({each.candidate for each in everything}) - len({each.candidate for each in verdicts})
    return (
        f"{len(pairs)} pairs of candidate and person, {sum(pairs.values())} of them bad "
        f"({left_out} candidates that nobody lets in are left out)\n{columns(head, rows)}"
    )


def main() -> None:
    """Replay, keep, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the candidates of `personalize --quick`")
    quick = parser.parse_args().quick
    bench = Replay(*(quick_settings() if quick else (Settings(), UpdateConfig())))
    trained = [name for name in bench.settings.trained if (bench.job(name) / "gate.json").exists()]
    if not trained:
        parser.error("There are no candidates yet: run python -m benchmarks.personalize first.")
    heads, gate_set = bench.heads(), bench.base_side()
    verdicts = [verdict for name in trained for verdict in bench.verdicts(name, gate_set, heads)]
    print(report(verdicts))
    about = {"commit": commit(), "machine": machine(), "candidates": trained, "seeds": list(SEEDS)}
    path = RESULTS / ("work/promotions-quick.json" if quick else "promotions.json")
    write_json(path, about | {"verdicts": [asdict(each) for each in verdicts]})


if __name__ == "__main__":
    main()
