"""Acts of feedback: checked, on disk, in the head; and what the head then says.

    ack = learning.thumb(user, reply_id, 1)         # event on disk first, then the refit, in this one call
    learning.head(user.id)                          # what the next reply is chosen by

Left out on purpose: guesses from silence (reading time, copying), and anything about how a reply is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from adapters.rendering import ChatMessage
from assistant.arms import Record, record_of_acts
from assistant.asking import Asking
from assistant.common import CommonTaste
from assistant.engine import Draft, Engine
from assistant.evidence import Click, clicks_behind
from assistant.forgetting import delete_weights, unlearn
from assistant.heads import Heads
from assistant.imports import Brought, check_brought
from assistant.messages import check_text
from assistant.probation import settle
from assistant.profile import STRONGEST, TraitView, changed_line, profile_of
from feedback import labels
from feedback.errors import Conflict, InvalidInput
from feedback.foretelling import Split
from feedback.reward_head import RewardHead
from feedback.store import Store
from feedback.traits import TRAIT_NAMES
from feedback.types import AdapterVersion, FeedbackKind, Reply, User

MAX_COMMENT, MAX_REASONS, MAX_REASON = 2000, 10, 200
READ_AT_MOST = 32  # texts a call whose latent features are computed; of more, the named traits alone are learned
MAX_SCORED = 64
DECIDING: tuple[FeedbackKind, ...] = ("ranking", "thumb")  # what the trial of a version counts (probation.py)


@dataclass(frozen=True)
class Ack:
    """What came of an act. labels: the person's total; head_ms: from the act to the refitted head, disk included.

    moved: what did, in plain words, empty when nothing much did; trial: how that of a version ended, if the click
    decided it; gone: which versions went with what was taken back, in sentences; reply_id: the edited reply, after
    an edit.
    """

    feedback_id: str
    labels: int
    head_ms: float
    moved: str
    reply_id: str = ""
    trial: str = ""
    gone: tuple[str, ...] = ()

    @property
    def changed(self) -> str:
        """All that there is to say, in one line."""
        return " ".join(part for part in (self.trial, *self.gone, self.moved) if part)


class Learning:
    """From what people say to what their heads know."""

    def __init__(self, store: Store, engine: Engine, common: CommonTaste | None = None) -> None:
        """common: where heads begin; that of the shipped prior when None."""
        self._store, self._engine = store, engine
        self._population = engine.population
        labels.remake_preferences(store, engine.population)
        self._heads = Heads(store, engine.base_id, engine.population, common.prior if common else None)
        self._asking = Asking(store)

    # ---- acts -----------------------------------------------------------------------------------------------------

    def thumb(self, user: User, reply_id: str, thumb: object, reasons: object = (), comment: object = "") -> Ack:
        """A thumb up (1) or down (-1) for a reply, in place of an earlier one; 0 takes it back."""
        if isinstance(thumb, bool) or not isinstance(thumb, int) or thumb not in (1, -1, 0):
            raise InvalidInput(f"thumb is {str(thumb)[:40]}; it can be 1, -1 or 0.", param="thumb")
        (reply,) = self._learnable(user, [reply_id])
        payload = {
            "reply_id": reply.id,
            "thumb": thumb,
            "reasons": _check_reasons(reasons),
            "comment": _check_comment(comment),
            "by": _written_by([reply]),
        }
        preference = labels.thumb_preference(reply, thumb, self._population) if thumb else None
        with self._heads.lock(user.id):
            earlier = [event.id for event in self._store.acts.live_for_reply(reply.id, "thumb")]
            ack, gone = self._keep(user, "thumb", payload, [reply.id], preference, earlier)
        return ack if thumb else self._without(user, ack, gone)

    def rank(self, user: User, tiers: object, verdict: object = None, comment: object = "") -> Ack:
        """A ranking of replies to one prompt, best first, in place of earlier ones of these replies.

        One tier is a tie; with verdict "neither" that tier is all bad.
        """
        ranking = labels.check_tiers(tiers)
        if verdict not in (None, "neither"):
            raise InvalidInput(f'verdict is {str(verdict)[:40]!r}; it can be "neither" or left out.', param="verdict")
        if verdict and len(ranking) > 1:
            raise InvalidInput('With "verdict": "neither" the ranking is one tier: all are bad.', param="verdict")
        names = [name for tier in ranking for name in tier]
        replies = self._learnable(user, names)
        if len({reply.group_id for reply in replies}) > 1:
            raise InvalidInput("The ranking names replies to different prompts; only replies to one prompt compare.")
        if verdict:
            preference = labels.neither_preference(replies, self._population)
        else:
            preference = labels.ranking_preference(replies, ranking, self._population)
        payload = {
            "ranking": ranking,
            "verdict": verdict,
            "comment": _check_comment(comment),
            "by": _written_by(replies),
        }
        with self._heads.lock(user.id):
            return self._keep(user, "ranking", payload, names, preference, self._rankings_within(names))[0]

    def edit(self, user: User, reply_id: str, text: object) -> Ack:
        """The text as it should have been, in place of an earlier edit of the same reply."""
        wanted = check_text(text, "The edited text", "edit")
        (reply,) = self._learnable(user, [reply_id])
        if wanted.strip() == reply.text.strip():
            raise InvalidInput("The edited text is the reply as it was; change something.", param="edit")
        messages = cast(list[ChatMessage], reply.prompt)
        (draft,) = self._engine.read(messages, [wanted], user_id=user.id)
        edited = draft.as_reply(
            user.id,
            messages,
            self._engine.base_id,
            source="edit",
            conversation_id=reply.conversation_id,
            arm="edit",
            version=reply.version,
        )
        payload = {"reply_id": reply.id, "edit": wanted, "edited_reply_id": edited.id}
        preference = labels.edit_preference(reply, edited, self._population)
        with self._heads.lock(user.id):
            live = self._store.acts.live_for_reply(reply.id, "edit")
            earlier = [event.id for event in live if event.payload["reply_id"] == reply.id]
            ack, _ = self._keep(user, "edit", payload, [reply.id, edited.id], preference, earlier, new=[edited])
        return replace(ack, reply_id=edited.id)

    def retract(self, user: User, feedback_id: str) -> Ack:
        """Take an act back: what it said is erased, what it taught forgotten, and versions that had learned from it
        are gone. Raises NotFound."""
        with self._heads.lock(user.id):
            before = self.profile(user)
            began = time.perf_counter()
            with self._store.database.transaction():
                seqs = self._seqs([feedback_id])
                self._store.acts.retract(user.id, feedback_id)
                gone, told = self._unlearned(user, seqs)
            ack = replace(self._ack(user, feedback_id, before, began), gone=tuple(told))
        return self._without(user, ack, gone)

    def bring(self, user: User, items: object) -> list[Ack]:
        """Preferences given elsewhere, one or a list: all are checked before any is kept; all are kept or none."""
        brought = check_brought(items)
        for number, item in enumerate(brought):
            try:
                self._engine.render(item.messages)
            except InvalidInput as error:
                raise InvalidInput(f"preferences[{number}]: {error.message}", param="messages") from error
        read = sum(len(item.texts) for item in brought) <= READ_AT_MOST
        drafts = [self._drafts(user.id, item.messages, item.texts, read=read) for item in brought]
        with self._heads.lock(user.id):
            before = self.profile(user)
            began = time.perf_counter()
            with self._store.database.transaction():
                events = [self._keep_brought(user, item, mine) for item, mine in zip(brought, drafts, strict=True)]
            ack = self._ack(user, events[-1], before, began)
        return [replace(ack, feedback_id=event) for event in events]

    def correct(self, user: User, name: object, weight: object) -> Ack:
        """Set a trait's weight by hand, -1 to 1 in the units of assistant/profile.py; None takes that back."""
        if name not in TRAIT_NAMES:
            raise InvalidInput(f"There is no trait {str(name)[:40]!r}; GET /v1/me/profile lists them.", param="name")
        level: float | None = None
        if weight is not None:
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not -1 <= weight <= 1:
                raise InvalidInput(f"weight is {str(weight)[:40]}; it can be -1 to 1, or null.", param="weight")
            level = float(weight)
        trait = str(name)
        preference = None
        if level is not None:
            preference = labels.correction_preference(trait, level * STRONGEST, self._population)
        with self._heads.lock(user.id):
            live = self._store.acts.live(user.id, "correction")
            earlier = [event.id for event in live if event.payload["name"] == trait]
            ack, gone = self._keep(user, "correction", {"name": trait, "weight": level}, [], preference, earlier)
        return self._without(user, ack, gone) if level is None else ack

    # ---- what is known --------------------------------------------------------------------------------------------

    def head(self, user_id: str) -> RewardHead:
        """The person's head; that of the shared prior before the first act."""
        return self._heads.head(user_id)

    def split_heads(self, user_id: str) -> Split:
        """The person's heads for an update."""
        return self._heads.split(user_id)

    def has_learned(self, user: User) -> bool:
        """Whether there is any live act, corrections included: from then on the head knows more than the prior."""
        return bool(self._heads.acts(user.id))

    def features(self, drafts: Sequence[Draft]) -> NDArray[np.float64]:
        """Feature rows of drafts, (N, D)."""
        return self._population.features([draft.text for draft in drafts], np.stack([draft.latent for draft in drafts]))

    def score(self, user: User, messages: Sequence[ChatMessage], texts: Sequence[object]) -> list[tuple[float, float]]:
        """Mean and sd of the head's view of texts as replies to a conversation, in logits of a click."""
        if not 1 <= len(texts) <= MAX_SCORED:
            raise InvalidInput(f"replies has {len(texts)} texts; it can have 1 to {MAX_SCORED}.", param="replies")
        checked = [check_text(text, f"replies[{place}]", "replies") for place, text in enumerate(texts)]
        self._engine.render(messages)
        drafts = self._drafts(user.id, messages, checked, read=len(checked) <= READ_AT_MOST)
        means, sds = self.head(user.id).score(self.features(drafts))
        return [(float(mean), float(sd)) for mean, sd in zip(means, sds, strict=True)]

    def profile(self, user: User) -> list[TraitView]:
        """What is known of the person's taste, in plain words, the best known first."""
        with self._heads.lock(user.id):
            head, acts = self.head(user.id), self._heads.acts(user.id)
            set_by_hand = {
                event.payload["name"]: event.payload for event in self._store.acts.live(user.id, "correction")
            }
        corrected = {
            name: float(payload["weight"]) for name, payload in set_by_hand.items() if payload["weight"] is not None
        }
        together = self._engine.population.together
        return profile_of(head, acts, corrected, together, self._heads.began_with(user.id))

    def fades(self, user: User) -> bool:
        """Whether older clicks count less, because the newest ones say something else."""
        return self._heads.fades(user.id)

    def behind(self, user: User) -> dict[str, list[Click]]:
        """The clicks behind each trait, what moved it most first."""
        return clicks_behind(self._store, user, *self._heads.pulls(user.id))

    def record(self, user: User, version: int | None = None) -> Record:
        """How the arms have done by this person's feedback.

        version: count the adapter's arms only where this version wrote.
        """
        rankings = [event.payload for event in self._store.acts.live(user.id, "ranking")]
        thumbs = [event.payload for event in self._store.acts.live(user.id, "thumb")]
        return record_of_acts(rankings, thumbs, version)

    def thumb_of(self, user: User, reply_id: str) -> int:
        """The thumb now given to a reply: 1, -1 or 0. Raises NotFound."""
        self._store.chats.replies(user.id, [reply_id])
        live = self._store.acts.live_for_reply(reply_id, "thumb")
        return int(live[-1].payload["thumb"]) if live else 0

    def cost_of_retracting(self, user: User, feedback_id: str) -> str:
        """The versions that would go if an act were taken back, "" for none."""
        seq = self._store.acts.first_seq(feedback_id)
        gone = [] if seq is None else self._store.versions.learned_from(user.id, seq)
        return ", ".join(version.name for version in gone)

    def alone(self, user: User) -> AbstractContextManager[None]:
        """Within the block nobody else changes what is known of this person."""
        return self._heads.lock(user.id)

    def forget(self, user_id: str) -> None:
        """Drop what is cached of a person who was removed, or starts over."""
        self._heads.forget(user_id)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _learnable(self, user: User, reply_ids: Sequence[str]) -> list[Reply]:
        """The person's own replies, as this base learns from them. Raises NotFound, and Conflict for one kept out of
        learning."""
        replies = self._store.chats.replies(user.id, reply_ids)
        for reply in replies:
            if not reply.learn:
                raise Conflict(f"Reply {reply.id} was asked for with learn: false, so it takes no feedback.")
        return labels.of_base(replies, self._engine.base_id)

    def _rankings_within(self, names: Sequence[str]) -> list[str]:
        """Live rankings that name none but these replies: the new one says all that they said."""
        found = {event.id: event for name in names for event in self._store.acts.live_for_reply(name, "ranking")}
        return [key for key, event in found.items() if set().union(*event.payload["ranking"]) <= set(names)]

    def _keep(
        self,
        user: User,
        kind: FeedbackKind,
        payload: Mapping[str, object],
        reply_ids: Sequence[str],
        preference: dict[str, Any] | None,
        supersedes: Sequence[str],
        new: Sequence[Reply] = (),
    ) -> tuple[Ack, list[AdapterVersion]]:
        """The event (and the replies it brings) on disk, then the refit; with the versions that are gone.

        An act without a preference takes back those it stands in the place of. The person's lock is held.
        """
        before = self.profile(user)
        began = time.perf_counter()
        base_id = self._engine.base_id
        with self._store.database.transaction():
            self._store.chats.add_replies(new)
            seqs = self._seqs(supersedes) if preference is None else []
            event, _ = self._store.acts.add(user.id, kind, dict(payload), reply_ids, base_id, preference, supersedes)
            gone, told_gone = self._unlearned(user, seqs)
            told = settle(self._store, user, base_id, self._asking.wanted(user)) if kind in DECIDING else ""
        ack = self._ack(user, event.id, before, began)
        return replace(ack, trial=told, gone=tuple(told_gone)), gone

    def _seqs(self, feedback_ids: Sequence[str]) -> list[int]:
        """The numbers of those acts that teach something, or of what they once replaced: a version may know that."""
        return [seq for name in feedback_ids if (seq := self._store.acts.first_seq(name)) is not None]

    def _unlearned(self, user: User, seqs: Sequence[int]) -> tuple[list[AdapterVersion], list[str]]:
        """Of what was taken back: the versions that are gone, and what to tell. What is common goes with it."""
        if not seqs:
            return [], []
        self._store.commons.leave(user.id)
        return unlearn(self._store, user.id, self._engine.base_id, min(seqs))

    def _without(self, user: User, ack: Ack, gone: Sequence[AdapterVersion]) -> Ack:
        """The same act, after no trace of what it took back is left in files. The person's lock is not held: the
        engine may be waiting for it."""
        delete_weights(self._engine, user.id, gone)
        self._store.database.leave_no_trace()
        return ack

    def _ack(self, user: User, feedback_id: str, before: Sequence[TraitView], began: float) -> Ack:
        """Refit, and say what came of it. The person's lock is held."""
        self._heads.refit(user.id)
        milliseconds = (time.perf_counter() - began) * 1000
        changed = changed_line(before, self.profile(user))
        return Ack(feedback_id, self._store.acts.label_count(user.id), milliseconds, changed)

    def _keep_brought(self, user: User, item: Brought, drafts: Sequence[Draft]) -> str:
        """Replies and event of one imported preference; the transaction is the caller's. A text that the ranking does
        not name teaches nothing and is not kept."""
        base_id = self._engine.base_id
        kept = [drafts[place] for tier in item.tiers for place in tier] or drafts
        replies = [draft.as_reply(user.id, item.messages, base_id, source="import", arm="import") for draft in kept]
        self._store.chats.add_replies(replies)
        payload: dict[str, Any]
        if item.thumb:
            preference = labels.thumb_preference(replies[0], item.thumb, self._population)
            payload = {
                "reply_id": replies[0].id,
                "thumb": item.thumb,
                "reasons": [],
                "comment": "",
                "by": _written_by(replies),
            }
            event, _ = self._store.acts.add(user.id, "thumb", payload, [replies[0].id], base_id, preference)
            return event.id
        ids = iter(reply.id for reply in replies)
        ranking = [list(islice(ids, len(tier))) for tier in item.tiers]
        preference = labels.ranking_preference(replies, ranking, self._population)
        payload = {"ranking": ranking, "verdict": None, "comment": "", "by": _written_by(replies)}
        event, _ = self._store.acts.add(
            user.id, "ranking", payload, [reply.id for reply in replies], base_id, preference
        )
        return event.id

    def _drafts(
        self, user_id: str, messages: Sequence[ChatMessage], texts: Sequence[str], *, read: bool
    ) -> list[Draft]:
        """Texts that were not written here, with latent features or without (0 says nothing)."""
        if read:
            return self._engine.read(messages, texts, user_id=user_id)
        nothing = np.zeros(self._population.latents)
        return [Draft(text, [], True, "stop", nothing, 0.0) for text in texts]


def _written_by(replies: Sequence[Reply]) -> dict[str, tuple[str, int | None]]:
    """Which arm and version wrote each reply, kept with the event for the record."""
    return {reply.id: (reply.arm, reply.version) for reply in replies}


def _check_comment(comment: object) -> str:
    return "" if comment in (None, "") else check_text(comment, "comment", "comment", limit=MAX_COMMENT)


def _check_reasons(reasons: object) -> list[str]:
    if reasons is None:
        return []
    if not isinstance(reasons, list | tuple) or len(reasons) > MAX_REASONS:
        raise InvalidInput(f"reasons must be a list of at most {MAX_REASONS} short texts.", param="reasons")
    return [check_text(reason, "A reason", "reasons", limit=MAX_REASON) for reason in reasons]
