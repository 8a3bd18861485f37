"""Quick questions: each comes once, an answer is a click like any other, and starting over brings them back."""

from __future__ import annotations

import threading

import pytest

from assistant.learning import Learning
from assistant.quick_questions import QuickQuestions
from feedback.elicitation import load_questions
from feedback.errors import InvalidInput, NotFound
from feedback.types import User
from tests.assistant.conftest import Service
from tests.assistant.test_learning import taste


@pytest.fixture
def questions(service: Service) -> QuickQuestions:
    return QuickQuestions(service.store, service.learning, service.engine.population)


def answer_next(questions: QuickQuestions, user: User, pick: str = "left") -> str:
    pair = questions.next(user)
    assert pair is not None
    assert questions.answer(user, pair.question.id, pair.left, pair.right, pick) is not None
    return pair.question.id


def test_an_answer_is_a_click(service: Service, questions: QuickQuestions) -> None:
    learning, ada = service.learning, service.ada
    pair = questions.next(ada)
    assert pair is not None
    ack = questions.answer(ada, pair.question.id, pair.left, pair.right, "right")
    assert ack is not None and ack.labels == 1
    (preference, _) = service.store.acts.preferences(ada.id)[0]
    assert preference.tiers == ((0,), (1,))
    (best, worst) = service.store.chats.all_replies(ada.id)
    liked = {best.text, worst.text}
    assert liked == set(pair.texts)
    event = service.store.acts.events(ada.id)[0]
    named = {reply.id: reply.text for reply in (best, worst)}
    assert [named[tier[0]] for tier in event.payload["ranking"]] == pair.texts[::-1]
    assert learning.head(ada.id).labels == 1 and learning.head(service.bob.id).labels == 0
    learning.retract(ada, ack.feedback_id)
    assert learning.head(ada.id).labels == 0
    assert questions.asked(ada) == [pair.question.id], "what was taken back does not come again"


def test_each_question_comes_once(service: Service, questions: QuickQuestions) -> None:
    ada, seen = service.ada, set[str]()
    while (pair := questions.next(ada)) is not None:
        assert pair.question.id not in seen
        seen.add(pair.question.id)
        questions.skip(ada, pair.question.id)
    assert len(seen) == len(load_questions()) and service.learning.head(ada.id).labels == 0
    assert questions.next(service.bob) is not None
    questions.begin_again(ada)
    assert questions.next(ada) is not None


def test_answers_lead_to_other_questions(service: Service, questions: QuickQuestions) -> None:
    """Everybody is asked the same at first; what comes then is a matter of what was said."""
    ada, bob = service.ada, service.bob
    assert questions.next(ada) == questions.next(bob)
    courses = [
        [answer_next(questions, who, pick) for pick in picks]
        for who, picks in ((ada, ["left"] * 8), (bob, ["tie", "right", "left", "tie"] * 2))
    ]
    assert courses[0] != courses[1]
    assert taste(service.learning, ada) != taste(service.learning, bob)


def test_two_pages_count_an_answer_once(service: Service, questions: QuickQuestions) -> None:
    pair = questions.next(service.ada)
    assert pair is not None
    acks: list[object] = []

    def press() -> None:
        acks.append(questions.answer(service.ada, pair.question.id, pair.left, pair.right, "left"))

    threads = [threading.Thread(target=press) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ack is not None for ack in acks) == 1
    assert service.learning.head(service.ada.id).labels == 1


@pytest.mark.parametrize(
    ("question", "left", "right", "pick"),
    [
        ("e99", 0, 1, "left"),
        ("e01", 0, 0, "left"),
        ("e01", 0, 9, "left"),
        ("e01", -1, 1, "left"),
        ("e01", 0.5, 1, "left"),
        ("e01", float("nan"), 1, "left"),
        ("e01", 0, float("inf"), "left"),
        ("e01", 0, 1, "neither"),
    ],
)
def test_what_no_question_of_ours_has(
    service: Service, questions: QuickQuestions, question: str, left: float, right: float, pick: str
) -> None:
    with pytest.raises(NotFound, match="reload"):
        questions.answer(service.ada, question, left, right, pick)
    assert questions.asked(service.ada) == [] and service.learning.head(service.ada.id).labels == 0


def test_an_answer_that_could_not_be_kept_can_be_given_again(
    service: Service, questions: QuickQuestions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = questions.next(service.ada)
    assert pair is not None

    def fails(self: Learning, user: User, items: object) -> None:
        raise InvalidInput("The disk is full.")

    with monkeypatch.context() as patch, pytest.raises(InvalidInput):
        patch.setattr(Learning, "bring", fails)
        questions.answer(service.ada, pair.question.id, pair.left, pair.right, "left")
    assert questions.next(service.ada) == pair
    answer_next(questions, service.ada)
