"""Who was let in, told apart by who deserved it; and what a wrong click says."""

from __future__ import annotations

import pytest

from adapters.checks import Check, GateConfig, check_finite, check_kl, check_learned
from benchmarks.promotions import Verdict, opposite, passes_for_anybody, promoted, report
from feedback.types import Preference


def verdict(person: str, wins: float, passed: bool, candidate: str = "c", flipped: float = 0.3) -> Verdict:
    return Verdict(candidate, person, wins, flipped, 10, passed)


def test_bad_ones_are_counted_person_by_person() -> None:
    seen = [
        verdict("ada", 0.4, True),
        verdict("ada", 0.5, False),
        verdict("bo", 0.3, False),
        verdict("bo", 0.3, False, flipped=0.0),
        verdict("bo", 0.8, True),
    ]
    bad, good = promoted(seen, 0.3, bad=True), promoted(seen, 0.3, bad=False)
    assert bad and (bad.mean, bad.count) == (pytest.approx(0.25), 2)
    assert good and (good.mean, good.count) == (1.0, 1)
    assert promoted(seen, 0.0, bad=False) is None
    assert "1 of 2" in report(seen)
    nobodys = [*seen, verdict("ada", 0.4, False, "d"), verdict("bo", 0.3, False, "d")]
    assert report(nobodys) == report(seen).replace("(0 candidates", "(1 candidates")


def test_a_kept_verdict_is_read_without_what_asks_for_a_taste() -> None:
    def kept(*checks: Check) -> list[dict[str, object]]:
        return [check.as_dict() for check in checks]

    sound, close, far = check_finite(True), check_kl(0.05, 30, GateConfig()), check_kl(0.5, 30, GateConfig())
    unloved = check_learned(0.1, 24, GateConfig())
    assert not unloved.passed and passes_for_anybody(kept(sound, unloved, close))
    assert not passes_for_anybody(kept(sound, unloved, far))


def test_the_contrary_of_an_act() -> None:
    ranking = Preference("f", 1, "ranking", ((2,), (0, 1)), 0, 0.0, 3, b"", False, "v")
    assert opposite(ranking).tiers == ((0, 1), (2,))
    thumb = Preference("f", 1, "thumb", (), 1, 0.0, 1, b"", False, "v")
    assert opposite(thumb).thumb == -1 and opposite(opposite(thumb)) == thumb
