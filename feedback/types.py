"""Records that travel between the store and everything above it. Frozen: a change is a new row."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal

ArmName = Literal["base", "context", "rerank", "adapter", "adapter+rerank"]
ARMS: tuple[ArmName, ...] = ("base", "context", "rerank", "adapter", "adapter+rerank")

UpdateState = Literal["queued", "running", "paused", "promoted", "rejected", "failed", "cancelled"]
LIVE_STATES: tuple[UpdateState, ...] = ("queued", "running", "paused")
VersionStatus = Literal["probation", "active", "retired", "rejected", "rolled back"]
TrialEnd = Literal["confirmed", "rolled back", "replaced", "left"]

FeedbackKind = Literal["thumb", "ranking", "edit", "correction"]


AHEAD = 86_400.0  # seconds by which a clock may be put back before what was opened since counts as expired


def new_id(prefix: str) -> str:
    """An opaque id; the prefix only helps whoever reads logs."""
    return f"{prefix}_{secrets.token_hex(9)}"


def wall() -> datetime:
    """The wall clock, in UTC. It is read here alone, and it may jump: what must come one after the other is ordered by
    numbers, what must last so long is measured by `time.monotonic`."""
    return datetime.now(UTC)


def local_time() -> time:
    """The time of day where the server stands."""
    return wall().astimezone().time()


def now() -> str:
    """The time in UTC as ISO 8601 with microseconds."""
    return stamp(wall())


def after(seconds: float) -> str:
    """The time so many seconds from now, as it is kept; before now, where they are negative."""
    return stamp(wall() + timedelta(seconds=seconds))


def seconds_since(moment: str) -> float:
    """Seconds since a time that was kept; negative for one that has not come yet, or when the clock was put back."""
    return (wall() - datetime.fromisoformat(moment)).total_seconds()


def stamp(at: datetime) -> str:
    """A time in UTC as it is kept, such that later times sort behind earlier ones."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class User:
    """A person with an account. The id never changes; a name that returns after a deletion is a new id."""

    id: str
    name: str
    admin: bool
    disabled: bool
    created_at: str


@dataclass(frozen=True)
class ApiKey:
    """A key as it may be shown again: without its secret."""

    id: str
    hint: str
    created_at: str
    used_at: str | None


@dataclass(frozen=True)
class Invitation:
    """A link that lets one person make an account. Its secret is known only to whoever was given the link."""

    id: str
    note: str
    invited_by: str
    created_at: str
    expires_at: str


@dataclass(frozen=True)
class AuditEntry:
    """Something an admin did. admin: a user id, or words for who acts without an account; subject: a user id or "".

    Names are not kept: they are looked up when the log is shown, so that a deleted person's name is nowhere.
    """

    number: int
    at: str
    admin: str
    action: str
    subject: str
    details: dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """One thread of messages in the browser."""

    id: str
    user_id: str
    title: str
    system: str
    learn: bool
    created_at: str
    updated_at: str
    archived: bool = False
    deleted_at: str | None = None  # until it is really gone, it can be brought back


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; an assistant's turn points to the reply it shows.

    parent_id: the message it follows. Messages of a person with the same parent are versions of one question, each with
    a branch of its own; position counts from the start of the branch.
    """

    id: str
    conversation_id: str
    position: int
    role: Literal["user", "assistant"]
    content: str
    reply_id: str | None
    parent_id: str | None = None


@dataclass(frozen=True)
class Found:
    """A conversation in which something was found. message_id: the newest message that has it, "" for the title."""

    conversation: Conversation
    message_id: str
    text: str


@dataclass(frozen=True)
class Reply:
    """One reply and everything it was made with.

    prompt: the messages it answers; latent: latent features (float64 bytes); baseline: mean feature row of the base
    drafts it was chosen from, where there were any (float64 bytes); group_id: replies to one prompt share it.
    source: "chat" (written here), "import" (brought by the person), "edit" (a reply as the person would have it),
    "kept" (of a chat that was deleted, for the feedback about it).
    """

    id: str
    user_id: str
    conversation_id: str | None
    group_id: str
    prompt: list[dict[str, str]]
    text: str
    arm: str
    version: int | None
    base_id: str
    sampling: dict[str, Any]
    seed: int
    token_ids: bytes
    ended: bool
    learn: bool
    source: Literal["chat", "import", "edit", "kept"]
    latent: bytes
    created_at: str


@dataclass(frozen=True)
class Feedback:
    """One act as the person gave it. Append-only; taking it back sets `retracted_at` and empties `payload`."""

    id: str
    user_id: str
    kind: FeedbackKind
    payload: dict[str, Any]
    created_at: str
    retracted_at: str | None


@dataclass(frozen=True)
class Preference:
    """A live act in feature space, ready for the reward head.

    population: version of the shared prior that scaled the features; held_out: kept from the head that PPO learns from.
    """

    feedback_id: str
    seq: int
    kind: Literal["ranking", "thumb", "correction"]
    tiers: tuple[tuple[int, ...], ...]
    thumb: int
    value: float
    rows: int
    features: bytes
    held_out: bool
    population: str


@dataclass(frozen=True)
class Update:
    """One personalization update, from request to verdict."""

    id: str
    user_id: str
    base_id: str
    state: UpdateState
    trigger: Literal["asked", "automatic"]
    seed: int
    parent: int | None
    first_label: int
    last_label: int
    config: dict[str, Any]
    progress: float
    eta_seconds: float | None
    metrics: dict[str, Any]
    gate: list[dict[str, Any]]
    version: int | None
    reason: str
    created_at: str
    started_at: str | None
    finished_at: str | None


@dataclass(frozen=True)
class AdapterVersion:
    """An immutable adapter of one person. `first_label`..`last_label` are the acts (by `seq`) it learned from.

    forgotten_at: when one of them was taken back, and the weights were deleted; None while it may be served.
    """

    user_id: str
    number: int
    base_id: str
    status: VersionStatus
    parent: int | None
    update_id: str | None
    first_label: int
    last_label: int
    seed: int
    config: dict[str, Any]
    metrics: dict[str, Any]
    gate: list[dict[str, Any]]
    manifest_sha256: str
    created_at: str
    forgotten_at: str | None = None

    @property
    def name(self) -> str:
        """The name used everywhere outside: v1, v2, …"""
        return f"v{self.number}"

    @property
    def imported(self) -> bool:
        """Whether it was brought from elsewhere, not trained here."""
        return "imported" in self.config

    def unusable(self, base_id: str) -> str:
        """Why it can never be served on this base, in a sentence; "" when it can."""
        if self.forgotten_at is not None:
            return f"{self.name} had learned from a click that was taken back, so it is gone; choose another version."
        if self.status == "rejected":
            return f"{self.name} did not pass the gate and is never served."
        if self.base_id != base_id:
            return f"{self.name} belongs to the base {self.base_id}; now serving {base_id}."
        return ""


@dataclass(frozen=True)
class Example:
    """What the base and a version wrote to the same prompt from the same seed."""

    prompt: str
    base_text: str
    version_text: str
    seed: int
    created_at: str


@dataclass(frozen=True)
class TrialEvent:
    """The beginning or the end of a version's trial. Append-only.

    against: the version it is compared with, None for the base; wins, losses, ties: of its replies, as counted at the
    end; words: what the person was told.
    """

    number: int
    what: Literal["begun"] | TrialEnd
    against: int | None
    wins: int
    losses: int
    ties: int
    words: str
    at: str


@dataclass(frozen=True)
class Duel:
    """Two replies shown blind side by side: one of the version on trial, the other without it."""

    number: int
    reply_id: str
    other_id: str
    created_at: str
