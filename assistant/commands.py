"""What each command of the command line does, beside a running server or without one.

Small things go straight to the database, which takes several processes. An update is handed to a running server through
the line in the database; without a server it runs here, with the data folder's lock held.
"""

from __future__ import annotations

import getpass
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tqdm import tqdm

from assistant.accounts import Accounts
from assistant.administration import COMMAND_LINE, Administration
from assistant.config import Config
from assistant.lock import DataLock, describe, holder
from feedback.errors import Conflict, InvalidInput, NotFound, NotSaved
from feedback.store import Store
from feedback.types import LIVE_STATES, Update, User

if TYPE_CHECKING:
    from adapters.base_model import Quantize

WATCH_SECONDS = 0.5
REJECTED = 1  # exit code of an update without a version that passed the gate
UNSOUND = 1  # exit code of a doctor who found something


# ---- people and keys ----------------------------------------------------------------------------------------------


def user_add(config: Config, given: dict[str, Any]) -> int:
    """Add a person; works before the first start of a server, too."""
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NotSaved(f"The data folder {config.data_dir} cannot be made: {error.strerror}.") from error
    with _accounts(config) as (accounts, store):
        user = _admins(accounts, store).add(COMMAND_LINE, given["name"], _password(given), admin=given["admin"])
        print(f"Added {user.name}{' (admin)' if user.admin else ''}.")
    return 0


def user_passwd(config: Config, given: dict[str, Any]) -> int:
    """Set a password; every browser of the person is signed out."""
    with _accounts(config) as (accounts, store):
        user = accounts.find(given["name"])
        _admins(accounts, store).set_password(COMMAND_LINE, user, _password(given))
        print(f"The password of {user.name} is changed.")
    return 0


def user_disable(config: Config, given: dict[str, Any]) -> int:
    """Shut a person out; what a running server writes for them ends within seconds."""
    with _accounts(config) as (accounts, store):
        user = accounts.find(given["name"])
        _admins(accounts, store).disable(COMMAND_LINE, user)
        print(f"{user.name} is disabled: signed out everywhere, and no API key of theirs is valid any more.")
    return 0


def user_enable(config: Config, given: dict[str, Any]) -> int:
    """Let a disabled person in again."""
    with _accounts(config) as (accounts, store):
        user = accounts.find(given["name"])
        _admins(accounts, store).enable(COMMAND_LINE, user)
        print(f"{user.name} can sign in again.")
    return 0


def user_list(config: Config, given: dict[str, Any]) -> int:
    """One person a line: name, role, labels, day of the account; between tabs."""
    with _accounts(config) as (accounts, store):
        for user in accounts.people():
            role = "disabled" if user.disabled else "admin" if user.admin else "user"
            print(user.name, role, f"{store.acts.label_count(user.id)} labels", user.created_at[:10], sep="\t")
    return 0


def user_remove(config: Config, given: dict[str, Any]) -> int:
    """Delete a person, weights included."""
    from adapters.versions import VersionFiles
    from assistant.removal import remove_person

    with _accounts(config) as (accounts, store):
        user = accounts.find(given["name"])
        receipt = remove_person(store, VersionFiles(config.adapters), config.jobs, user, COMMAND_LINE)
        rows = receipt["rows"]
        print(f"Removed {user.name}: {rows['replies']} replies, {rows['feedback']} acts of feedback, ", end="")
        print(f"{receipt['adapters']} adapter versions.")
    return 0


def key_create(config: Config, given: dict[str, Any]) -> int:
    """Print a new API key and nothing else."""
    with _accounts(config) as (accounts, store):
        print(_admins(accounts, store).create_key(COMMAND_LINE, accounts.find(given["name"])))
    return 0


def key_list(config: Config, given: dict[str, Any]) -> int:
    """One key a line: id, hint, day it was made, day of last use; between tabs."""
    with _accounts(config) as (accounts, _):
        for key in accounts.keys(accounts.find(given["name"])):
            print(key.id, key.hint, key.created_at[:10], (key.used_at or "never used")[:10], sep="\t")
    return 0


def key_revoke(config: Config, given: dict[str, Any]) -> int:
    """End a key."""
    with _accounts(config) as (accounts, store):
        _admins(accounts, store).revoke_key(COMMAND_LINE, given["id"])
        print(f"Revoked {given['id']}.")
    return 0


# ---- feedback from elsewhere --------------------------------------------------------------------------------------


