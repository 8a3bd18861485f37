"""Somebody who left is nowhere: none of their text, no name, no number learned from them, in any file of the folder.
Likewise a click that was taken back, with the numbers learned from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapters.base_model import BaseFiles
from assistant.chat import ChatRequest
from assistant.mynah import Mynah
from feedback.common import Common
from feedback.traits import TRAIT_NAMES
from feedback.types import User
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings, teach

NAME = "Zylophant"
WORDS = {
    "system": "Vexomorph",
    "message": "Kwyjibozz",
    "title": "Flumoxicon",
    "comment": "Grumblewort",
    "edit": "Snorkeldorf",
    "preference": "Brillowand",
    "liked": "Plimsowitch",
    "unseen": "Quaggamire",
}


@pytest.fixture
def mynah(base_files: BaseFiles, tmp_path: Path) -> Mynah:
    config = settings(own_models(base_files, tmp_path / "models"), tmp_path / "data", max_tokens=4)
    return open_mynah(config, run_updates=False)


def live_a_little(mynah: Mynah, name: str, words: dict[str, str]) -> User:
    """Everything that leaves a trace: chats, clicks of all kinds, imports, a key, a session, a version."""
    user = mynah.accounts.add(name, PASSWORD)
    mynah.accounts.sign_in(name, PASSWORD)
    mynah.accounts.create_key(user)
    conversation = mynah.chat.open(user, f"Answer like a {words['system']}.")
    (reply, *_) = mynah.chat.send(user, conversation.id, f"What does a {words['message']} eat?").replies()
    mynah.chat.rename(user, conversation.id, words["title"])
    mynah.learning.thumb(user, reply.id, 1, ["tone"], f"Like a {words['comment']}.")
    mynah.learning.edit(user, reply.id, f"It eats {words['edit']} and nothing else.")
    mynah.learning.correct(user, "length", -0.75)
    mynah.learning.bring(
        user,
        {
            "messages": [{"role": "user", "content": f"Tell me of the {words['preference']}."}],
            "replies": [f"A {words['liked']} is best.", "It is not known."],
            "ranking": [[0], [1]],
        },
    )
    mynah.chat.search(user, words["message"])
    mynah.chat.start(
        user, ChatRequest([{"role": "user", "content": words["unseen"]}], arm="rerank", learn=False)
    ).replies()
    teach(mynah, user, 12)
    assert mynah.updates.run_here(user).state == "promoted"
    mynah.updates.activate(user, "base")
    mynah.updates.activate(user, "v1")
    return user


def numbers_of(mynah: Mynah, user: User) -> dict[str, bytes]:
    """What was learned, as it lies on the disk."""
    weights = mynah.versions.path(user.id, 1) / "adapter_model.safetensors"
    first, *_ = mynah.store.acts.preferences(user.id)
    traits = first[0].features[: 8 * len(TRAIT_NAMES)]  # what follows is the reply's, and stays with the chat
    return {"features": traits, "weights": weights.read_bytes()[-64:]}


def find_something_in_common(mynah: Mynah, people: list[User]) -> bytes:
    """As the server does while nobody chats; what lies on the disk of it."""
    parts = np.random.default_rng(1).normal(size=(len(people), len(mynah.engine.population.names)))
    stamp = mynah.store.commons.stamp([user.id for user in people])
    assert mynah.store.commons.keep(mynah.engine.population.version, Common(parts, 0.5, 0.1), stamp)
    return parts[0, :4].tobytes()


def found_in(folder: Path, wanted: dict[str, bytes]) -> dict[str, list[str]]:
    """Which of these bytes are in which files, upper and lower case alike for text."""
    found: dict[str, list[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            folded = held.lower()
            for what, piece in wanted.items():
                if piece in held or piece.lower() in folded:
                    found.setdefault(what, []).append(path.name)
    return found


def test_nothing_is_left_of_somebody_who_left_and_of_clicks_taken_back(mynah: Mynah) -> None:
    folder = mynah.config.data_dir
    mynah.accounts.add("Keeper", PASSWORD, admin=True)
    others = {what: word[::-1] for what, word in WORDS.items()}
    stays = live_a_little(mynah, NAME[::-1], others)
    user = live_a_little(mynah, NAME, WORDS)
    mynah.common.begin(stays, False)
    texts = {what: word.encode() for what, word in WORDS.items()} | {"name": NAME.encode()}
    wanted = texts | {"common": find_something_in_common(mynah, [user, stays])} | numbers_of(mynah, user)
    try:
        missing = set(wanted) - set(found_in(folder, wanted))
        assert not missing, f"the scan is blind for {missing}"
        before = numbers_of(mynah, stays)

        receipt = mynah.remove_person(user)
        assert receipt["adapters"] == 1 and receipt["rows"]["replies"] > 3
        assert found_in(folder, wanted) == {}, "while the server goes on"
        (after,) = mynah.chat.start(stays, ChatRequest([{"role": "user", "content": "Hello"}], arm="adapter")).replies()
        assert after.version == 1 and numbers_of(mynah, stays) == before, "nobody else has lost anything"
        kept = {what: word.encode() for what, word in others.items()} | before
        assert set(found_in(folder, kept)) == set(kept)

        for event in mynah.store.acts.events(stays.id):
            if event.kind != "correction" and event.retracted_at is None:
                mynah.learning.retract(stays, event.id)
        wanted |= {f"their {what}": kept.pop(what) for what in ("comment", "edit", "preference", "liked", *before)}
        assert found_in(folder, wanted) == {}, "nor of clicks that were taken back, nor of what was learned from them"
        assert set(found_in(folder, kept)) == set(kept), "the chat is still there"
    finally:
        mynah.close()
    assert found_in(folder, wanted) == {}, "after its end"
    assert set(found_in(folder, kept)) == set(kept)
