"""What no named trait measures: how often each of the commonest words comes, and each group of words that mean alike.

Both lists are in data/vocabulary.json (made by `python -m benchmarks.vocabulary`, see data/README.md). They are many
and mostly say nothing of a person, so they have a quiet place in the head: a tiny prior width, and a part in the fit
only when the acts speak for them (feedback/reward_head.py). They count but are shown to nobody: a group has no name.

Left out on purpose: a weight for every word, which so few clicks cannot tell.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from feedback.reading import Reading

FILE = Path(__file__).resolve().parent.parent / "data" / "vocabulary.json"


@cache
def _places() -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Names of the measures, and for each known word the places of those that count it."""
    raw = json.loads(FILE.read_text("utf-8"))
    lists = [[word] for word in raw["common"]] + [group.split() for group in raw["groups"]]
    names = (
        *(f"word:{word}" for word in raw["common"]),
        *(f"group:{words[0]}" for words in lists[len(raw["common"]) :]),
    )
    places: dict[str, list[int]] = {}
    for place, words in enumerate(lists):
        for word in words:
            places.setdefault(word, []).append(place)
    return names, places


def measure_words(reading: Reading) -> list[float]:
    """Root rates (`Reading.rate`) in the order of WORD_NAMES."""
    names, places = _places()
    hits = [0] * len(names)
    for word in reading.words:
        for place in places.get(word, ()):
            hits[place] += 1
    return [reading.root_rate(count) if count else 0.0 for count in hits]


WORD_NAMES: tuple[str, ...] = _places()[0]
