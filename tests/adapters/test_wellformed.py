"""Which replies are broken, whatever anybody's taste."""

from __future__ import annotations

from functools import partial

import pytest

from adapters.wellformed import REPEATED_SHARE, coined_share, ends_broken, find_flaws, jumbled, repetition


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
        "You will have a lovely golden yolk in your bowl! 🍳",
        "It is the best kind of crazy there is ❤️",
        "You did well today, so here is your star ⭐",
        "In this room you are the number 1️⃣",
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


@pytest.mark.parametrize(
    "text",
    [
        "Call pygame.event.ButtonEventSpecterKeyboardEventSpecterEventSpecter to begin.",
        "Ptermopriminilimniniminiminiminiminiminim",
        "woofwoofwoofwoof",
        "a" * 41,
        "abcdefghijklmnopqrstuvwxyzäöüabcdéfghijklmnopq",
    ],
)
def test_words_that_go_on_and_on(text: str) -> None:
    assert jumbled(text)
    assert find_flaws(text, True, subject=0.4, subject_floor=0.1).broken


@pytest.mark.parametrize(
    "text",
    [
        "Electroencephalography is characteristically antidisestablishmentarian.",
        "Die Donaudampfschifffahrtsgesellschaft fuhr gern.",
        "`AbstractSingletonProxyFactoryBean.getElementsByTagName()`",
        "https://example.org/a/very/long/address/that/never/seems/to/end/at/all.html",
        "蜜蜂是一种会飞的昆虫属于膜翅目它们以采集花粉和花蜜闻名并且在生态系统中起着重要的传粉作用所以我们应当保护它们",
        "ความยาวของข้อความนี้มากกว่าสี่สิบตัวอักษรแน่นอนเพราะไม่มีช่องว่าง",
        "snake_case_names_may_be_as_long_as_they_like_to_be_in_code",
        "hahaha, 12345678901234567890123456789012345678901234567890",
    ],
)
def test_long_words_that_exist(text: str) -> None:
    assert not jumbled(text)


def test_made_up_words_are_long_and_of_many_pieces() -> None:
    pieces = {"characteristically": 2, "panjililamboung": 6, "beginning": 1}
    coined = partial(coined_share, pieces=lambda word: pieces[word])
    assert coined("It is characteristically short.") == 0.0
    assert coined("It is panjililamboung short.") == pytest.approx(1 / 12), (
        "a short reply counts as one of twelve words"
    )
    assert coined(" ".join(["word"] * 19) + " panjililamboung") == pytest.approx(1 / 20)
    assert coined("THE BEGINNING") == 0.0, "capitals are read as small letters"
