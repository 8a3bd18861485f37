"""Two versions side by side, with the real model: what is written, what is kept (nothing), and a version's example."""

from __future__ import annotations

from pathlib import Path

import pytest

from assistant.preview import EXAMPLE_PROMPT, Preview, Previews
from assistant.usage import folder_bytes, size
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.types import Example, User
from tests.assistant.conftest import Maker, Service
from tests.assistant.serving import wait_for


@pytest.fixture
def previews(service: Service) -> Previews:
    return Previews(service.store, service.engine, service.learning, service.limits, max_tokens=8)


@pytest.fixture
def version(service: Service, maker: Maker) -> str:
    """A version of Ada's that speaks differently from the base."""
    made = maker.version(service.ada.id, service.store.versions.next_number(service.ada.id))
    service.store.versions.add(made, activate=True, update_state="promoted")
    return made.name


def finished(preview: Preview) -> Preview:
    """The preview, once both replies are there."""
    wait_for(lambda: preview.done)
    assert preview.error is None
    return preview


def test_both_answer_from_the_same_seed_and_nothing_is_kept(
    service: Service, previews: Previews, version: str, maker: Maker
) -> None:
    texts = list[list[str]]()
    for _ in range(4):  # a few words can be the same by chance
        preview = finished(previews.begin(service.ada, "Tell me about owls.", "base", version))
        assert previews.of(service.ada) is preview and preview.names == ["base", version]
        texts.append(preview.texts)
    assert all(map(all, texts)) and any(base != other for base, other in texts)
    assert service.store.chats.all_replies(service.ada.id) == []
    assert service.chat.list(service.ada) == [] and service.store.acts.events(service.ada.id) == []
    second = maker.version(service.ada.id, service.store.versions.next_number(service.ada.id))
    service.store.versions.add(second, activate=True, update_state="promoted")
    twins = finished(previews.begin(service.ada, "Tell me about owls.", version, second.name))
    assert previews.of(service.ada) is twins
    assert twins.texts[0] == twins.texts[1], "two versions with the same weights, from the same seed"
    previews.forget(service.ada.id)
    assert previews.of(service.ada) is None


def test_what_cannot_be_tried_is_said(service: Service, previews: Previews, version: str) -> None:
    def attempt(prompt: str, left: str, right: str, user: User = service.ada) -> None:
        previews.begin(user, prompt, left, right)

    with pytest.raises(InvalidInput, match="empty"):
        attempt(" ", "base", version)
    with pytest.raises(InvalidInput, match="two different"):
        attempt("Hello", version, version)
    with pytest.raises(InvalidInput):
        attempt("Hello", "base", "newest")
    with pytest.raises(NotFound):
        attempt("Hello", "base", "v99")
    with pytest.raises(NotFound):
        attempt("Hello", "base", version, service.bob)
    service.store.versions.mark(service.ada.id, int(version[1:]), "rejected")
    with pytest.raises(Conflict, match="never served"):
        attempt("Hello", "base", version)
    with pytest.raises(Conflict, match="never served"):
        previews.example(service.ada, version)
    with pytest.raises(InvalidInput):
        previews.example(service.ada, "base")
    assert previews.of(service.ada) is None


def test_a_versions_example_is_written_once(service: Service, previews: Previews, version: str) -> None:
    preview = previews.example(service.ada, version)
    assert preview is not None and preview.example_of == int(version[1:])
    finished(preview)
    (example,) = service.store.versions.examples(service.ada.id)[int(version[1:])]
    assert (example.prompt, [example.base_text, example.version_text]) == (EXAMPLE_PROMPT, preview.texts)
    assert previews.example(service.ada, version) is None


def test_an_example_of_a_version_that_went_meanwhile_is_not_kept(
    service: Service, previews: Previews, version: str
) -> None:
    preview = previews.example(service.ada, version)
    assert preview is not None
    service.store.versions.remove_all(service.ada.id)
    wait_for(lambda: preview.done)
    assert isinstance(preview.error, NotFound) and service.store.versions.examples(service.ada.id) == {}


def test_an_example_of_a_version_that_was_forgotten_meanwhile_is_not_kept(
    service: Service, previews: Previews, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = service.store.versions
    keep = versions.add_example

    def late(user_id: str, number: int, example: Example) -> None:
        assert [forgotten.name for forgotten in versions.forget(user_id, 0)] == [version]
        keep(user_id, number, example)

    monkeypatch.setattr(versions, "add_example", late)
    preview = previews.example(service.ada, version)
    assert preview is not None
    wait_for(lambda: preview.done)
    assert isinstance(preview.error, NotFound) and versions.examples(service.ada.id) == {}


@pytest.mark.parametrize("how", ["by the person", "by the engine"])
def test_an_example_that_was_stopped_is_not_kept_and_can_be_written_again(
    service: Service, previews: Previews, version: str, how: str
) -> None:
    patient = Previews(service.store, service.engine, service.learning, service.limits, max_tokens=400)
    preview = patient.example(service.ada, version)
    assert preview is not None
    if how == "by the person":
        preview.stop()
    else:
        service.engine.forget(service.ada.id)
    wait_for(lambda: preview.done, 30)
    assert preview.error is None and service.store.versions.examples(service.ada.id) == {}
    again = previews.example(service.ada, version)
    assert again is not None and all(finished(again).texts)
    assert len(service.store.versions.examples(service.ada.id)) == 1


def test_a_trial_can_be_stopped(service: Service, version: str) -> None:
    patient = Previews(service.store, service.engine, service.learning, service.limits, max_tokens=400)
    preview = patient.begin(service.ada, "Count as far as you can.", "base", version)
    wait_for(lambda: any(preview.texts))
    preview.stop()
    wait_for(lambda: preview.done, 30)
    assert preview.error is None


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"x" * 500)
    (tmp_path / "b" / "d").symlink_to("/etc")
    assert 1500 <= folder_bytes(tmp_path) < 1600
    assert folder_bytes(tmp_path / "nowhere") == 0
    assert size(3_400_000) == "3 MB" and size(25_300_000_000) == "25.3 GB"
