"""Everybody's reward heads, always those of the event log.

A head is fitted to all of a person's live acts, never moved from the last one: so what an act taught goes when it is
taken back, and a crash between an event and its refit loses nothing. Old acts fade at the rate that foretells new ones
best (feedback/fading.py), a function of the acts as well. No head is kept on disk: the first use after a start fits it
anew, to the same bits. Where a head begins is up to common.py; when that changes, the next use fits anew from there.
Left out on purpose: deciding what counts as an act (learning.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

from feedback.fading import BLOCK, NEVER, Foretold, half_life, weights
from feedback.foretelling import Split, split
from feedback.labels import act_of
from feedback.population import Population
from feedback.reward_head import Act, Array, Prior, RewardHead, fit, pulls
from feedback.store import Store

MANY = 100  # new acts from which on reading all of a person's is simpler than asking for each


@dataclass
class _Person:
    """What is kept in memory of one person; all of it can be made again from the store."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    head: RewardHead | None = None
    acts: dict[str, tuple[Act, bool]] = field(default_factory=dict)  # by feedback id, with "held out"
    prior: Prior | None = None  # that the head was fitted with
    half_life: float = NEVER  # of these acts, in acts
    foretold: Foretold = field(default_factory=dict)  # of these acts


class Heads:
    """One head a person, for one base."""

    def __init__(
        self,
        store: Store,
        base_id: str,
        population: Population,
        prior: Callable[[str], Prior] | None = None,
    ) -> None:
        """prior: what the head of a person (by id) begins with; that of the population when None."""
        self._store, self._base_id, self._population = store, base_id, population
        self._prior = prior or (lambda user_id: population.prior)
        self._people: dict[str, _Person] = {}
        self._guard = threading.Lock()

    @contextmanager
    def lock(self, user_id: str) -> Iterator[None]:
        """Within the block nobody else changes this person's acts: two clicks at once both count."""
        with self._person(user_id).lock:
            yield

    def head(self, user_id: str) -> RewardHead:
        """The person's head; that of the shared prior before the first act."""
        person = self._person(user_id)
        head, known, prior = person.head, person.prior, self._prior(user_id)
        if head is None or known is not prior:
            with person.lock:
                head = person.head if person.head is not None and person.prior is prior else self.refit(user_id)
        return head

    def acts(self, user_id: str) -> list[Act]:
        """The live acts the head was fitted to, oldest first."""
        with self.lock(user_id):
            self.head(user_id)
            return [act for act, _ in self._person(user_id).acts.values()]

    def pulls(self, user_id: str) -> tuple[list[str], Array]:
        """Feedback ids of the live acts, and how far each pulls each weight, (N, D)."""
        with self.lock(user_id):
            head, acts, counted = self.head(user_id), dict(self._person(user_id).acts), self._counted(user_id)
            prior = self._fitted_with(user_id)
        return list(acts), pulls(head, [act for act, _ in acts.values()], prior, counted)

    def began_with(self, user_id: str) -> Array:
        """The weights of the person's head before any act, (D,)."""
        return self._prior(user_id).mean

    def fades(self, user_id: str) -> bool:
        """Whether older acts count less: the person's taste seems to have changed."""
        with self.lock(user_id):
            self.head(user_id)
            return self._person(user_id).half_life < NEVER

    def split(self, user_id: str) -> Split:
        """The person's heads for an update."""
        with self.lock(user_id):
            self.head(user_id)
            pairs, counted = list(self._person(user_id).acts.values()), self._counted(user_id)
            prior = self._fitted_with(user_id)
        return split([act for act, _ in pairs], [held for _, held in pairs], prior, counted)

    def refit(self, user_id: str) -> RewardHead:
        """Fit to what is live now. Acts that were there before are not decoded again."""
        person = self._person(user_id)
        with person.lock:
            live = self._store.acts.live_labels(user_id)
            new = [feedback_id for feedback_id in live if feedback_id not in person.acts]
            decoded = {
                preference.feedback_id: (
                    act_of(preference, self._population, same_base=base == self._base_id),
                    preference.held_out,
                )
                for preference, base in self._store.acts.preferences(user_id, new if len(new) < MANY else None)
            }
            prior = self._prior(user_id)
            if person.prior is not prior:
                person.prior, person.foretold = prior, {}
            as_before = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(person.acts, live, strict=False)))
            person.foretold = {at: found for at, found in person.foretold.items() if at + BLOCK <= as_before}
            person.acts = {name: person.acts.get(name) or decoded[name] for name in live}
            acts = [act for act, _ in person.acts.values()]
            person.half_life = half_life(acts, prior, person.foretold)
            person.head = head = fit(acts, prior, self._counted(user_id))
            return head

    def forget(self, user_id: str) -> None:
        """Drop what is cached of a person who was removed."""
        with self._guard:
            self._people.pop(user_id, None)

    def _fitted_with(self, user_id: str) -> Prior:
        """What a person's head, which is there, was fitted with."""
        return self._person(user_id).prior or self._prior(user_id)

    def _counted(self, user_id: str) -> Array:
        """What each of a person's acts counts."""
        person = self._person(user_id)
        return weights(len(person.acts), person.half_life)

    def _person(self, user_id: str) -> _Person:
        with self._guard:
            return self._people.setdefault(user_id, _Person())
