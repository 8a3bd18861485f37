"""Words that more than one page says. Whatever a person reads about arms, states and reasons comes from here."""

from __future__ import annotations

from datetime import datetime

from assistant.administration import COMMAND_LINE, FIRST_START
from assistant.ui.language import counted, say, template, told
from feedback.types import seconds_since

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
_SOME_VERSION = {
    "adapter": ("own version", "Written by your own version."),
    "adapter+rerank": (
        "own version · best of 16",
        "The draft that fits you best, out of several by your own version.",
    ),
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

UNTRAINED = "Nothing was trained: no version could have passed this check"

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
    "waiting": "not in use",
    "forgotten": "gone: it had learned from a click that was taken back",
}


def wrote(arm: str, version: int | None, *, some_version: bool = False) -> tuple[str, str]:
    """Which arm and version wrote a reply: in a few words, and in a sentence. some_version: whichever it is."""
    arms = _ARMS | _SOME_VERSION if some_version else _ARMS
    short, long = arms.get(arm, (arm, arm))
    name = f"v{version}" if version else say("base")
    return template(short).format(v=name), template(long).format(v=name)


def trait_title(name: str) -> str:
    """What a trait is about, in a few words. Its key says that it is one: “People” is also the list of accounts."""
    english = name.replace("_", " ").capitalize()
    return template(f"{english} [trait]").removesuffix(" [trait]")


def who(name: str) -> str:
    """Somebody in the audit log. A person's name is nobody's text, even where it is a word that these pages say."""
    nobody = name in (COMMAND_LINE, FIRST_START) or name.startswith("somebody who is gone (")
    return told(name) if nobody else name


def answers_with(name: str) -> str:
    """A version's name as it is said; the base has one in every language."""
    return say("base") if name == "base" else name


def ago(moment: str | None) -> str:
    """A stored time (ISO 8601 UTC) as people say it."""
    if not moment:
        return ""
    then, seconds = datetime.fromisoformat(moment), max(0.0, seconds_since(moment))
    if seconds < 60:
        return say("just now")
    if seconds >= 7 * 86_400:
        return say("{day} {month} {year}", day=then.day, month=told(f"{then:%b}"), year=then.year)
    if seconds >= 86_400:
        return counted(int(seconds // 86_400), "{count} day ago", "{count} days ago")
    if seconds >= 3_600:
        return counted(int(seconds // 3_600), "{count} hour ago", "{count} hours ago")
    return counted(int(seconds // 60), "{count} minute ago", "{count} minutes ago")


def duration(seconds: float | None) -> str:
    """Time left, roughly."""
    if seconds is None:
        return ""
    if seconds < 50:
        return say("less than a minute left")
    return counted(round(seconds / 60) or 1, "about {count} minute left", "about {count} minutes left")
