"""Which replies are broken, whatever anybody's taste."""

from __future__ import annotations

import pytest

from adapters.wellformed import REPEATED_SHARE, ends_broken, find_flaws, repetition


@pytest.mark.parametrize(
    "text",
    [
        "Paris.",
        "Paris",
        "Is that so?",
        "Three things:\n- salt\n- oil\n- a little warm water from the tap",
        "1. Boil the water\n2. Add the eggs and wait for ten minutes",
        'He said: "Go on."',
        "print(x)",
        "`ls -l`",
        "A Walk by the Sea",
        "元気です。",
    ],
)
def test_sound_endings(text: str) -> None:
    assert not ends_broken(text, ended=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n ",
        "As an expert, prophecies,",
        "I went to the",
        "Cats eat fish and",
        "They are very",
        "Yes (",
        "The weather in the north of the country was mild and pleasant all year round in most places",
    ],
)
def test_broken_endings(text: str) -> None:
    assert ends_broken(text, ended=True)


def test_a_reply_cut_by_the_limit_is_not_broken_by_that() -> None:
    assert not ends_broken("I went to the", ended=False)


def test_repetition_is_the_share_of_triples_said_before() -> None:
    # Six words, four triples; "a b c" comes twice.
    assert repetition("a b c a b c") == pytest.approx(1 / 4)
    assert repetition("one two three four") == 0.0
    assert repetition("one") == 0.0


def test_flaws_name_what_is_wrong() -> None:
    sound = find_flaws("Cats eat fish.", True, subject=0.4, subject_floor=0.1)
    assert not sound.broken and not sound.repetitive
    off = find_flaws("Cats eat fish.", True, subject=0.05, subject_floor=0.1)
    assert off.off_subject and off.broken
    again = find_flaws("no no no no no no no.", True, subject=0.4, subject_floor=0.1)
    assert again.repetitive and not again.broken, "repetition costs reward, but loses no duel by itself"
    assert repetition("no no no no no no no") > REPEATED_SHARE
