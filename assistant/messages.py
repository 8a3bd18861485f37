"""Conversations as they come from outside, checked once; everything behind works on what this lets through.

Pure functions. Whether a conversation fits the model's context is the renderer's business (adapters/rendering.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

from adapters.files import sha256_json
from adapters.rendering import ChatMessage
from feedback.errors import InvalidInput

MAX_CHARACTERS = 32_000  # a message; far more than the default base reads at once
MAX_MESSAGES = 500
MAX_CONVERSATION = 400_000  # characters of a whole conversation

Role = Literal["system", "user", "assistant"]
# "developer" is OpenAI's newer word for the same thing.
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def check_messages(raw: object, left_out: int = 0) -> list[ChatMessage]:
    """A conversation out of JSON → messages that end with something a person said.

    Content may be a string or a list of OpenAI's text parts. left_out: messages that came before all of these but a
    system message. Raises InvalidInput naming the message at fault.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes) or not raw:
        raise InvalidInput(
            'messages must be a list that is not empty: [{"role": "user", "content": ".."}].', param="messages"
        )
    if len(raw) > MAX_MESSAGES:
        raise InvalidInput(
            f"The conversation has {len(raw)} messages; at most {MAX_MESSAGES} are taken.", param="messages"
        )
    first = int(_is_system(raw[0]))
    messages = [_message(item, place + left_out * (place >= first)) for place, item in enumerate(raw)]
    if any(message["role"] == "system" for message in messages[1:]):
        raise InvalidInput("Only the first message can be a system message.", param="messages")
    if messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages = messages[1:]  # an empty one asks for the default
    if not messages or messages[-1]["role"] != "user":
        raise InvalidInput("The last message must be the user's: it is what gets answered.", param="messages")
    if (total := sum(len(message["content"]) for message in messages)) > MAX_CONVERSATION:
        raise InvalidInput(
            f"The conversation has {total:,} characters; at most {MAX_CONVERSATION:,} are taken. Leave out old turns.",
            param="messages",
        )
    return messages


def newest_messages(raw: object) -> tuple[list[ChatMessage], int]:
    """As `check_messages`; of a conversation that is too long the system message and the newest turns, and how many
    were left out."""
    if not isinstance(raw, list):
        return check_messages(raw), 0
    first = int(bool(raw) and _is_system(raw[0]))
    room, kept = MAX_CONVERSATION - sum(map(_size, raw[:first])), first
    place = len(raw)
    while place > first:
        size = _size(raw[place - 1])
        if place < len(raw) and (size > MAX_CHARACTERS or size > room or kept == MAX_MESSAGES):
            break  # the newest is kept in any case, and refused if it is too long by itself
        room, kept, place = room - size, kept + 1, place - 1
    if place > first:  # a conversation starts with a person
        while place < len(raw) - 1 and isinstance(raw[place], Mapping) and raw[place].get("role") == "assistant":
            place += 1
    return check_messages([*raw[:first], *raw[place:]], place - first), place - first


def check_text(raw: object, what: str, param: str, *, limit: int = MAX_CHARACTERS) -> str:
    """Some text that a person wrote. Raises InvalidInput when it is none, blank, too long or no Unicode."""
    text = _characters(raw, what, param, limit)
    if not text.strip():
        raise InvalidInput(f"{what} is empty; write something.", param=param)
    return text


def group_of(messages: Sequence[ChatMessage]) -> str:
    """The id that replies to one prompt share, whenever they were asked for: only those can be compared."""
    return f"g_{sha256_json([[message['role'], message['content']] for message in messages])[:18]}"


def _is_system(item: object) -> bool:
    role = item.get("role") if isinstance(item, Mapping) else None
    return isinstance(role, str) and _ROLES.get(role) == "system"


def _size(item: object) -> int:
    """Characters of a message, 0 of what is none."""
    content = item.get("content") if isinstance(item, Mapping) else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return sum(len(text) for text in texts if isinstance(text, str))
    return len(content) if isinstance(content, str) else 0


def _message(item: object, place: int) -> ChatMessage:
    param = f"messages[{place}]"
    if not isinstance(item, Mapping):
        raise InvalidInput(f"{param} must be an object with role and content.", param=param)
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidInput(
            f"{param}.role is {str(role)[:40]!r}; it can be system, user or assistant.", param=f"{param}.role"
        )
    content = item.get("content")
    if content is None and role == "assistant":  # OpenAI's form of a turn without words
        content = ""
    if isinstance(content, list):
        content = _joined(content, param)
    check = check_text if _ROLES[role] == "user" else _characters
    return {
        "role": _ROLES[role],
        "content": check(content, f"{param}.content", f"{param}.content", limit=MAX_CHARACTERS),
    }


def _joined(parts: list[object], param: str) -> str:
    """The text of content parts; pictures and sound are refused by name."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            raise InvalidInput(
                f"{param}.content has a part of type {str(kind)[:40]!r}; only text is read.", param=param
            )
        texts.append(cast(Mapping[str, object], part).get("text"))
    if not all(isinstance(text, str) for text in texts):
        raise InvalidInput(f"{param}.content has a text part without text.", param=param)
    return "".join(cast(list[str], texts))


def _characters(raw: object, what: str, param: str, limit: int) -> str:
    if not isinstance(raw, str):
        raise InvalidInput(f"{what} must be text, not {type(raw).__name__}.", param=param)
    if len(raw) > limit:
        raise InvalidInput(f"{what} has {len(raw):,} characters; at most {limit:,} are taken. Shorten it.", param=param)
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} holds half a character (a lone surrogate); send whole Unicode.", param=param
        ) from error
    return raw
