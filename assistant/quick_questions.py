"""Quick questions: answers to some of them teach a head before its person has chatted at all.

    pair = questions.next(user)                                     # two ready replies (feedback/elicitation.py)
    ack = questions.answer(user, "e07", 0, 3, "left")               # in the head, as any other comparison

An answer is a comparison that the person brings: it can be taken back, is forgotten and exported like one. Each
question comes once, answered or skipped; which ones came is one of the person's settings. Starting over brings all of
them back.
"""

from __future__ import annotations

from typing import Any

from assistant.learning import Ack, Learning
from feedback.elicitation import Elicitation, Pair, load_questions
from feedback.errors import NotFound
from feedback.population import Population
from feedback.store import Store
from feedback.types import User

ENOUGH = 10  # answers that already choose better replies: what the page asks for
_ASKED = "quick_questions"
PICKS: dict[str, list[list[int]]] = {"left": [[0], [1]], "right": [[1], [0]], "tie": [[0, 1]]}


class QuickQuestions:
    """Which pair comes next, and what becomes of the answer."""

    def __init__(self, store: Store, learning: Learning, population: Population) -> None:
        self._people, self._learning = store.people, learning
        self._elicitation = Elicitation(population)
        self._known = {question.id: question for question in load_questions()}

    def asked(self, user: User) -> list[str]:
        """Ids of the questions that were answered or skipped, in that order."""
        return (self._people.setting(user.id, _ASKED) or "").split()

    def left(self, user: User) -> int:
        """How many have not come yet."""
        return len(self._known) - len(self.asked(user))

    def next(self, user: User) -> Pair | None:
        """The pair whose answer would teach most now; None when every question has come."""
        return self._elicitation.most_telling(self._learning.head(user.id), self.asked(user))

    def answer(self, user: User, question_id: str, left: float, right: float, pick: str) -> Ack | None:
        """Learn which of two replies somebody likes better: `left`, `right` or `tie`.

        left, right: places among the question's replies, as they were shown. None where the question came already, on
        another page for instance. Raises NotFound for what no question of ours has.
        """
        question = self._known.get(question_id)
        places = range(len(question.replies)) if question else range(0)
        if question is None or left not in places or right not in places or left == right or pick not in PICKS:
            raise NotFound("There is no such question; reload the page.")
        if not self._claim(user, question_id):
            return None
        item: dict[str, Any] = {
            "messages": [{"role": "user", "content": question.prompt}],
            "replies": [question.replies[int(place)] for place in (left, right)],
            "ranking": PICKS[pick],
        }
        try:
            (ack,) = self._learning.bring(user, item)
        except BaseException:
            with self._learning.alone(user):
                self._set(user, [each for each in self.asked(user) if each != question_id])
            raise
        return ack

    def skip(self, user: User, question_id: str) -> None:
        """Let a question not come again. Raises NotFound for one that is not ours."""
        if question_id not in self._known:
            raise NotFound("There is no such question; reload the page.")
        self._claim(user, question_id)

    def begin_again(self, user: User) -> None:
        """Let all of them come again."""
        self._set(user, [])

    def _claim(self, user: User, question_id: str) -> bool:
        """Whether the question had not come yet; from now on it has."""
        with self._learning.alone(user):
            asked = self.asked(user)
            if question_id in asked:
                return False
            self._set(user, [*asked, question_id])
            return True

    def _set(self, user: User, asked: list[str]) -> None:
        self._people.set(user.id, _ASKED, " ".join(asked))
