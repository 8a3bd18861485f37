"""Messages to tokens and back; the only caller of the chat template.

What people type never becomes a control token: where a message contains one of the tokenizer's special strings, the
text is tokenized with those strings taken as plain characters, so "<|im_end|>" in a prompt cannot change who speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypedDict
from uuid import uuid4

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from feedback.errors import InvalidInput

# Measured on the embedded base (LOG.md): longer or more personal wordings make its replies shorter and more confused.
DEFAULT_SYSTEM = "You are a helpful AI assistant named Mynah."


class ChatMessage(TypedDict):
    """One turn, as in OpenAI's API."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Rendered:
    """A prompt ready for the model: its token ids and how many of the oldest turns were left out to fit."""

    ids: list[int]
    dropped: int


class Renderer:
    """Turns conversations into prompts of at most `max_prompt_tokens` tokens for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int = 1536) -> None:
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self._special = [token for token in tokenizer.all_special_tokens if token]
        self._special += [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        ends = self._find_ends()
        self.end_ids = frozenset(ends)
        self.end_id = ends[0]  # what the template puts after an assistant's turn
        self.pieces = lru_cache(maxsize=10_000)(self._pieces)
        self._takes_system = self._system_is_rendered()

    def prompt(self, messages: Sequence[ChatMessage]) -> Rendered:
        """Render a conversation that ends with a user turn, ready for the assistant's reply.

        The system prompt (ours, when none is given) and the newest turns are kept when the whole is too long.
        Raises InvalidInput when even the last turn alone does not fit.
        """
        turns = list(messages)
        system: list[ChatMessage] = [{"role": "system", "content": DEFAULT_SYSTEM}]
        if turns and turns[0]["role"] == "system":
            system = [turns.pop(0)]
        for dropped in range(self._first_that_may_fit(turns), len(turns) or 1):
            if dropped and turns[dropped]["role"] == "assistant":
                continue  # a conversation starts with a person
            ids = self._encode([*system, *turns[dropped:]])
            if len(ids) <= self.max_prompt_tokens:
                return Rendered(ids, dropped)
        raise InvalidInput(
            f"The message is {len(ids)} tokens long with its system prompt; at most {self.max_prompt_tokens} fit. "
            "Shorten it.",
            param="messages",
        )

    def _first_that_may_fit(self, turns: Sequence[ChatMessage]) -> int:
        """How many of the oldest turns are certainly too many: their texts alone fill the context, whatever the
        template adds. Saves rendering a long conversation once for every turn that is left out."""
        room = self.max_prompt_tokens
        for place in range(len(turns) - 1, -1, -1):
            room -= len(self._plain(turns[place]["content"])) - 1  # a turn's first token may merge with the template's
            if room < 0:
                return min(place + 1, len(turns) - 1)
        return 0

    def text(self, ids: Sequence[int]) -> str:
        """The reply as a person reads it: without control tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def reply_ids(self, text: str, *, ended: bool = True) -> list[int]:
        """Token ids of a reply given as text, with the end-of-turn token when it ended by itself."""
        ids = self._plain(text)
        return [*ids, self.end_id] if ended else ids

    def _encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        if not self._takes_system and messages[0]["role"] == "system":
            messages = _fold_system(messages)
        contents = [message["content"] for message in messages]
        if not any(special in content for content in contents for special in self._special):
            text = str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        # Render with stand-ins, then put each text back as plain characters between the template's own tokens.
        marks = [f"§{uuid4().hex}§" for _ in messages]
        stand_ins: list[ChatMessage] = [
            {"role": message["role"], "content": mark} for message, mark in zip(messages, marks, strict=True)
        ]
        rendered = self.tokenizer.apply_chat_template(stand_ins, tokenize=False, add_generation_prompt=True)
        ids: list[int] = []
        rest = str(rendered)
        for mark, content in zip(marks, contents, strict=True):
            before, found, rest = rest.partition(mark)
            ids += self.tokenizer.encode(before, add_special_tokens=False)
            if found:  # some templates drop or repeat a message; what they drop stays dropped
                ids += self._plain(content)
        return ids + self.tokenizer.encode(rest, add_special_tokens=False)

    def _pieces(self, word: str) -> int:
        """How many tokens a word takes behind a space."""
        return len(self._plain(f" {word}"))

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def _system_is_rendered(self) -> bool:
        """Some templates (Gemma's) refuse or drop a system turn; its text then opens the first user turn."""
        mark = uuid4().hex
        turns = [{"role": "system", "content": mark}, {"role": "user", "content": "x"}]
        try:
            return mark in str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        except TemplateError:
            return False

    def _find_ends(self) -> list[int]:
        """Tokens that end a turn: the one the template puts after an assistant's turn, and the tokenizer's eos."""
        mark = f"§{uuid4().hex}§"
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": mark}]
        rendered = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        after = self.tokenizer.encode(rendered.partition(mark)[2].strip(), add_special_tokens=False)
        ends = [int(after[0])] if after and after[0] in self.tokenizer.all_special_ids else []
        if self.tokenizer.eos_token_id is not None:
            ends.append(int(self.tokenizer.eos_token_id))
        assert ends, "the tokenizer has no token that ends a turn"
        return ends


def _fold_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    system, first, *rest = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]
