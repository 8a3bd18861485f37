"""A word that one person wrote is in nobody else's replies, heads, exports, search, nor in any log or metric."""

from __future__ import annotations

import io
import itertools
import logging
import secrets
import zipfile
from dataclasses import dataclass

import pytest

from adapters.rendering import ChatMessage
from assistant.turn import Turn
from feedback.types import User
from tests.assistant.test_api import give_version
from tests.security.world import Somebody, World
from tests.soak import SOAK

PEOPLE = 20 if SOAK else 7  # 380 ordered pairs, or 42
MORE_ARMS = ("rerank", "adapter", "adapter+rerank")  # one of them for each of the first three
PROBE: list[ChatMessage] = [{"role": "user", "content": "Say the word again."}]
READ = (
    "/v1/me", "/v1/me/profile", "/v1/me/keys", "/v1/me/updates", "/v1/me/versions", "/v1/models", "/v1/openapi.json",
)  # fmt: skip
FOR_ADMINS = ("/metrics", "/v1/admin/users", "/v1/admin/audit", "/v1/admin/settings")


@dataclass(frozen=True)
class Speaker:
    """A person and the word that only they use. chat: one of theirs."""

    person: Somebody
    user: User
    word: str
    chat: str


def speak(world: World) -> Speaker:
    """Somebody new, with the word in every field that takes text."""
    person, word = world.somebody("other"), f"zq{secrets.token_hex(5)}"
    user, learning = person.user, world.mynah.learning
    assert user is not None
    chat, _, reply, rival = world.chat(user, word)
    learning.thumb(user, reply, 1, reasons=[word], comment=f"More {word}!")
    learning.rank(user, [[rival], [reply]], comment=word)
    learning.edit(user, reply, f"Always {word}, my friend.")
    learning.bring(user, {"messages": PROBE, "replies": [f"{word}, you know!", "A word."], "ranking": [[0], [1]]})
    return Speaker(person, user, word, chat)


@pytest.fixture(scope="module")
def heard(world: World) -> dict[str, str]:
    """All that is said to each speaker, by the speaker's word, and "" for what admins and the log are told."""
    log, mynah = io.StringIO(), world.mynah
    handler, root, level = logging.StreamHandler(log), logging.getLogger(), logging.getLogger().level
    handler.addFilter(lambda record: not record.name.startswith("http"))  # what the tests' own clients ask for
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        speakers, scores = [], {}
        for _ in range(PEOPLE):
            one = speak(world)
            speakers.append(one)
            scores[one.word] = mynah.learning.score(one.user, PROBE, ["You will like it!", "It is short."])
        for one in speakers[: len(MORE_ARMS)]:
            give_version(mynah, one.user, world.policy)
        told = {one.word: [answers(world, one, speakers)] for one in speakers}
        for one, texts in zip(itertools.cycle(speakers), replies(world, speakers), strict=False):
            told[one.word] += texts
        for one in speakers:
            again = mynah.learning.score(one.user, PROBE, ["You will like it!", "It is short."])
            assert again == scores[one.word], "what others said moves nobody's head"
            told[one.word].append(repr(mynah.learning.head(one.user.id)))
        public = [world.boss.program.get(path).text for path in FOR_ADMINS]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return {word: "\n".join(texts) for word, texts in told.items()} | {"": "\n".join([*public, log.getvalue()])}


def replies(world: World, speakers: list[Speaker]) -> list[list[str]]:
    """What is written to everybody at once: by base and context, for some by every arm; in the speakers' order."""
    turns: list[list[Turn]] = []
    for place, one in enumerate(speakers):
        arms = ["base", "context", *MORE_ARMS[place : place + 1]]
        chats = [world.mynah.chat.open(one.user).id for _ in arms]
        said = f"Say this word: {one.word}"
        turns.append(
            [
                world.mynah.chat.send(one.user, chat, said, arm=arm, max_tokens=8)
                for chat, arm in zip(chats, arms, strict=True)
            ]
        )
    return [[reply.text for turn in mine for reply in turn.replies()] for mine in turns]


def answers(world: World, one: Speaker, speakers: list[Speaker]) -> str:
    """What the server tells somebody, who also looks for everybody's words."""
    texts = [one.person.program.get(path).text for path in READ]
    with zipfile.ZipFile(io.BytesIO(one.person.program.get("/v1/me/export").content)) as archive:
        texts += [archive.read(name).decode("utf-8", "replace") for name in archive.namelist()]
    for other in speakers:
        found = one.person.browser.get("/search", params={"q": other.word})
        assert found.status_code == 200 and (other.chat in found.text) == (other is one)
    texts += [one.person.browser.get(f"/conversations/{one.chat}.{ending}").text for ending in ("md", "json")]
    return "\n".join(texts)


def test_everybody_hears_their_own_word(heard: dict[str, str]) -> None:
    """Else the next test could not fail."""
    words = [word for word in heard if word]
    assert len(words) == PEOPLE and all(heard[word].count(word) > 10 for word in words)


def test_nobody_hears_anothers_word(heard: dict[str, str]) -> None:
    words = [word for word in heard if word]
    pairs = [(mine, other) for mine in words for other in words if mine != other]
    assert len(pairs) == PEOPLE * (PEOPLE - 1)
    assert [pair for pair in pairs if pair[1] in heard[pair[0]]] == []


def test_logs_metrics_and_admins_pages_hold_nobodys_word(heard: dict[str, str]) -> None:
    assert "mynah_replies" in heard[""], "the metrics are among it"
    found = [heard[""][at - 200 : at + 40] for word in heard if word and (at := heard[""].find(word)) >= 0]
    assert found == []
