"""The plan for a million people: small cases by hand, sizes against the real adapter."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.policy import AdapterConfig, Policy
from benchmarks.scale import DAY, EMBEDDED, Accelerator, People, Shape, due_times, hit_rate, turns, waiting

FEW = People(count=2000, days=3)


def test_an_adapter_is_as_large_as_the_real_one(policy: Policy) -> None:
    policy.new_adapter("mia")
    real = sum(tensor.nbytes for tensor in policy.adapter_state("mia").values())
    assert EMBEDDED.adapter_bytes(AdapterConfig()) == real
    matrices = [each for name, each in policy.model.named_modules() if name.endswith(("_proj", "lm_head"))]
    assert EMBEDDED.weights == sum(each.weight.numel() for each in matrices)


def test_a_cache_by_hand() -> None:
    # Warm: 1, 2, 1. Then 3 takes 2's place; 1 is there; 2 is not.
    assert hit_rate([1, 2, 1, 3, 1, 2], 2) == pytest.approx(1 / 3)
    assert hit_rate([1, 2, 1, 3, 1, 2], 3) == pytest.approx(2 / 3)
    assert hit_rate([1, 1, 1, 1], 1) == 1.0


def test_people_write_as_assumed() -> None:
    when, who = turns(FEW, np.random.default_rng(0))
    assert (np.diff(when) >= 0).all() and who.max() < FEW.count
    assert len(who) / FEW.days / FEW.count == pytest.approx(FEW.turns_a_day, rel=0.1)
    hours = np.histogram(when % DAY, 24)[0]
    assert hours.min() / hours.mean() == pytest.approx(FEW.trough, abs=0.12)
    assert hours.argmin() in (0, 1, 23)


def test_somebody_is_due_after_so_many_labels() -> None:
    everybody = People(count=1, labels_a_turn=1.0)
    start = int(np.random.default_rng(2).integers(20, size=1)[0])
    due = due_times(np.arange(50.0), np.zeros(50, dtype=np.int64), everybody, every=20)
    assert due.tolist() == [number for number in range(50) if (number + 1 + start) % 20 == 0]


def test_updates_take_what_chat_leaves() -> None:
    # One device; chat takes all of the second day's first hour; two updates of half an hour come at its beginning.
    chat = DAY + np.arange(0.0, 3600.0, 1.0)
    due = np.array([DAY + 1.0, DAY + 2.0])
    line = waiting(due, chat, 1.0, 1800.0, 1.0, 2)
    assert line["busy_at_peak"] == 1.0 and line["never_in_time"] == 0.0
    assert line["median_hours"] == pytest.approx((1.5 + 2.0) / 2, abs=0.01)


def test_a_step_is_bound_by_memory_or_by_products() -> None:
    shape = Shape("small", 2, 64, 128, 32, 100)
    bound_by_memory = Accelerator(rows=1, bytes_a_second=1.0, operations_a_second=1e30)
    assert bound_by_memory.writing(shape, 3) == pytest.approx(3 * shape.weights_bytes)
    bound_by_products = Accelerator(rows=4, bytes_a_second=1e30, operations_a_second=1.0, share=0.5)
    assert bound_by_products.writing(shape, 4) == pytest.approx(2 * shape.weights * 4 / 0.5)
