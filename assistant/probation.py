"""Trials of new versions: the person's own choices let one stay or take it back, with nobody's help.

What passes the gate is served from the next reply on, but on trial. On turns that may ask (asking.py), and when the
person compares two by themselves, its reply stands blind beside that of the version served before, drafts and
re-ranking the same on both sides, so that only the adapter differs. Which one they like better is a win or a loss.
Ties are dropped: what is left is a fair coin at best for a version that is no better, however often the person sees no
difference; counted as halves they would only make the count longer. They do count towards the end of the trial.

The rule, after every click that decides something:

    evidence of 10 that it loses more than it wins     taken back   (feedback/sequential.py; 5 of 5 lost, 11 of 13, …)
    evidence of 10 that it wins more than it loses     stays
    30 decided, or 60 shown                            taken back if it lost 6 more than it won, else stays

By Ville's inequality a version that is as good as the one before is taken back early with probability 1/10 at most, and
one that is as bad stays early with 1/10 at most, whenever one looks; with 30 comparisons it is 6%. The last line is
for the versions that are a little worse. There, asking for significance would keep two of three versions that win only
35%; what decides between equals costs nothing, so the line is drawn where the expected loss in wins is smallest for
versions of which one in five passed wrongly, as many as an earlier gate let through (LOG.md). Altogether a version
just as good is taken back in 20% of trials, one that wins 60% in 3%, one that wins 35% in 78%
(benchmarks/probation.py).

Somebody who is not asked to compare is judged by thumbs: each on a reply of the version, in the order given, is set
against one on a reply by the one before, given before the first of those, the newest first. Liked against disliked is a
win, the other way round a loss, and two alike are a tie (Wald 1947, "Sequential Analysis", on two double dichotomies).
So the same rule holds.

What a version is compared with is the last one that was not on trial itself, so a line of versions that each are a
little worse than the one before cannot creep in. For the same reason updates do not begin from a version on trial. A
newer version or the person's own choice ends a trial without a verdict; an update that starts meanwhile just goes on.

Left out on purpose: how replies are written for a duel (requests.py), and guesses from silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from feedback.sequential import evidence
from feedback.store import Store
from feedback.types import AdapterVersion, TrialEvent, User, now

EVIDENCE = 10.0  # 1/alpha of both sides
MOST_DECIDED, MOST_SHOWN = 30, 60
LOST_BY = 6  # at the end

Verdict = Literal["confirmed", "rolled back"]


@dataclass(frozen=True)
class Count:
    """What a person said of the version on trial beside the one before. ties: decided nothing."""

    wins: int = 0
    losses: int = 0
    ties: int = 0

    @property
    def decided(self) -> int:
        """How often one of the two was better."""
        return self.wins + self.losses

    def __add__(self, other: Count) -> Count:
        return Count(self.wins + other.wins, self.losses + other.losses, self.ties + other.ties)


@dataclass(frozen=True)
class Thumbs:
    """Thumbs up of all thumbs on the version's replies, and on as many as there are from before its trial."""

    liked: int = 0
    given: int = 0
    liked_before: int = 0
    given_before: int = 0


@dataclass(frozen=True)
class Standing:
    """A trial as it stands. against: None for the base; thumbs: where they are counted; count: all that counts."""

    number: int
    against: int | None
    asks: bool
    count: Count
    duels: Count
    thumbs: Thumbs | None

    @property
    def words(self) -> str:
        """How far it is, for the person who decides it."""
        if self.duels != Count():
            said = _compared(self.duels, self.against, won=True)
            return f"On trial: it {said} so far. Your choices decide whether it stays."
        if self.thumbs is not None and self.thumbs.given:
            return f"On trial: {_liked(self.thumbs, self.against)} so far. Your clicks decide whether it stays."
        if self.asks:
            other = _name(self.against)
            return f"On trial: now and then it will stand beside {other}. Your choices decide whether it stays."
        return "On trial: you are not asked to compare its replies. Your thumbs decide whether it stays."


def verdict(count: Count) -> Verdict | None:
    """What follows from so many wins, losses and ties; None while it is open."""
    if evidence(count.wins, count.losses) >= EVIDENCE:
        return "rolled back"
    if evidence(count.losses, count.wins) >= EVIDENCE:
        return "confirmed"
    if count.decided >= MOST_DECIDED or count.decided + count.ties >= MOST_SHOWN:
        return "rolled back" if count.losses - count.wins >= LOST_BY else "confirmed"
    return None


def standing(store: Store, user: User, base_id: str, asks: bool) -> Standing | None:
    """The person's trial under way, None without one. asks: whether the person lets Mynah ask for comparisons."""
    version = store.versions.active(user.id, base_id)
    if version is None or version.status != "probation":
        return None
    begun = store.trials.begun(user.id, version.number)
    assert begun is not None, "a version is entered on probation together with the beginning of its trial"
    judged = store.trials.judged(user.id, version.number)
    duels = sum((outcome(ranking, duel.reply_id, duel.other_id) for duel, ranking in judged), Count())
    if asks and any(duel.number == version.number for duel in store.trials.duels(user.id)):
        return Standing(version.number, begun.against, asks, duels, duels, None)
    counted, thumbs = _by_thumbs(store, user, version, begun)
    return Standing(version.number, begun.against, asks, duels + counted, duels, thumbs)


