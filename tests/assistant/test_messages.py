"""Conversations from outside: what passes, and what each refusal says."""

from __future__ import annotations

from typing import Any

import pytest

from assistant.messages import (
    MAX_CHARACTERS,
    MAX_CONVERSATION,
    MAX_MESSAGES,
    check_messages,
    check_text,
    group_of,
    newest_messages,
)
from feedback.errors import InvalidInput

HELLO = {"role": "user", "content": "Hello"}


def test_what_openai_clients_send_passes() -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}
    assert check_messages([{"role": "developer", "content": "Be kind."}, parts]) == [
        {"role": "system", "content": "Be kind."},
        HELLO,
    ]
    assert check_messages([{"role": "system", "content": " "}, HELLO]) == [HELLO]  # asks for the default
    for nothing in ("", None):
        assert check_messages([HELLO, {"role": "assistant", "content": nothing}, HELLO])[1]["content"] == ""


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (None, "must be a list"),
        ([], "must be a list"),
        ("Hello", "must be a list"),
        ([HELLO] * (MAX_MESSAGES + 1), f"at most {MAX_MESSAGES}"),
        (["Hello"], r"messages\[0\] must be an object"),
        ([{"role": "robot", "content": "x"}], r"messages\[0\].role is 'robot'"),
        ([{"role": "user"}], "must be text"),
        ([{"role": "user", "content": "  \n"}], "is empty"),
        ([{"role": "user", "content": "x" * 100_000}], "100,000 characters; at most 32,000"),
        ([{"role": "user", "content": "\ud800"}], "half a character"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "'image_url'; only text"),
        ([{"role": "user", "content": [{"type": "text"}]}], "without text"),
        ([HELLO, {"role": "assistant", "content": "Hi"}], "last message must be the user's"),
        ([HELLO, {"role": "system", "content": "x"}, HELLO], "Only the first"),
        ([{"role": "user", "content": "x" * MAX_CHARACTERS}] * 20, "at most 400,000"),
    ],
)
def test_what_is_wrong_is_named(raw: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_messages(raw)


def test_of_a_conversation_that_is_too_long_the_newest_turns_are_taken() -> None:
    system, last = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "And now?"}
    turns = [{"role": role, "content": f"{place}"} for place in range(400) for role in ("user", "assistant")]
    kept, left_out = newest_messages([system, *turns, last])
    assert kept == [system, *turns[left_out:], last] and len(kept) == MAX_MESSAGES
    long = [{"role": "user", "content": [{"type": "text", "text": "x" * MAX_CHARACTERS}]}] * 20
    kept, left_out = newest_messages([*long, last])
    assert left_out == 21 - len(kept) and sum(len(each["content"]) for each in kept) <= MAX_CONVERSATION
    too_long = {"role": "user", "content": "x" * (MAX_CHARACTERS + 1)}
    assert newest_messages([HELLO, too_long, HELLO, last]) == ([HELLO, last], 2)  # nothing is skipped in between
    answer = {"role": "assistant", "content": "ok"}
    assert newest_messages([too_long, answer, last]) == ([last], 2)  # it begins with a person
    with pytest.raises(InvalidInput, match=r"messages\[700\].role is 'robot'"):  # as the sender counts them
        newest_messages([*turns[:700], {"role": "robot", "content": "x"}, *turns[701:], last])
    with pytest.raises(InvalidInput, match=r"32,001 characters"):
        newest_messages([HELLO, too_long])
    with pytest.raises(InvalidInput, match=r"32,001 characters"):
        newest_messages([{**too_long, "role": "system"}, HELLO])
    assert newest_messages([HELLO]) == ([HELLO], 0)
    for wrong in (None, [], "x", ["x"], [{"role": "user"}]):
        with pytest.raises(InvalidInput):
            newest_messages(wrong)


def test_a_text_has_its_own_limit() -> None:
    assert check_text("fine", "The title", "title", limit=4) == "fine"
    with pytest.raises(InvalidInput, match="The title has 5 characters; at most 4") as caught:
        check_text("finer", "The title", "title", limit=4)
    assert caught.value.param == "title"


def test_replies_to_one_prompt_share_a_group_and_no_others() -> None:
    system = {"role": "system", "content": "Be kind."}
    hello, kind = check_messages([HELLO]), check_messages([system, HELLO])
    assert group_of(hello) == group_of(check_messages([dict(HELLO)]))
    assert group_of(hello) != group_of(kind)
