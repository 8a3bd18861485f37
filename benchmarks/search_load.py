"""A long history to search in: many chats of made-up messages, with words that are common, rare, Chinese, or cut."""

from __future__ import annotations

from adapters.prompts import shipped_prompts
from feedback.store import Store
from feedback.types import Reply, new_id, now

CONVERSATIONS, MESSAGES = 200, 10_000
RARE_EVERY = 997  # turns
QUERIES = ("how", "what could", "cormorant", "鸬鹚", "corm", "the best way")
COMMON = "How do people find the best way, and what could they try?"
RARE = "A cormorant dries its wings. 鸬鹚在晒翅膀。"


def fill(store: Store, user_id: str, conversations: int = CONVERSATIONS, messages: int = MESSAGES) -> None:
    """Give a person so many chats with so many messages altogether, half of them replies, in one transaction."""
    texts = [text for _, text in shipped_prompts("pool")]
    turns = messages // 2 // conversations
    with store.database.transaction():
        for chat in range(conversations):
            name = store.chats.start(user_id, f"Chat {chat + 1}").id
            for turn in range(turns):
                number = chat * turns + turn
                said = texts[number % len(texts)]
                text = f"{texts[(number + 7) % len(texts)]} {COMMON} {texts[(number + 31) % len(texts)]}"
                reply = _reply(user_id, name, said, f"{text} {RARE}" if number % RARE_EVERY == 0 else text)
                store.chats.add_replies([reply])
                store.chats.add_turn(name, said, reply)


def _reply(user_id: str, conversation_id: str, prompt: str, text: str) -> Reply:
    """A reply of the base that nobody learns from."""
    return Reply(
        id=new_id("r"),
        user_id=user_id,
        conversation_id=conversation_id,
        group_id=new_id("g"),
        prompt=[{"role": "user", "content": prompt}],
        text=text,
        arm="base",
        version=None,
        base_id="made up",
        sampling={},
        seed=0,
        token_ids=b"",
        ended=True,
        learn=False,
        source="chat",
        latent=b"",
        created_at=now(),
    )