def import_feedback(config: Config, given: dict[str, Any]) -> int:
    """Preferences out of a file to a running server. The API key comes on standard input, or is asked for."""
    from assistant.bringing import read_feedback, send

    found = read_feedback(given["file"], given["person"])
    for why in found.left_out:
        print(f"Left out, {why}", file=sys.stderr)
    if not found.preferences:
        raise InvalidInput(f"{given['file']} holds no feedback.")
    key = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    with tqdm(total=len(found.preferences), unit=" preferences", disable=not sys.stderr.isatty()) as bar:
        send(found.preferences, given["server"], key, lambda done: bar.update(done - bar.n))
    print(f"{len(found.preferences)} preferences were taken in; {len(found.left_out)} entries said nothing.")
    return 0


# ---- updates and exports ------------------------------------------------------------------------------------------


def update(config: Config, given: dict[str, Any]) -> int:
    """One update in the foreground: exit code 0 when the new version is served, 1 when none passed the gate."""
    with _accounts(config) as (accounts, store):
        user = accounts.find(given["name"])
        server = holder(config.data_dir)
        _admins(accounts, store).note(COMMAND_LINE, "asked for an update of", user)
        if server is None:
            ended = _update_here(config, user)
        elif "base_id" in server:
            ended = _update_there(config, store, user, str(server["base_id"]))
        else:
            raise Conflict(
                f"{config.data_dir} is in use by {describe(server)}; try again when it has finished or started."
            )
    if ended.state == "promoted":
        print(f"v{ended.version} passed the gate and is served to {user.name} now.")
        return 0
    if ended.state == "rejected":
        failed = "; ".join(str(check.get("words", check["check"])) for check in ended.gate if not check["passed"])
        what = f"v{ended.version} did not pass the gate and is never served" if ended.version else "Nothing was trained"
        print(f"{what}: {failed}")
        return REJECTED
    raise Conflict(f"The update of {user.name} ended as {ended.state}: {ended.reason}")


def _update_here(config: Config, user: User) -> Update:
    from assistant.mynah import Mynah

    lock = DataLock(config.data_dir, "app.py update")
    _end_like_ctrl_c()  # the update is paused
    try:
        mynah = Mynah.open(config, lambda line: print(line, file=sys.stderr), lock=lock, run_updates=False)
        try:
            with _bar() as bar:
                return mynah.updates.run_here(user, bar.show)
        finally:
            mynah.close()
    finally:
        lock.release()


def _update_there(config: Config, store: Store, user: User, base_id: str) -> Update:
    """Put it in the running server's line, and watch."""
    from assistant.mynah import update_numbers
    from assistant.settings import Settings
    from assistant.updates import queue_update

    update = queue_update(store, user, base_id, Settings(store, config, update_numbers(config)).numbers.as_dict())
    with _bar() as bar:
        while update.state in LIVE_STATES:
            bar.show(update)
            time.sleep(WATCH_SECONDS)
            update = store.versions.update(user.id, update.id)
            if holder(config.data_dir) is None:
                raise Conflict(f"The server has stopped; the update of {user.name} goes on when it starts again.")
    return update


class _Bar:
    """A progress bar over one update."""

    def __init__(self) -> None:
        self._bar = tqdm(total=100, unit="%", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}")

    def show(self, update: Update) -> None:
        """Move on."""
        stage = str(update.metrics.get("stage", "")).replace("_", " ")
        self._bar.set_description_str(f"{update.state} {stage}".strip())
        if update.eta_seconds is not None:
            self._bar.set_postfix_str(f"about {update.eta_seconds / 60:.1f} min to go", refresh=False)
        self._bar.update(max(0.0, 100 * update.progress - self._bar.n))
        self._bar.refresh()

    def close(self) -> None:
        """Leave the line."""
        self._bar.close()


@contextmanager
def _bar() -> Iterator[_Bar]:
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()


def export(config: Config, given: dict[str, Any]) -> int:
    """Write a version as a zip."""
    from adapters.base_model import prepare_base
    from adapters.versions import VersionFiles
    from assistant.exports import active_version, check_format, export_to, find_version

    kind, out = check_format(given["format"]), cast(Path, given["out"])
    with _accounts(config) as (accounts, store):
        user = accounts.find(given["name"])
        files = prepare_base(config.base_model, config.models_dir, cast("Quantize", config.quantize))
        if given["version"]:
            version = find_version(store, user, given["version"])
        else:
            version = active_version(store, user, files.base_id)
        export_to(VersionFiles(config.adapters), files, version, kind, out, config.jobs)
        _admins(accounts, store).note(COMMAND_LINE, "exported a version of", user, version=version.name)
    print(f"Wrote {version.name} of {user.name} to {out} ({out.stat().st_size >> 10} KB).")
    return 0