def settle(store: Store, user: User, base_id: str, asks: bool) -> str:
    """End the person's trial if it is decided; what to tell them, "" while nothing is. Within the click's transaction,
    so that a click and what it decides are on disk together."""
    trial = standing(store, user, base_id, asks)
    ended = verdict(trial.count) if trial else None
    if trial is None or ended is None:
        return ""
    count, words = trial.count, _told(trial, ended)
    event = TrialEvent(trial.number, ended, trial.against, count.wins, count.losses, count.ties, words, now())
    store.versions.end_trial(user.id, base_id, event)
    return words


def stories(store: Store, user: User, base_id: str, asks: bool) -> dict[int, str]:
    """How each version's trial ended, or stands, by version number; nothing of what was forgotten."""
    silent = {
        "replaced": "A newer version took its place before its trial was decided.",
        "left": "You ended its trial by choosing another version.",
    }
    gone = {version.number for version in store.versions.versions(user.id) if version.forgotten_at is not None}
    events = [each for each in store.trials.events(user.id) if each.number not in gone]
    told = {
        version.number: "It was brought from elsewhere and has learned nothing from your clicks."
        for version in store.versions.versions(user.id)
        if version.imported
    }
    told |= {each.number: each.words or silent.get(each.what, "") for each in events}
    if (open_trial := standing(store, user, base_id, asks)) is not None:
        told[open_trial.number] = open_trial.words
    return {number: words for number, words in told.items() if words}


def outcome(ranking: Mapping[str, Any], mine: str, other: str) -> Count:
    """What a ranking's payload says of two replies that it names."""
    place = {name: number for number, tier in enumerate(ranking["ranking"]) for name in tier}
    if place[mine] == place[other]:  # also when neither was good
        return Count(ties=1)
    return Count(wins=1) if place[mine] < place[other] else Count(losses=1)


def pair_thumbs(before: Sequence[bool], after: Sequence[bool]) -> Count:
    """Thumbs on the version's replies, oldest first, each against one from before, newest first.

    Those that find no partner decide nothing.
    """
    pairs = list(zip(before, after, strict=False))
    wins, losses = sum(b < a for b, a in pairs), sum(b > a for b, a in pairs)
    return Count(wins, losses, len(after) - wins - losses)


def _by_thumbs(store: Store, user: User, version: AdapterVersion, begun: TrialEvent) -> tuple[Count, Thumbs]:
    """Only replies chosen among drafts count, on both sides: so only the adapter differs."""
    mine = ("adapter+rerank", version.number)
    other = ("adapter+rerank", begun.against) if begun.against else ("rerank", None)
    before, after = list[bool](), list[bool]()
    for event in store.acts.live(user.id, "thumb"):
        ((arm, number),) = event.payload["by"].values()
        if not event.payload["thumb"]:
            continue
        if (arm, number) == mine:
            after.append(event.payload["thumb"] > 0)
        elif (arm, number) == other and not after:
            before.insert(0, event.payload["thumb"] > 0)
    used = before[: len(after)]
    return pair_thumbs(before, after), Thumbs(sum(after), len(after), sum(used), len(used))


def _told(trial: Standing, ended: Verdict) -> str:
    """The one sentence that says what happened and why."""
    back, duels, thumbs = ended != "confirmed", trial.duels, trial.thumbs
    liked = _liked(thumbs, trial.against) if thumbs is not None and thumbs.given else ""
    why = liked or "you saw no difference"
    if duels.decided:
        compared = _compared(duels, trial.against, won=not back)
        why = f"its replies {compared}; by your thumbs, {liked}" if liked else f"its replies {compared}"
    if back:
        return f"Version {trial.number} was taken back: {why}."
    if (liked or duels.decided) and evidence(trial.count.losses, trial.count.wins) < EVIDENCE:
        return f"Version {trial.number} stays, since it is not clearly worse: {why}."
    return f"Version {trial.number} stays: {why}."


def _compared(duels: Count, against: int | None, *, won: bool) -> str:
    name = _name(against)
    if won:
        said = f"won {duels.wins} of {duels.decided} comparisons with {name}"
    else:
        said = f"lost {duels.losses} of {duels.decided} comparisons with {name}"
    return f"{said} (and tied in {duels.ties})" if duels.ties else said


def _liked(thumbs: Thumbs, against: int | None) -> str:
    liked, given, name = thumbs.liked, thumbs.given, _name(against)
    if not thumbs.given_before:
        return f"you liked {liked} of {given} of its replies"
    before, of = thumbs.liked_before, thumbs.given_before
    return f"you liked {liked} of {given} of its replies and {before} of {of} of {name} before"


def _name(number: int | None) -> str:
    return f"version {number}" if number else "the base model"
