"""Arms: the ladder and its guard, the record by hand, the choice among drafts, and what the context arm tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from assistant.arms import (
    RERANK_DRAFTS,
    RERANK_DRAFTS_BUSY,
    Record,
    Tally,
    check_arm,
    choose,
    context_system,
    draft_count,
    rank_drafts,
    record_of,
    resampled,
    rival,
    served_arm,
)
from assistant.profile import TraitView
from feedback.errors import InvalidInput
from feedback.types import ARMS


@dataclass(frozen=True)
class Written:
    """A draft without a model."""

    text: str
    ended: bool = True
    subject: float = 0.5


def view(preference: str, weight: float, *, known: bool = True) -> TraitView:
    return TraitView("trait", weight, 0.1, 3, "", preference, known, known, False)


# ---- which arm ----------------------------------------------------------------------------------------------------


def test_auto_climbs_with_what_is_known() -> None:
    assert served_arm(0, False, Record()) == "base"
    assert served_arm(1, False, Record()) == "rerank"
    assert served_arm(1, True, Record()) == "adapter+rerank"
    assert served_arm(0, True, Record()) == "adapter"  # all labels were taken back


def test_auto_steps_down_when_the_record_says_so_and_only_then() -> None:
    lost = record_of([[["rerank"], ["adapter+rerank"]]] * 8, [])
    assert lost.loses("adapter+rerank", "rerank")
    assert served_arm(9, True, lost) == "rerank"
    unlucky = record_of([[["rerank"], ["adapter+rerank"]]] * 7, [])  # 0 of 7: an interval up to 0.52
    assert served_arm(9, True, unlucky) == "adapter+rerank"
    both = record_of([[["rerank"], ["adapter+rerank"]]] * 8 + [[["base"], ["rerank"]]] * 8, [])
    assert served_arm(9, True, both) == "base"


def test_thumbs_alone_can_step_it_down() -> None:
    record = record_of([], [("rerank", -1)] * 12 + [("base", 1)] * 12)
    assert served_arm(9, False, record) == "base"


def test_what_loses_to_a_better_arm_is_not_therefore_worse_than_the_base() -> None:
    record = record_of([[["adapter+rerank"], ["rerank"]]] * 9 + [[["rerank"], ["base"]]] * 2, [])
    assert not record.loses("rerank", "base")


def test_the_rival_is_the_next_one_down() -> None:
    assert rival("adapter+rerank", 5, True) == "rerank"
    assert rival("rerank", 5, True) == "base"
    assert rival("base", 5, True) is None


def test_names_of_arms_are_checked() -> None:
    assert check_arm("auto") is None
    assert [check_arm(arm) for arm in ARMS] == list(ARMS)
    with pytest.raises(InvalidInput, match="'best'; it can be auto, base"):
        check_arm("best")


# ---- the record ---------------------------------------------------------------------------------------------------


def test_the_interval_allows_for_looking_all_the_time() -> None:
    # 0 of 7: the mean likelihood is 1/8, so (1-p)⁷ must exceed 1/160; ties count as halves
    assert Tally(0, 7).interval() == (0.0, pytest.approx(1 - 160 ** (-1 / 7)))
    low, high = Tally(3.5, 7).interval()
    assert low == pytest.approx(1 - high) and high - low > 0.6
    assert Tally().interval() == (0.0, 1.0)
    assert Tally(3, 3).interval()[1] == 1.0


def test_a_ranking_compares_every_pair_of_different_arms() -> None:
    # rerank above (base, rerank) tied below: rerank beats base once, and ties with it once; its own pair says nothing
    record = record_of([[["rerank"], ["base", "rerank"]]], [("rerank", 1), ("rerank", -1)])
    assert record.pairs[("rerank", "base")] == Tally(1.5, 2)
    assert record.pairs[("base", "rerank")] == Tally(0.5, 2)
    lines = {line.arm: line for line in record.arms}
    assert (lines["rerank"].comparisons, lines["rerank"].wins) == (2, 1.5)
    assert (lines["rerank"].thumbs, lines["rerank"].ups) == (2, 1)
    assert lines["rerank"].low < 0.75 < lines["rerank"].high
    assert list(lines) == ["base", "rerank"]


# ---- the choice among drafts --------------------------------------------------------------------------------------


def test_taste_decides_among_sound_drafts() -> None:
    drafts = [Written("One."), Written("Two."), Written("Three.")]
    assert rank_drafts(drafts, np.array([0.1, 2.0, 1.0]), np.zeros(3), np.zeros(3), 0.0) == [1, 2, 0]


def test_safety_and_form_stand_above_taste() -> None:
    drafts = [
        Written("A fine text that somebody would like very much, and that stops in the"),  # broken
        Written("again and again and again and again and again and again."),  # repetitive
        Written("On another subject.", subject=-0.9),
        Written("Harmful."),
        Written("Sound."),
    ]
    taste = np.array([9.0, 8.0, 9.0, 99.0, -9.0])
    harm = np.array([0.0, 0.0, 0.0, 0.9, 0.0])
    order = rank_drafts(drafts, taste, harm, np.zeros(5), 0.0)
    assert order[0] == 4
    assert order[1] == 1
    assert set(order[2:4]) == {0, 2}
    assert order[-1] == 3


def test_neither_flattery_nor_false_certainty_is_a_matter_of_taste() -> None:
    drafts = [Written("What a great question! Bees."), Written("Bees live in a hive."), Written("Again, bees.")]
    nothing = np.zeros(3)
    assert rank_drafts(drafts, np.array([99.0, 0.0, 1.0]), nothing, nothing, 0.0) == [2, 1, 0]
    assert rank_drafts(drafts[:1], np.zeros(1), np.zeros(1), np.zeros(1), 0.0) == [0], "where nothing else is there"
    drafts = [Written("They number 7,312."), Written("I don't know how many."), Written("I cannot tell.")]
    for taste, wanted in ((3.9, [1, 2, 0]), (4.1, [0, 1, 2])):  # two of three admit it: two thirds of six logits
        assert rank_drafts(drafts, np.array([taste, 0.0, 0.0]), nothing, nothing, 0.0) == wanted


def test_a_reply_before_is_not_given_again_while_there_is_another() -> None:
    """Not even when it was liked; its beginning tells it, and a short answer may be right twice."""
    liked, other = "As an AI, your role is to create new data, not edit it.", "Bees live in a hive that you look after."
    drafts, taste = [Written(liked), Written(other), Written("Harmful.")], np.array([9.0, 0.0, 0.0])
    harm = np.array([0.0, 0.0, 0.9])
    assert rank_drafts(drafts, taste, harm, np.zeros(3), 0.0, [liked + " More."]) == [1, 0, 2]
    assert rank_drafts(drafts, taste, harm, np.zeros(3), 0.0) == [0, 1, 2]
    short = [Written("Yes, it is."), Written("No.")]
    assert rank_drafts(short, taste[:2], harm[:2], np.zeros(2), 0.0, ["Yes, it is."]) == [0, 1]


def test_a_little_harm_costs_as_much_as_in_training() -> None:
    drafts = [Written("One."), Written("Two.")]
    assert rank_drafts(drafts, np.array([1.0, 0.0]), np.array([0.3, 0.0]), np.zeros(2), 0.0) == [1, 0]
    assert rank_drafts(drafts, np.array([2.0, 0.0]), np.array([0.3, 0.0]), np.zeros(2), 0.0) == [0, 1]


def test_words_that_do_not_exist_cost_as_much_as_in_training() -> None:
    drafts = [Written("One."), Written("Two.")]
    for taste, wanted in ((1.0, [1, 0]), (3.0, [0, 1])):  # a tenth of its words made up costs 2 logits
        assert rank_drafts(drafts, np.array([taste, 0.0]), np.zeros(2), np.array([0.1, 0.0]), 0.0) == wanted


def test_choices_to_compare_differ_while_they_can() -> None:
    drafts = [Written("Same."), Written(" Same. "), Written("Other.")]
    assert choose([0, 1, 2], drafts, 2) == [0, 2]
    assert choose([0, 1, 2], drafts, 3) == [0, 2, 1]


def test_the_best_quarter_takes_the_places_of_the_others() -> None:
    order, drafts = [5, 2, 7, 0, 1, 3, 4, 6], [Written(f"Draft {number}") for number in range(8)]
    assert resampled(order, drafts, range(8)) == {7: 5, 0: 2, 1: 5, 3: 2, 4: 5, 6: 2}
    assert resampled(order, drafts, {0, 1, 2, 3}) == {0: 2, 1: 2, 3: 2}, "what is finished stays as it is"
    assert resampled(order, drafts, {0, 3}) == {3: 0}
    assert resampled(order, drafts, ()) == {}
    assert resampled([1, 0], drafts, range(2)) == {0: 1} and resampled([0], drafts, range(1)) == {}
    drafts[2] = drafts[5]
    assert resampled(order, drafts, range(8)) == {2: 5, 0: 7, 1: 5, 3: 7, 4: 5, 6: 7}, "one beginning counts once"


def test_fewer_drafts_when_others_wait_unless_a_text_is_asked_for_again() -> None:
    assert draft_count(busy=False, seed_given=False, greedy=False) == RERANK_DRAFTS
    assert draft_count(busy=True, seed_given=False, greedy=False) == RERANK_DRAFTS_BUSY
    assert draft_count(busy=True, seed_given=True, greedy=False) == RERANK_DRAFTS
    assert draft_count(busy=False, seed_given=False, greedy=True) == 1


# ---- the context arm ----------------------------------------------------------------------------------------------


def test_only_what_is_known_is_told_strongest_first() -> None:
    profile = [view("no emoji", -0.2), view("shorter replies", -0.8), view("code", 0.9, known=False)]
    told = context_system("Be kind.", profile, lambda text: len(text.split()))
    assert told == "Be kind. The user prefers shorter replies; no emoji."
    assert context_system("Be kind.", [view("code", 0.9, known=False)], len) == "Be kind."


def test_the_budget_holds() -> None:
    profile = [view(f"thing number {number}", 1.0 - number / 100) for number in range(50)]
    told = context_system("Hi.", profile, lambda text: len(text.split()), budget=12)
    assert told == "Hi. The user prefers thing number 0; thing number 1; thing number 2."
    assert len(told.split()) - 1 <= 12


def test_the_record_of_several_people_is_the_sum() -> None:
    one = record_of([[["rerank"], ["base"]]], [("base", 1)])
    two = record_of([[["base"], ["rerank"]], [["rerank"], ["base"]]], [("base", -1), ("context", 1)])
    lines = {line.arm: (line.comparisons, line.wins, line.thumbs, line.ups) for line in (one + two + Record()).arms}
    assert lines == {"base": (3, 1.0, 2, 1), "context": (0, 0.0, 1, 1), "rerank": (3, 2.0, 0, 0)}
    assert one.arms[0].thumbs == 1, "the two stay as they were"
