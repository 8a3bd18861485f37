"""Words that more than one page says. Whatever a person reads about arms, states and reasons comes from here."""

from __future__ import annotations

from datetime import UTC, datetime

UP_REASONS = ("clear", "right length", "good tone", "accurate", "useful")
DOWN_REASONS = ("too long", "too short", "not what I asked", "wrong", "tone", "unsafe")

TRY_THESE = (
    "How do I keep a sourdough starter alive?",
    "Explain inflation to a ten-year-old.",
    "Write a short thank-you note to a neighbour.",
    "What should I pack for three days in the mountains?",
)

_ARMS = {
    "base": ("base", "Written by the base model, as it came."),
    "context": ("base + your taste", "Written by the base model, told in words what you like."),
    "rerank": ("best of 16", "The draft that fits you best, out of several by the base model."),
    "adapter": ("{v}", "Written by your own version {v}."),
    "adapter+rerank": ("{v} · best of 16", "The draft that fits you best, out of several by your own version {v}."),
    "edit": ("yours", "As you corrected it."),
}

STATES = {
    "queued": "Waiting for its turn",
    "running": "Learning",
    "paused": "Paused, goes on by itself",
    "promoted": "Done: the new version is in use",
    "rejected": "Done: the new version did not pass its checks and is not used",
    "failed": "It failed",
    "cancelled": "Cancelled",
}

STAGES = {
    "": "Starting",
    "starting": "Starting",
    "pool": "Preparing the shared drafts (once for everybody)",
    "warm_start": "Learning from your clicks",
    "ppo": "Practising on fresh prompts",
    "gate": "Checking the result",
}

STATUSES = {
    "probation": "in use, on trial",
    "active": "in use",
    "retired": "replaced",
    "rejected": "not used",
    "rolled back": "taken back",
}


def wrote(arm: str, version: int | None) -> tuple[str, str]:
    """Which arm and version wrote a reply: in a few words, and in a sentence."""
    short, long = _ARMS.get(arm, (arm, arm))
    name = f"v{version}" if version else "base"
    return short.format(v=name), long.format(v=name)


def ago(moment: str | None) -> str:
    """A stored time (ISO 8601 UTC) as people say it."""
    if not moment:
        return ""
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    seconds = max(0.0, (datetime.now(UTC) - then).total_seconds())
    if seconds < 60:
        return "just now"
    if seconds >= 7 * 86_400:
        return f"{then.day} {then:%b %Y}"
    unit, length = next(pair for pair in (("day", 86_400), ("hour", 3_600), ("minute", 60)) if seconds >= pair[1])
    count = int(seconds // length)
    return f"{count} {unit}{'s' * (count > 1)} ago"


def duration(seconds: float | None) -> str:
    """Time left, roughly."""
    if seconds is None:
        return ""
    if seconds < 50:
        return "less than a minute left"
    minutes = round(seconds / 60) or 1
    return f"about {minutes} minute{'s' * (minutes > 1)} left"
