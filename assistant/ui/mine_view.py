"""What the page "My assistant" shows, read from the services and put into templates. Nothing here changes anything."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from assistant.evidence import Click
from assistant.mynah import Mynah
from assistant.preview import Preview
from assistant.profile import TraitView
from assistant.quick_questions import ENOUGH
from assistant.schedule import MIN_LABELS
from assistant.ui.chat_view import draft_names
from assistant.ui.language import listed, say, told
from assistant.ui.record_rows import rows_of
from assistant.ui.render import show
from assistant.ui.words import trait_title
from feedback.common import LEAST
from feedback.traits import TRAITS
from feedback.types import LIVE_STATES, AdapterVersion, Update, User

SHOWN_TRAITS, LEAST_TRAITS = 8, 5
SHOWN_LIKES = 4
PARTED = " | "  # between the two halves of a stamp
CURVES = {"reward": "objective/scores", "kl": "objective/kl_per_token"}


@dataclass(frozen=True)
class TraitRow:
    """A trait with the clicks behind it, and where its bar and its uncertainty stand, in percent of the scale."""

    view: TraitView
    clicks: Sequence[Click]

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        return trait_title(self.view.name)

    @property
    def more(self) -> str:
        """The right end of the scale."""
        return told(TRAITS[self.view.name].more)

    @property
    def less(self) -> str:
        """The left end."""
        return told(TRAITS[self.view.name].less)

    @property
    def bar_left(self) -> float:
        """Where the bar begins."""
        return round(50 + 50 * min(self.view.weight, 0.0), 1)

    @property
    def bar_width(self) -> float:
        """How long it is."""
        return round(50 * abs(self.view.weight), 1)

    @property
    def low(self) -> float:
        """Where the uncertainty begins."""
        return round(50 + 50 * max(self.view.weight - self.view.sd, -1.0), 1)

    @property
    def doubt(self) -> float:
        """How wide it is."""
        return round(50 + 50 * min(self.view.weight + self.view.sd, 1.0) - self.low, 1)


@dataclass
class MineView:
    """Templates of the page for one person."""

    mynah: Mynah
    user: User

    @cached_property
    def updates(self) -> list[Update]:
        """The person's updates, newest first."""
        return self.mynah.store.versions.updates(self.user.id)

    @cached_property
    def versions(self) -> list[AdapterVersion]:
        """The person's versions, oldest first."""
        return self.mynah.store.versions.versions(self.user.id)

    @cached_property
    def labels(self) -> int:
        """How many there are."""
        return self.mynah.store.acts.label_count(self.user.id)

    def taste(self, said: str = "", opened: str = "") -> str:
        """What was learned. opened: the trait whose details stand open."""
        views, behind = self.mynah.learning.profile(self.user), self.mynah.learning.behind(self.user)
        sure = [view for view in views if view.corrected or view.leans]
        unsure = [view for view in views if view.evidence and view not in sure]
        lead = [*sure, *unsure[: max(0, LEAST_TRAITS - len(sure))]][:SHOWN_TRAITS]
        known = [told(view.preference) for view in views if view.known and not view.corrected][:3]
        beginning = say("It is beginning to see what you like.")
        summary = say("Most clearly, you like {likes}.", likes=listed(known)) if known else beginning
        costs = {
            click.feedback_id: self.mynah.learning.cost_of_retracting(self.user, click.feedback_id)
            for clicks in behind.values()
            for click in clicks
        }
        return show(
            "taste.html",
            costs=costs,
            labels=self.labels,
            fades=self.mynah.learning.fades(self.user),
            corrected=any(view.corrected for view in views),
            summary=summary,
            said=said,
            opened=opened,
            questions=self.mynah.questions.left(self.user) > 0,
            shown=[TraitRow(view, behind[view.name]) for view in lead],
            rest=[TraitRow(view, behind[view.name]) for view in views if view not in lead],
        )

    def questions(self, said: str = "", *, going: bool = False) -> str:
        """The quick questions: the next one when they are `going`, else the way to them for who is new here."""
        asked, pair = len(self.mynah.questions.asked(self.user)), self.mynah.questions.next(self.user)
        places = (pair.left, pair.right) if pair else ()
        if random.SystemRandom().random() < 0.5:  # so that what stands left is not liked for that
            places = places[::-1]
        texts = [pair.question.replies[place] for place in places] if pair else []
        return show(
            "questions.html",
            said=said,
            question=pair.question if pair else None,
            drafts=list(zip(draft_names(2), texts, strict=True)) if pair and going else [],
            places=places,
            asked=asked,
            enough=self.labels >= ENOUGH,
            invited=pair is not None and self.labels < ENOUGH,
        )

    def stamp(self) -> str:
        """What differs when the page has something new to show: about the update, and about versions and the record."""
        forecast = self.mynah.updates.forecast(self.user)
        shown = [[u.id, u.state, u.progress, u.metrics.get("stage"), u.version] for u in self.updates[:1]]
        active = self.mynah.active(self.user)
        forgotten = sum(version.forgotten_at is not None for version in self.versions)
        kept = [self.labels, active.number if active else 0, len(self.versions), forgotten]
        return f"{json.dumps([*shown, forecast.when, self.labels])}{PARTED}{json.dumps(kept)}"

    def update(self) -> str:
        """The next update, the one under way, and how the last one ended."""
        live, last = self.live, self.last
        return show(
            "update.html",
            live=live,
            last=last,
            stage=str(live.metrics.get("stage", "")) if live else "",
            forecast=self.mynah.updates.forecast(self.user),
            labels=self.labels,
            least=MIN_LABELS,
            missing=max(0, MIN_LABELS - self.labels),
            curves=all(len(points) > 1 for points in self.curves()),
        )

    @property
    def live(self) -> Update | None:
        """The update under way."""
        return next((update for update in self.updates if update.state in LIVE_STATES), None)

    @property
    def last(self) -> Update | None:
        """The last one that ended."""
        return next((update for update in self.updates if update.state not in LIVE_STATES), None)

    def curves(self) -> list[pd.DataFrame]:
        """Reward and KL of the update under way, or of the last one."""
        return [curve(self.live or self.last, name) for name in CURVES]

    def timeline(self, said: str = "", opened: str = "") -> str:
        """The versions, newest first. opened: the version whose example stands open."""
        active, preview = self.mynah.active(self.user), self.mynah.previews.of(self.user)
        return show(
            "versions.html",
            versions=list(reversed(self.versions)),
            active=active.name if active else "base",
            base_id=self.mynah.engine.base_id,
            trials=self.mynah.trials_told(self.user),
            examples=self.mynah.store.versions.examples(self.user.id),
            writing=preview.example_of if preview and not preview.done else None,
            said=said,
            opened=opened,
        )

    def choices(self) -> list[str]:
        """What can be tried: versions that may be served, newest first, and the base."""
        base_id = self.mynah.engine.base_id
        good = [each.name for each in self.versions if not each.unusable(base_id)]
        return [*reversed(good), "base"]

    def try_form(self) -> str:
        """The prompt box for two versions side by side."""
        return show("try.html", choices=self.choices())

    def tried(self) -> str:
        """The two replies as they grow; empty before the first, and while a version's example is written."""
        preview: Preview | None = self.mynah.previews.of(self.user)
        return show("tried.html", preview=preview) if preview and preview.example_of is None else ""

    def record(self) -> str:
        """How each way of answering has done."""
        arm, version = self.mynah.chat.served(self.user)
        return show(
            "record.html",
            title=say("How each way of answering does with you"),
            rows=rows_of(self.mynah.learning.record(self.user), version),
            served=arm,
            empty=say("Compare two replies now and then: here you will see which way of answering wins for you."),
        )

    def account(self, *, said: str = "", secret: str = "", receipt: str = "") -> str:
        """Keys, password, data."""
        given = {"user": self.user, "said": said, "secret": secret, "receipt": receipt}
        if receipt:  # the person is gone
            return show("account.html", **given)
        found, likes = self.mynah.common.found(), [told(each) for each in self.mynah.common.likes()[:SHOWN_LIKES]]
        return show(
            "account.html",
            keys=self.mynah.accounts.keys(self.user),
            shares=self.mynah.common.shares(self.user),
            begins=self.mynah.common.begins(self.user),
            people=len(found.user_ids) if found else 0,
            likes=listed(likes) if likes else "",
            least=LEAST,
            **given,
        )


def curve(update: Update | None, name: str) -> pd.DataFrame:
    """One metric of an update over its steps, as the plot takes it."""
    steps = update.metrics.get("steps", []) if update else []
    values = [round(float(step[CURVES[name]]), 4) for step in steps if step.get(CURVES[name]) is not None]
    return pd.DataFrame({"batch": [f"{number + 1:2}" for number in range(len(values))], name: values})
