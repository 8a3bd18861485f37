"""What the admin page shows, read from the services and put into templates. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from assistant.arms import Record
from assistant.mynah import Mynah
from assistant.ui.language import say
from assistant.ui.record_rows import rows_of
from assistant.ui.render import show
from assistant.usage import size, usage_of
from feedback.types import AdapterVersion, Update, User

SHOWN_ENTRIES = 50  # of the audit log at once


@dataclass(frozen=True)
class Person:
    """One person in the list. update: the state of the update under way, "" without one."""

    user: User
    labels: int
    active: str
    update: str
    versions: list[AdapterVersion]


@dataclass(frozen=True)
class Secret:
    """Something that is shown this once. words: what it is; text: itself."""

    words: str
    text: str


@dataclass
class AdminView:
    """Templates of the page."""

    mynah: Mynah
    admin: User

    def people(self, said: str = "", secret: Secret | None = None) -> str:
        """Everybody, and how to let more in."""
        states = {update.user_id: update.state for update in self.mynah.store.versions.live_updates()}
        everybody = self.mynah.accounts.people()
        return show(
            "people.html",
            people=[self._person(user, states.get(user.id, "")) for user in everybody],
            me=self.admin,
            invitations=self.mynah.store.server.invitations(),
            open=self.mynah.settings.open_to_all,
            said=said,
            secret=secret,
        )

    def settings(self, said: str = "") -> str:
        """What can be changed while the server runs."""
        settings = {setting.name: setting for setting in self.mynah.settings.all()}
        return show("settings.html", settings=settings, said=said)

    def server(self) -> str:
        """What runs, on what, and how much of the machine it takes."""
        config, names = self.mynah.config, {user.id: user.name for user in self.mynah.accounts.people()}
        return show(
            "server.html",
            jobs=[(names.get(update.user_id, "?"), update) for update in self.jobs()],
            base_id=self.mynah.engine.base_id,
            quantize=config.quantize,
            usage={name: size(count) for name, count in asdict(usage_of(config)).items()},
            data_dir=config.data_dir,
            models_dir=config.models_dir,
        )

    def jobs(self) -> list[Update]:
        """Updates under way."""
        return self.mynah.store.versions.live_updates()

    def record(self) -> str:
        """How the ways of answering do with everybody."""
        total = Record()
        for user in self.mynah.accounts.people():
            total = total + self.mynah.learning.record(user)
        return show(
            "record.html",
            title=say("How each way of answering does with everybody"),
            rows=rows_of(total),
            served="",
            empty=say("Nobody has compared replies or given a thumb yet."),
        )

    def log(self, entries: int = SHOWN_ENTRIES) -> str:
        """The audit log."""
        found = self.mynah.admins.log(entries + 1)
        return show("audit.html", entries=found[:entries], more=entries + SHOWN_ENTRIES if found[entries:] else 0)

    def _person(self, user: User, update: str) -> Person:
        active = self.mynah.active(user)
        return Person(
            user,
            self.mynah.store.acts.label_count(user.id),
            active.name if active else say("the base"),
            update,
            self.mynah.store.versions.versions(user.id),
        )
