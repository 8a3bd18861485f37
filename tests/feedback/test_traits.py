"""Named traits: each by example, and all of them on any text."""

from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feedback.traits import BUMP_NAMES, SCALES, TRAIT_NAMES, TRAITS, Reading, measure, repeated_share
from feedback.vocabulary import WORD_NAMES

# For every trait: a text with more of it, and a text with less.
EXAMPLES = {
    "length": ("One two three four five six.", "One two."),
    "sentences": ("It rains. It pours. It stops.", "It rains and pours and stops."),
    "sentence_length": ("It rains and it pours and then it stops again.", "It rains. It pours. It stops."),
    "items": ("- milk\n- bread\n- tea", "- milk and bread and tea"),
    "lists": ("1. milk\n2. bread", "Buy this:\n- milk\nand bread\nand tea"),
    "headings": ("# Plan\nWe begin.\nNext steps:\nWe go on.", "We begin. We go on."),
    "emphasis": ("This is **very** good and **IMPORTANT**.", "This is very good and important."),
    "paragraphs": ("One.\n\nTwo.\n\nThree.", "One.\nTwo.\nThree."),
    "code": ("Use `len(x)`:\n```\nfor x in y:\n    return x;\n```", "Use the length of it in a loop."),
    "questions": ("What do you like? Why?", "Tell me what you like. Say why."),
    "exclamation": ("Great! Well done!", "Great. Well done."),
    "second_person": ("You know your own mind.", "They know their own mind."),
    "first_person": ("I think we should go, said I.", "One should go, they said."),
    "third_person": ("She told him that they were theirs.", "It told me that these were mine."),
    "simple_words": ("The cat sat on the mat.", "Domesticated felines frequently occupied decorative carpeting."),
    "long_words": ("Domesticated felines frequently occupied decorative carpeting.", "The cat sat on the mat."),
    "word_length": ("Domesticated felines occupied carpeting.", "The cat sat on the mat."),
    "variety": ("Red apples, green pears, yellow plums.", "Red apples, red apples, red apples."),
    "hedging": ("Perhaps it might rain; it usually does.", "It will rain; it does every day."),
    "certainty": ("It will definitely always rain.", "It will rain."),
    "caution": ("Be careful and consult a doctor; avoid the risk.", "Go ahead and enjoy it with a friend."),
    "limits": ("I cannot say; it is not known and unclear.", "I can say; it is known and clear."),
    "formality": (
        "Furthermore, individuals utilize various appropriate tools.",
        "Plus, they're just gonna use what's there.",
    ),
    "warmth": ("I'm so glad, what a lovely idea, my dear friend.", "Noted, that is an idea, as such."),
    "politeness": ("Thank you, and please accept that I am sorry.", "Take it and go."),
    "emoji": ("Nice \U0001f600\U0001f389", "Nice :)"),
    "examples": ("For example, fruits such as pears.", "Fruits and pears."),
    "steps": ("1. Boil water.\n2. Then add tea.\nFinally, pour.", "Boil water, add tea, pour."),
    "numbers": ("It took 3 days, 7 hours and 2.5 minutes.", "It took days, hours and minutes."),
    "names": ("We met Ada Lovelace in London.", "We met a woman in a city."),
    "reasons": ("It fell because it was wet, therefore it broke.", "It fell and was wet and it broke."),
    "contrast": ("It is old but good, although slow.", "It is old and good and slow."),
    "story": ("Once there was a king who lived and walked alone.", "There is a king who lives and walks alone."),
    "feelings": ("She felt joy and love, then sadness and fear.", "She saw rocks and soil, then gravel and sand."),
    "imagery": (
        "The golden light of the moon shining on the quiet sea.",
        "The total amount of the bill due in the next month.",
    ),
    "science": ("The study gave data as evidence for the theory.", "The aunt gave cake as a present for the party."),
    "computers": ("The software runs on a computer network.", "The water runs in a mountain stream."),
    "nature": ("The water runs in a mountain forest.", "The software runs on a computer."),
    "health": ("Sleep and exercise keep the body healthy.", "Oil and paint keep the fence sound."),
    "food": ("Bread with cheese makes a good lunch.", "Wood with nails makes a good fence."),
    "arts": ("The novel became a film with music.", "The plan became a road with lamps."),
    "money": ("The company can sell at a market price.", "The family can dine at a friendly table."),
    "people": ("My mother and her children are family.", "My table and its drawers are furniture."),
    "quotations": ("He said “yes” and “no”.", "He said yes and no."),
    "parentheses": ("Tea (green) and coffee (black).", "Green tea and black coffee."),
    "commas": ("Well, yes, of course, if so, then, perhaps.", "Well yes of course if so then perhaps."),
    "opener": ("Sure, here is a plan.", "A plan follows."),
    "finished": ("It is done.", "It is done and"),
    "repetition": (
        "the same old thing, the same old thing, the same old thing",
        "one thing after another, never the same",
    ),
}


