"""Text while it is being written: by hand, and with any text, any stop strings and any way of cutting it up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.streaming import SAID, TextStream, check_stops, circled, looped, refrain
from feedback.errors import InvalidInput


def test_half_a_character_waits_for_the_other_half() -> None:
    stream = TextStream()
    # "你" is three bytes; two of them decode to one or two U+FFFD
    assert stream.push("Hi \ufffd") == "Hi "
    assert stream.push("Hi \ufffd\ufffd") == ""
    assert stream.push("Hi 你") == "你"
    assert stream.push("Hi 你\ufffd", final=True) == "\ufffd"  # nothing follows: it was never a character


def test_the_start_of_a_stop_string_waits() -> None:
    stream = TextStream(["END", "\n\n"])
    assert stream.push("one EN") == "one "
    assert stream.push("one ENough") == "ENough"
    assert stream.push("one ENough\n") == ""
    assert stream.push("one ENough\n\nmore") == ""
    assert stream.cut
    assert stream.shown == "one ENough"
    assert stream.push("one ENough\n\nmore and more", final=True) == ""


def test_what_was_held_back_is_due_at_the_end() -> None:
    stream = TextStream(["END"])
    assert stream.push("the EN") == "the "
    assert stream.push("the EN", final=True) == "EN"
    assert not stream.cut


@given(
    st.text(alphabet="abc\n é", max_size=40), st.lists(st.text(alphabet="abc\n", min_size=1, max_size=4), max_size=3)
)
def test_pieces_add_up_to_the_text_before_the_first_stop(text: str, stops: list[str]) -> None:
    stream, shown = TextStream(stops), ""
    for end in range(len(text) + 1):
        shown += stream.push(text[:end])
        assert not any(stop in shown for stop in stops)
    shown += stream.push(text, final=True)
    assert shown == stream.shown
    assert text.startswith(shown)
    assert stream.cut or shown == text
    if stream.cut:
        assert any(text[len(shown) :].startswith(stop) for stop in stops)


SOAP = "they have been used in the making of soap, "


def test_a_phrase_said_over_and_over_ends_the_reply() -> None:
    stream, text = TextStream(), "Bees are useful: " + SOAP * 9
    for end in range(len(text) + 1):
        stream.push(text[:end])
    assert stream.cut and stream.shown == f"Bees are useful: {SOAP * 6}"[:-1], "a space begins the phrase, too"
    often = TextStream()
    often.push(f"{SOAP * 5}and of candles.", final=True)
    assert not often.cut


def test_a_few_words_in_one_order_after_the_other_end_the_reply() -> None:
    numbers = ["two", "three", "four", "12", "eleven", "eleven", "17"]
    text = "A dessert!\n\nYou can " + "".join(
        f"make {numbers[i % 7]} delicious ingredients, {numbers[i % 5]} ingredients can " for i in range(20)
    )
    stream = TextStream()
    for end in range(len(text) + 1):
        stream.push(text[:end])
    assert stream.cut and 200 < len(stream.shown) < 600
    asked = TextStream(question="Make two, three, four, eleven delicious ingredients; you can.")
    asked.push(text, final=True)
    assert not asked.cut


def test_a_sentence_that_comes_back_and_back_ends_the_reply() -> None:
    told = "This is what makes the golden ratio. "
    text = "".join(f"{told}{between}\n\n" for between in ("Faster.", "It is so.", "", "You have to.", "", "More?", ""))
    stream, shown = TextStream(), ""
    for end in range(1, len(text) + 1):
        shown += stream.push(text[:end])
    assert stream.cut and shown.count(told.strip()) == SAID and shown.endswith("ratio.")
    assert refrain("I see. " * 9 + "I see.") == [] == refrain("It is 1 o'clock now. " * 9), "short, or it counts"
    asked = TextStream(question="Write this is what makes the golden ratio again and again.")
    asked.push(told * 9, final=True)
    assert not asked.cut


@pytest.mark.parametrize(
    "text",
    [
        "|" + "---------------|" * 12,
        "0.000000, " * 20,
        "ha " * 40,
        "".join(f"{number}. It is a good year for bees.\n" for number in range(9)),
        "1. Boil the water.\n2. Wait for three minutes.\n" * 2,
        "  <td>nothing to be seen here</td>\n" * 6,
        ", ".join(f"{number}" for number in range(200)),
        ", ".join(f"0x{number:02x}" for number in range(256)),
        "".join(f"{{'name': 'bee {chr(97 + n)}{chr(98 + n)}', 'legs': {n}}}, " for n in range(20)),
    ],
)
def test_rules_tables_and_lists_are_no_loops(text: str) -> None:
    assert not any(looped(text[:end]) or circled(text[:end]) for end in range(len(text) + 1))


def test_who_asks_for_it_gets_it() -> None:
    stream = TextStream(question="Write 'I must not talk during the lessons.' ten times.")
    text = "I must not talk during the lessons.\n" * 10
    for end in range(len(text) + 1):
        stream.push(text[:end])
    assert stream.shown == text and not stream.cut


def test_stop_strings_are_checked() -> None:
    assert check_stops(None) == ()
    assert check_stops("x") == ("x",)
    assert check_stops(["x", "y"]) == ("x", "y")
    for bad in ([""], [1], 3, ["x"] * 5, ["x" * 201]):
        with pytest.raises(InvalidInput, match="stop"):
            check_stops(bad)
