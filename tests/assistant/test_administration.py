"""What admins do and what the audit log says of it; settings and who wins; invitations and open doors."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from adapters.job import UpdateConfig
from assistant import joining
from assistant.accounts import Accounts, digest
from assistant.administration import COMMAND_LINE, Administration
from assistant.config import Config
from assistant.joining import PER_ADDRESS, Joining
from assistant.settings import Settings
from feedback.errors import Busy, Conflict, InvalidInput, NotFound, NotSignedIn
from feedback.store import Store
from feedback.types import User

PASSWORD = "a long enough password"


class Server:
    """All that an admin has to do with, over a store in memory."""

    def __init__(self, store: Store, config: Config | None = None) -> None:
        self.store = store
        self.time = 0.0
        self.accounts = Accounts(store)
        self.settings = Settings(store, config or Config.build({}, {}))
        self.forgotten: list[str] = []
        self.admins = Administration(store, self.accounts, self.forgotten.append)
        self.joining = Joining(store, self.accounts, self.settings, clock=lambda: self.time)

    def told(self) -> list[tuple[str, str, str]]:
        """The audit log: who, what, whom."""
        return [(entry.admin, entry.action, entry.subject) for entry in self.admins.log()]


@pytest.fixture
def server(store: Store) -> Server:
    return Server(store)


@pytest.fixture
def root(server: Server) -> User:
    return server.accounts.add("Root", PASSWORD, admin=True)


# ---- people -------------------------------------------------------------------------------------------------------


def test_every_act_is_in_the_log_newest_first_and_no_secret_is(server: Server, root: User) -> None:
    ada = server.admins.add(root.id, "Ada", PASSWORD)
    server.admins.set_password(root.id, ada, "another long password")
    secret = server.admins.create_key(COMMAND_LINE, ada)
    server.admins.revoke_key(COMMAND_LINE, server.accounts.keys(ada)[0].id)
    server.admins.disable(root.id, ada)
    server.admins.enable(root.id, ada)
    server.admins.set(root.id, server.settings, "labels_per_update", "30")
    invitation, token = server.joining.invite(root, "for Bob")
    server.joining.withdraw(root, invitation.id)
    server.admins.note(root.id, "exported a version of", ada, version="v1")
    assert server.told() == [
        ("Root", "exported a version of", "Ada"),
        ("Root", "withdrew an invitation", ""),
        ("Root", "invited somebody", ""),
        ("Root", "changed the setting", ""),
        ("Root", "enabled", "Ada"),
        ("Root", "disabled", "Ada"),
        ("the command line", "revoked an API key", ""),
        ("the command line", "made an API key for", "Ada"),
        ("Root", "set the password of", "Ada"),
        ("Root", "added", "Ada"),
    ]
    kept = json.dumps([vars(entry) for entry in server.store.server.audit()])
    assert not any(word in kept for word in (PASSWORD, "another long", secret, token, digest(token), "Ada", "Bob"))
    assert server.admins.log()[3].details == "setting: labels_per_update, was: 20, now: 30"


def test_what_fails_is_not_in_the_log(server: Server, root: User) -> None:
    with pytest.raises(InvalidInput):
        server.admins.add(root.id, "Ada", "short")
    with pytest.raises(Conflict, match="already"):
        server.admins.add(root.id, "root", PASSWORD)
    with pytest.raises(Conflict, match="last admin"):
        server.admins.disable(root.id, root)
    with pytest.raises(InvalidInput):
        server.admins.set(root.id, server.settings, "updates", "sometimes")
    assert server.told() == []


def test_somebody_who_is_gone_has_no_name_in_the_log(server: Server, root: User) -> None:
    ada = server.admins.add(root.id, "Ada", PASSWORD)
    server.store.people.remove(ada.id)
    assert server.told() == [("Root", "added", f"somebody who is gone ({ada.id})")]


def test_a_disabled_person_is_out_at_once(server: Server, root: User) -> None:
    ada = server.admins.add(root.id, "Ada", PASSWORD)
    session, (_, key) = server.accounts.sign_in("Ada", PASSWORD), server.accounts.create_key(ada)
    update = server.store.versions.queue(ada.id, "base", "asked", 1, None, (1, 1), {})
    server.admins.disable(root.id, ada)
    assert server.accounts.session_user(session) is None
    with pytest.raises(NotSignedIn):
        server.accounts.key_user(key)
    with pytest.raises(NotSignedIn):
        server.accounts.sign_in("Ada", PASSWORD)
    assert server.store.versions.update(ada.id, update.id).state == "cancelled"
    assert server.forgotten == [ada.id]
    server.admins.enable(root.id, ada)
    assert server.accounts.session_user(session) is None, "old sessions stay ended"
    with pytest.raises(NotSignedIn):
        server.accounts.key_user(key)
    assert server.accounts.sign_in("Ada", PASSWORD)


def test_the_first_admin_is_in_the_log(server: Server) -> None:
    made = server.admins.first_admin()
    assert made is not None and server.told() == [("the first start", "added", made[0].name)]
    assert server.admins.first_admin() is None and len(server.told()) == 1


# ---- settings -----------------------------------------------------------------------------------------------------


def values(settings: Settings) -> dict[str, object]:
    return {setting.name: setting.value for setting in settings.all()}


def test_a_change_counts_at_once_and_after_a_restart(server: Server) -> None:
    assert values(server.settings) == {
        "sign_up": "invitation",
        "updates": "idle",
        "labels_per_update": 20,
        "kl_budget": 0.1,
    }
    assert server.settings.set("updates", " 22:00-06:00 ") == ("idle", "22:00-06:00")
    server.settings.set("labels_per_update", "40")
    server.settings.set("kl_budget", "0.05")
    server.settings.set("sign_up", "open")
    for settings in (server.settings, Server(server.store).settings):
        assert settings.schedule.mode == "window" and settings.schedule.new_labels == 40
        assert settings.open_to_all
        assert (settings.numbers.gate.kl_at_30, settings.numbers.gate.kl_most) == (0.05, 0.1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("updates", "never", "off, idle"),
        ("labels_per_update", "3", "10 to 10000"),
        ("labels_per_update", "many", "must be a number"),
        ("kl_budget", "2", "0.01 to 1"),
        ("sign_up", "closed", "invitation, open"),
        ("port", "80", "no setting"),
    ],
)
def test_a_bad_value_is_refused_in_words(server: Server, name: str, text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        server.settings.set(name, text)
    assert server.store.server.settings() == {}


def test_what_the_command_line_or_the_environment_named_wins_and_is_fixed(store: Store) -> None:
    store.server.set("updates", "idle")
    store.server.set("labels_per_update", "50")
    config = Config.build({"updates": "off"}, {"MYNAH_SIGN_UP": "invitation"})
    settings = Server(store, config).settings
    fixed = {setting.name: setting.fixed for setting in settings.all()}
    assert settings.schedule.mode == "off" and settings.schedule.new_labels == 50
    assert "--updates or MYNAH_UPDATES" in fixed["updates"] and "--sign-up" in fixed["sign_up"]
    assert not fixed["labels_per_update"] and not fixed["kl_budget"]
    with pytest.raises(Conflict, match="fixed"):
        settings.set("updates", "idle")


def test_a_kept_value_that_is_no_longer_valid_counts_for_nothing(server: Server) -> None:
    server.store.server.set("labels_per_update", "1")
    server.store.server.set("colour", "green")
    assert values(server.settings)["labels_per_update"] == 20


def test_the_kl_budget_of_a_file_is_fixed(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "update.json"
    file.write_text(json.dumps({"gate": {"kl_at_30": 0.3, "kl_most": 0.4}}))
    numbers = UpdateConfig.from_dict(json.loads(file.read_text()))
    store.server.set("kl_budget", "0.05")
    settings = Settings(store, Config.build({"update_config": file}, {}), numbers)
    assert settings.numbers == numbers
    assert values(settings)["kl_budget"] == 0.3
    with pytest.raises(Conflict, match=r"update\.json sets it"):
        settings.set("kl_budget", "0.1")
    both = Settings(store, Config.build({"update_config": file, "kl_budget": 0.2}, {}), numbers)
    assert both.numbers.gate.kl_at_30 == 0.2


# ---- joining ------------------------------------------------------------------------------------------------------


def test_an_invitation_works_once(server: Server, root: User) -> None:
    _, token = server.joining.invite(root)
    server.joining.check(token)
    with pytest.raises(InvalidInput):
        server.joining.join("Ada", "short", "1.2.3.4", token)
    session = server.joining.join("Ada", PASSWORD, "1.2.3.4", token)
    user = server.accounts.session_user(session)
    assert user is not None and user.name == "Ada" and not user.admin
    assert server.told()[0] == ("Ada", "signed up", "")
    for attempt in (lambda: server.joining.check(token), lambda: server.joining.join("Eve", PASSWORD, "1", token)):
        with pytest.raises(NotFound, match="used already"):
            attempt()
    assert [person.name for person in server.accounts.people()] == ["Root", "Ada"]


def test_two_who_use_one_invitation_at_once_make_one_account(server: Server, root: User) -> None:
    _, token = server.joining.invite(root)
    refused: list[NotFound] = []

    def join(name: str) -> None:
        try:
            server.joining.join(name, PASSWORD, name, token)
        except NotFound as error:
            refused.append(error)

    threads = [threading.Thread(target=join, args=[name]) for name in ("Ada", "Eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1 and len(server.accounts.people()) == 2


def test_an_invitation_ends(server: Server, root: User) -> None:
    invitation, token = server.joining.invite(root)
    with server.store.database.transaction() as db:
        db.execute("update invitations set expires_at = '2001-01-01T00:00:00Z'")
    with pytest.raises(NotFound, match="expired"):
        server.joining.join("Ada", PASSWORD, "1.2.3.4", token)
    invitation, token = server.joining.invite(root)
    server.joining.withdraw(root, invitation.id)
    with pytest.raises(NotFound):
        server.joining.join("Ada", PASSWORD, "1.2.3.4", token)
    with pytest.raises(NotFound):
        server.joining.withdraw(root, invitation.id)


def test_the_door_is_open_only_where_an_admin_opened_it(server: Server, root: User) -> None:
    with pytest.raises(NotFound, match="without an invitation"):
        server.joining.join("Ada", PASSWORD, "1.2.3.4")
    server.settings.set("sign_up", "open")
    server.joining.join("Ada", PASSWORD, "1.2.3.4")
    with pytest.raises(Conflict):
        server.joining.join("ada", PASSWORD, "1.2.3.4")
    server.settings.set("sign_up", "invitation")
    with pytest.raises(NotFound):
        server.joining.join("Bob", PASSWORD, "1.2.3.4")


def test_attempts_are_limited_by_address_and_by_what_they_cost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "ALTOGETHER", 3)
    server = Server(store)
    root = server.accounts.add("Root", PASSWORD, admin=True)
    _, token = server.joining.invite(root)
    for _ in range(PER_ADDRESS):
        with pytest.raises(NotFound):
            server.joining.join("Ada", PASSWORD, "1.2.3.4", "guess")
    with pytest.raises(Busy, match="from your address"):
        server.joining.join("Ada", PASSWORD, "1.2.3.4", "guess")
    for number in range(10):  # guesses and what is refused for its form cost nothing, from however many addresses
        with pytest.raises(NotFound):
            server.joining.join("Ada", PASSWORD, f"guess {number}", "guess")
        with pytest.raises(InvalidInput):
            server.joining.join("Ada", "short", f"short {number}", token)
    assert server.joining.join("Ada", PASSWORD, "5.6.7.8", token), "the door is not shut for who is invited"
    server.settings.set("sign_up", "open")
    for number in range(2):  # each costs a hash, whether the name is free or not
        with pytest.raises(Conflict):
            server.joining.join("Ada", PASSWORD, f"taken {number}")
    with pytest.raises(Busy, match="Too many people"):
        server.joining.join("Bob", PASSWORD, "another")
    server.time = 16 * 60
    assert server.joining.join("Bob", PASSWORD, "1.2.3.4")