def value(name: str, text: str) -> float:
    """One trait of a text."""
    return TRAITS[name].measure(Reading(text))


def test_every_trait_has_an_example() -> None:
    assert set(EXAMPLES) == set(TRAIT_NAMES)


@pytest.mark.parametrize("name", TRAIT_NAMES)
def test_a_trait_is_what_it_says(name: str) -> None:
    more, less = EXAMPLES[name]
    assert value(name, more) > value(name, less)


@pytest.mark.parametrize("name", TRAIT_NAMES)
def test_a_trait_can_be_told_to_a_person(name: str) -> None:
    trait = TRAITS[name]
    assert trait.more and trait.less and trait.more != trait.less
    assert trait.about.endswith(".")


def test_a_reading_by_hand() -> None:
    reading = Reading("Dr. Ada said: “It’s 3.5 metres!”\n\n* one\n2) two\n- \n")
    assert reading.words == ["dr", "ada", "said", "it's", "metres", "one", "two"]
    assert len(reading.sentences) == 4  # "Dr." counts as one: a known limit
    assert reading.items == 2  # a bullet without a text is none
    assert len(reading.lines) == 4


def test_chinese_is_read_by_the_character() -> None:
    reading = Reading("你好，世界。今天很好！")
    assert len(reading.words) == 8
    assert len(reading.sentences) == 2
    assert value("exclamation", "好！") > value("exclamation", "好。")


def test_rates_do_not_depend_on_the_length_of_a_habit() -> None:
    once, often = "You like your tea in the morning and so do all of us here.", ""
    often = " ".join([once] * 6)
    assert value("second_person", once) == pytest.approx(value("second_person", often))


def test_one_lucky_word_in_a_short_reply_is_no_habit() -> None:
    assert value("warmth", "Great.") == value("warmth", "Great answer, which says what there is to say here now.")


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)
def test_bumps_peak_at_their_centers(scale: object) -> None:
    units = {"words": "tree ", "sentences": "It rains. ", "items": "- tea\n"}
    for place, center in enumerate(scale.centers):  # type: ignore[attr-defined]
        bumps = scale.bumps(Reading(units[scale.name] * int(center)))  # type: ignore[attr-defined]
        assert bumps[place] == pytest.approx(1.0) and max(bumps) == bumps[place]


def test_measures_come_in_a_fixed_order() -> None:
    measured = dict(zip((*TRAIT_NAMES, *BUMP_NAMES, *WORD_NAMES), measure("One two three four."), strict=True))
    assert measured["length"] == pytest.approx(math.log(5))
    assert measured["words~4"] == pytest.approx(1.0) and measured["sentences~1"] == pytest.approx(1.0)
    assert all(re.fullmatch(r"[a-z_]+~\d+", name) for name in BUMP_NAMES)


def test_repetition_by_hand() -> None:
    assert repeated_share(["a", "b", "a", "b", "a"], 2) == 0.5  # ab ba ab ba
    assert repeated_share(["a", "b", "c"], 2) == 0.0
    assert repeated_share([], 2) == repeated_share(["a"], 2) == 0.0


@given(st.text(max_size=400))
@example("")
@example("\n\n   \n")
@example("\ud800")
@example("```\n```")
@example("“”«»()[]{}…、。！？" * 20)
@example("\u202e\u200b\x00\x1b[31m")
def test_any_text_measures_finite(text: str) -> None:
    measured = measure(text)
    assert len(measured) == len(TRAIT_NAMES) + len(BUMP_NAMES) + len(WORD_NAMES)
    assert all(math.isfinite(number) for number in measured)


@given(st.text(alphabet='ab.!?\n -1)#*`"', max_size=200))
@settings(max_examples=50)
def test_markup_measures_finite(text: str) -> None:
    assert all(math.isfinite(number) for number in measure(text))


def best_of(times: int, text: str) -> float:
    """Seconds to measure a text, the fastest of some tries."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        measure(text)
        taken.append(time.perf_counter() - began)
    return min(taken)


@pytest.mark.parametrize(
    "text",
    ["a " * 50_000, "." * 100_000, "\n" * 100_000, "#" * 100_000, "1." * 50_000, "- " * 50_000, "(" * 100_000,
     "a" * 100_000, " " * 100_000 + "x", "{\n" * 30_000, "'" * 100_000],
    ids=lambda text: repr(text[:4]),
)  # fmt: skip
def test_a_very_long_text_takes_no_more_than_in_proportion(text: str) -> None:
    assert best_of(2, text) < 2.0


def test_a_draft_is_measured_in_a_moment() -> None:
    draft = "Sure! Here is a plan: first, boil some water. Then add tea (green), perhaps with 2 spoons of sugar.\n" * 3
    assert best_of(20, draft) < 0.005
