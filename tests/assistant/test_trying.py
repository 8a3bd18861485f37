"""Two versions side by side, with the real model: what is written, what is kept (nothing), and a version's example."""

from __future__ import annotations

from pathlib import Path

import pytest

from assistant.trying import EXAMPLE_PROMPT, Trial, Trials
from assistant.usage import folder_bytes, size
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.types import User
from tests.assistant.conftest import Maker, Service
from tests.assistant.serving import wait_for


@pytest.fixture
def trials(service: Service) -> Trials:
    return Trials(service.store, service.engine, service.learning, max_tokens=8)


@pytest.fixture
def version(service: Service, maker: Maker) -> str:
    """A version of Ada's that speaks differently from the base."""
    made = maker.version(service.ada.id, service.store.versions.next_number(service.ada.id))
    service.store.versions.add(made, activate=True, update_state="promoted")
    return made.name


def finished(trial: Trial) -> Trial:
    """The trial, once both replies are there."""
    wait_for(lambda: trial.done)
    assert trial.error is None
    return trial


def test_both_answer_from_the_same_seed_and_nothing_is_kept(
    service: Service, trials: Trials, version: str, maker: Maker
) -> None:
    texts = list[list[str]]()
    for _ in range(4):  # a few words can be the same by chance
        trial = finished(trials.begin(service.ada, "Tell me about owls.", "base", version))
        assert trials.of(service.ada) is trial and trial.names == ["base", version]
        texts.append(trial.texts)
    assert all(map(all, texts)) and any(base != other for base, other in texts)
    assert service.store.chats.all_replies(service.ada.id) == []
    assert service.chat.list(service.ada) == [] and service.store.acts.events(service.ada.id) == []
    second = maker.version(service.ada.id, service.store.versions.next_number(service.ada.id))
    service.store.versions.add(second, activate=True, update_state="promoted")
    twins = finished(trials.begin(service.ada, "Tell me about owls.", version, second.name))
    assert trials.of(service.ada) is twins
    assert twins.texts[0] == twins.texts[1], "two versions with the same weights, from the same seed"
    trials.forget(service.ada.id)
    assert trials.of(service.ada) is None


def test_what_cannot_be_tried_is_said(service: Service, trials: Trials, version: str) -> None:
    def attempt(prompt: str, left: str, right: str, user: User = service.ada) -> None:
        trials.begin(user, prompt, left, right)

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
        trials.example(service.ada, version)
    with pytest.raises(InvalidInput):
        trials.example(service.ada, "base")
    assert trials.of(service.ada) is None


def test_a_versions_example_is_written_once(service: Service, trials: Trials, version: str) -> None:
    trial = trials.example(service.ada, version)
    assert trial is not None and trial.example_of == int(version[1:])
    finished(trial)
    (example,) = service.store.versions.examples(service.ada.id)[int(version[1:])]
    assert (example.prompt, [example.base_text, example.version_text]) == (EXAMPLE_PROMPT, trial.texts)
    assert trials.example(service.ada, version) is None


def test_an_example_of_a_version_that_went_meanwhile_is_not_kept(
    service: Service, trials: Trials, version: str
) -> None:
    trial = trials.example(service.ada, version)
    assert trial is not None
    service.store.versions.remove_all(service.ada.id)
    wait_for(lambda: trial.done)
    assert isinstance(trial.error, NotFound) and service.store.versions.examples(service.ada.id) == {}


def test_a_trial_can_be_stopped(service: Service, version: str) -> None:
    patient = Trials(service.store, service.engine, service.learning, max_tokens=400)
    trial = patient.begin(service.ada, "Count as far as you can.", "base", version)
    wait_for(lambda: any(trial.texts))
    trial.stop()
    wait_for(lambda: trial.done, 30)
    assert trial.error is None


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"x" * 500)
    (tmp_path / "b" / "d").symlink_to("/etc")
    assert 1500 <= folder_bytes(tmp_path) < 1600
    assert folder_bytes(tmp_path / "nowhere") == 0
    assert size(3_400_000) == "3 MB" and size(25_300_000_000) == "25.3 GB"
