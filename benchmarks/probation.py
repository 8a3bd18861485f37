"""How often a trial ends rightly, and after how many comparisons: the rule of assistant/probation.py, simulated.

    python -m benchmarks.probation             20,000 trials a rate; seconds
    python -m benchmarks.probation --quick     2,000

By duels: the version wins each with the same probability if it is no tie; one in five is a tie. By thumbs: shares of
liked replies before the trial and within it. Left out on purpose: people who change their mind on the way.
Table on the terminal, JSON in benchmarks/results/probation.json.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator as Random
from numpy.typing import NDArray

from adapters.files import write_json
from assistant.asking import EVERY
from assistant.probation import EVIDENCE, LOST_BY, MOST_DECIDED, MOST_SHOWN, Count, verdict
from benchmarks.work import RESULTS, commit
from feedback.sequential import evidence

RATES = (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.8)
TIES = 0.2
THUMBS = ((0.7, 0.3), (0.7, 0.5), (0.7, 0.6), (0.7, 0.7), (0.7, 0.8), (0.95, 0.95), (0.95, 0.8))
TRIALS, QUICK_TRIALS = 20_000, 2_000
OPEN, BACK, STAYS = 0, 1, 2


@dataclass(frozen=True)
class Outcome:
    """Shares of trials, and their mean length. early: by the evidence, before the end of the trial; shown: ties too."""

    taken_back: float
    taken_back_early: float
    stays: float
    stays_early: float
    decided: float
    shown: float


def by_duels(rate: float, ties: float, trials: int, random: Random) -> Outcome:
    """rate: at which the version wins what is no tie."""
    signs = np.where(random.random((trials, MOST_SHOWN)) < rate, 1, -1)
    return run(np.where(random.random(signs.shape) < ties, 0, signs))


def by_thumbs(before: float, after: float, trials: int, random: Random) -> Outcome:
    """Shares of liked replies before the trial and within it; there are enough thumbs on both sides."""
    shape = (trials, MOST_SHOWN)
    return run((random.random(shape) < after).astype(int) - (random.random(shape) < before).astype(int))


def run(signs: NDArray[np.int_]) -> Outcome:
    """Let every row of wins (1), losses (-1) and ties (0) run until the rule decides."""
    trials = len(signs)
    table, evidently = verdicts(), evident()
    ended, decided, shown = (np.zeros(trials, dtype=int) for _ in range(3))
    early = np.zeros(trials, dtype=bool)
    wins, losses = (np.cumsum(signs == sign, axis=1) for sign in (1, -1))
    for place in range(MOST_SHOWN):
        w, lost = np.minimum(wins[:, place], MOST_DECIDED), np.minimum(losses[:, place], MOST_DECIDED)
        now = table[int(place + 1 == MOST_SHOWN), w, lost]
        new = (ended == OPEN) & (now != OPEN)
        ended[new], decided[new], shown[new] = now[new], (w + lost)[new], place + 1
        early[new] = evidently[w[new], lost[new]]
    assert (ended != OPEN).all(), "every trial has an end"
    back, stays = ended == BACK, ended == STAYS
    shares = (back, back & early, stays, stays & early, decided, shown)
    return Outcome(*(float(np.mean(share)) for share in shares))


def verdicts() -> NDArray[np.int_]:
    """What the rule says, (not at the end of what is shown / at it, wins, losses)."""
    sides = range(MOST_DECIDED + 1)
    names = {None: OPEN, "rolled back": BACK, "confirmed": STAYS}

    def said(wins: int, losses: int, last: bool) -> int:
        return names[verdict(Count(wins, losses, max(MOST_SHOWN - wins - losses, 0) if last else 0))]

    return np.array([[[said(w, lost, last) for lost in sides] for w in sides] for last in (False, True)])


def evident() -> NDArray[np.bool_]:
    """Whether the evidence alone decides, (wins, losses)."""
    sides = range(MOST_DECIDED + 1)
    return np.array([[max(evidence(w, lost), evidence(lost, w)) >= EVIDENCE for lost in sides] for w in sides])


def measure(trials: int) -> dict[str, Any]:
    """All figures."""
    random = np.random.default_rng(0)
    return {
        "commit": commit(),
        "trials": trials,
        "rule": {"evidence": EVIDENCE, "decided": MOST_DECIDED, "shown": MOST_SHOWN, "lost_by": LOST_BY},
        "ties": TIES,
        "duels": [{"rate": rate, **asdict(by_duels(rate, TIES, trials, random))} for rate in RATES],
        "thumbs": [
            {"before": before, "after": after, **asdict(by_thumbs(before, after, trials, random))}
            for before, after in THUMBS
        ],
    }


def table_of(results: dict[str, Any]) -> str:
    """The figures as people read them."""
    head = "taken back (early)   stays (early)   decided   shown   turns at most one in five of which asks"
    lines = [f"{'wins':>12}   {head}"]
    for row in [*results["duels"], *results["thumbs"]]:
        name = f"{row['rate']:.2f}" if "rate" in row else f"{row['before']:.2f} → {row['after']:.2f}"
        lines.append(
            f"{name:>12}   {row['taken_back']:9.1%} ({row['taken_back_early']:5.1%})  {row['stays']:6.1%} "
            f"({row['stays_early']:5.1%})   {row['decided']:7.1f}  {row['shown']:6.1f}  "
            + (f"{EVERY * row['shown']:6.0f}" if "rate" in row else "   by thumbs")
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table, keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    parser.add_argument("--out", type=Path, default=RESULTS / "probation.json", help="where the results go")
    arguments = parser.parse_args()
    results = measure(QUICK_TRIALS if arguments.quick else TRIALS)
    write_json(arguments.out, results)
    print(table_of(results))


if __name__ == "__main__":
    main()