def import_adapter(config: Config, given: dict[str, Any]) -> int:
    """A LoRA adapter made elsewhere as a person's version, which is served once they activate it; exit code 1 when it
    did not pass the checks."""
    from adapters.base_model import prepare_base
    from adapters.versions import VersionFiles
    from assistant.foreign import bring
    from assistant.mynah import update_numbers
    from assistant.settings import Settings

    with _accounts(config) as (accounts, store):
        user = accounts.find(given["name"])
        server = holder(config.data_dir)
        if server is not None and "base_id" not in server:  # its start sweeps away folders that have no row yet
            raise Conflict(
                f"{config.data_dir} is in use by {describe(server)}; try again when it has finished or started."
            )
        lock = DataLock(config.data_dir, "app.py import-adapter") if server is None else None
        try:
            files = prepare_base(config.base_model, config.models_dir, cast("Quantize", config.quantize))
            numbers = Settings(store, config, update_numbers(config)).numbers
            version = bring(
                store, VersionFiles(config.adapters), files, numbers, user, given["source"],
                lambda line: print(line, file=sys.stderr),
            )  # fmt: skip
            _admins(accounts, store).note(COMMAND_LINE, "imported an adapter for", user, version=version.name)
        finally:
            if lock is not None:
                lock.release()
    if version.status == "rejected":
        failed = "; ".join(str(check["words"]) for check in version.gate if not check["passed"])
        print(f"{version.name} of {user.name} did not pass the checks and is never served: {failed}")
        return REJECTED
    print(
        f"{version.name} of {user.name} is there and not in use: they can choose it on “My assistant”, or with "
        f"POST /v1/me/versions/{version.name}/activate."
    )
    return 0


# ---- the data folder ----------------------------------------------------------------------------------------------


def backup(config: Config, given: dict[str, Any]) -> int:
    """Everything in one file."""
    from assistant.backup import backup as write

    _end_like_ctrl_c()
    written = write(config, given["file"])
    with _accounts(config) as (accounts, store):
        _admins(accounts, store).note(COMMAND_LINE, "made a backup")
    print(f"Wrote {given['file']} ({written.size >> 10} KB). It holds everybody's conversations: keep it safe.")
    for version in written.missing:
        print(f"{version} is not in it: its folder is gone (app.py doctor says what to do).", file=sys.stderr)
    return 0


def restore(config: Config, given: dict[str, Any]) -> int:
    """A backup into an empty folder."""
    from assistant.backup import restore as unpack

    _end_like_ctrl_c()
    count = unpack(config, given["file"])
    with _accounts(config) as (accounts, store):
        _admins(accounts, store).note(COMMAND_LINE, "restored a backup")
    print(f"Restored {count} files into {config.data_dir}.")
    return 0


def doctor(config: Config, given: dict[str, Any]) -> int:
    """One finding a line; exit code 1 when something is to be mended."""
    from assistant.doctor import examine

    sound = True
    for finding in examine(config):
        sound &= finding.ok
        print(f"ok       {finding.what}" if finding.ok else f"problem  {finding.what}\n         mend: {finding.mend}")
    return 0 if sound else UNSOUND


# ---- shared -------------------------------------------------------------------------------------------------------


def _end_like_ctrl_c() -> None:
    """Whoever ends this from outside, or closes its terminal, leaves nothing half-done behind either."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)


@contextmanager
def _accounts(config: Config) -> Iterator[tuple[Accounts, Store]]:
    """The accounts of a data folder. Raises NotFound where there is no folder."""
    if not config.data_dir.is_dir():
        raise NotFound(
            f"There is no data folder {config.data_dir}; start Mynah once, or name the folder with --data-dir."
        )
    store = Store(config.database)
    try:
        yield Accounts(store, config.session_days), store
    finally:
        store.database.close()


def _admins(accounts: Accounts, store: Store) -> Administration:
    return Administration(store, accounts)


def _password(given: dict[str, Any]) -> str:
    if given["password_stdin"]:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidInput("There is no terminal to ask for a password on; pipe it in and add --password-stdin.")
    password = getpass.getpass(f"Password for {given['name']}: ")
    if password != getpass.getpass("Again: "):
        raise InvalidInput("The two passwords differ; nothing was changed.")
    return password
