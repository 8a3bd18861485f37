"""Mynah: all services over one data folder, in the order they need each other.

Everything the HTTP API, the browser pages and the command line do goes through the objects held here. What concerns a
person as a whole, and therefore several services, is here as well: removal and export.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from adapters.base_model import BaseFiles, Quantize, prepare_base
from adapters.files import read_json
from adapters.job import UpdateConfig
from adapters.versions import VersionFiles
from assistant.accounts import Accounts
from assistant.administration import Administration
from assistant.adoption import sweep
from assistant.chat import Chat
from assistant.common import CommonTaste
from assistant.config import Config
from assistant.engine import Engine
from assistant.executor import Executor, make_executor
from assistant.joining import Joining
from assistant.learning import Learning
from assistant.limits import Limits
from assistant.lock import DataLock
from assistant.preview import Previews
from assistant.probation import stories
from assistant.profile import TraitView
from assistant.quick_questions import QuickQuestions
from assistant.removal import remove_person, reset_person
from assistant.settings import Settings
from assistant.updates import Updates
from feedback.errors import InvalidInput
from feedback.store import Store
from feedback.types import AdapterVersion, Reply, User, now, wall

SETTLE_SECONDS = 2.0  # for replies under way to be kept when the server ends


class Mynah:
    """All services. Made by `open`; `close` ends them in reverse order."""

    def __init__(
        self,
        config: Config,
        lock: DataLock,
        store: Store,
        files: BaseFiles,
        numbers: UpdateConfig,
        executor: Executor | None = None,
    ) -> None:
        self.config, self.lock, self.store, self.files = config, lock, store, files
        self.accounts = Accounts(store, config.session_days)
        self.versions = VersionFiles(config.adapters)
        server_url = config.vllm_url if config.engine == "vllm" else None
        self.engine = Engine(
            files, self.versions, max_waiting=config.max_waiting, server_url=server_url, latents_dir=config.latents
        )
        self.limits = Limits(store, self.versions, config)
        engine = self.engine
        self.common = CommonTaste(store, engine.base_id, engine.population, busy=lambda: engine.busy > 0)
        self.learning = Learning(store, self.engine, self.common)
        self.questions = QuickQuestions(store, self.learning, engine.population)
        self.chat = Chat(store, self.engine, self.learning, self.limits, max_tokens=config.max_tokens)
        self.settings = Settings(store, config, numbers)
        self.updates = Updates(
            store, self.learning, self.engine, self.versions, files, config,
            settings=self.settings, limits=self.limits, executor=executor,
        )  # fmt: skip
        self.admins = Administration(store, self.accounts, self.engine.forget)
        self.joining = Joining(store, self.accounts, self.settings)
        self.previews = Previews(store, self.engine, self.learning, self.limits, max_tokens=config.max_tokens)

    @classmethod
    def open(
        cls,
        config: Config,
        progress: Callable[[str], None] = print,
        *,
        lock: DataLock | None = None,
        run_updates: bool = True,
    ) -> Mynah:
        """Open a data folder and start serving from it.

        lock: the folder's, when the caller took it already. run_updates: work on the line of updates; off for commands
        that do one thing. Raises Conflict when another Mynah has the folder, BaseModelError, CorruptFile, NotSaved.
        """
        numbers = update_numbers(config)
        mine = lock or DataLock(config.data_dir, "open")
        store: Store | None = None
        executor = make_executor(config)
        try:
            if run_updates:
                executor.open()  # a cluster that does not let us in is told before the slow parts
            progress(f"Data folder: {config.data_dir}")
            store = Store(config.database)
            store.database.require_sound()
            if gone := sweep(store, config.adapters, config.jobs):
                progress(f"Removed what an interrupted update left: {', '.join(gone)}")
            files = prepare_base(config.base_model, config.models_dir, cast(Quantize, config.quantize))
            progress(f"Base model: {files.base_id}")
            if strangers := _versions_of_other_bases(store, files.base_id):
                progress(f"{strangers} adapter versions belong to other base models: they are kept, unused.")
            if not any(files.folder.glob(f"latents-{files.quantize}-*")):
                progress("It answers some prompts to find how its replies differ: half a minute, the first time only.")
            mynah = cls(config, mine, store, files, numbers, executor)
            if mynah.engine.server is not None:
                progress(mynah.engine.server.greet())
            mynah.engine.start()
            mynah.chat.trash.start()
            if run_updates:
                mynah.updates.start()
                mynah.common.start()
            return mynah
        except BaseException:
            executor.close()
            if store is not None:
                store.close()
            if lock is None:
                mine.release()
            raise

    def close(self) -> None:
        """Pause the running update, keep all replies under way as far as they came, close the database, let go of the
        folder."""
        self.engine.leave_off()
        self.updates.close()
        self.common.close()
        self.chat.trash.close()
        self.chat.settle(SETTLE_SECONDS)
        self.engine.close()
        self.store.close()
        self.lock.release()

    # ---- a person as a whole --------------------------------------------------------------------------------------

    def remove_person(self, user: User, by: str | None = None) -> dict[str, Any]:
        """Delete everything about a person; what went, as a receipt. Raises Conflict for the last admin.

        by: the admin who does it, None for the person's own wish.
        """
        receipt = remove_person(self.store, self.versions, self.config.jobs, user, by or user.id)
        self.previews.forget(user.id)
        self.engine.forget(user.id)
        self.limits.forget(user.id)
        self.learning.forget(user.id)
        return receipt

    def reset_person(self, user: User) -> dict[str, Any]:
        """Forget all that was learned about a person and go back to the base; chats stay. What went, as a receipt."""
        with self.learning.alone(user):
            receipt = reset_person(self.store, self.versions, self.config.jobs, user)
            self.learning.forget(user.id)
            self.questions.begin_again(user)
        self.previews.forget(user.id)
        self.engine.forget(user.id)
        self.limits.forget(user.id)
        return receipt

    def write_export(self, user: User, out: Path) -> None:
        """Everything held about a person as a zip of JSON and safetensors. Hashes of secrets stay here."""
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in self._records(user).items():
                entry = zipfile.ZipInfo(f"{name}.json", wall().timetuple()[:6])
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w", force_zip64=True) as file:
                    for piece in _json(value):
                        file.write(piece.encode())
            for version in self.store.versions.versions(user.id):
                folder = self.versions.path(user.id, version.number)
                for path in sorted(folder.glob("*")):
                    archive.write(path, f"adapters/{version.name}/{path.name}")

    def _records(self, user: User) -> dict[str, Any]:
        """All of it by name; what is long, conversations and replies, is made while it is gone through."""
        return {
            "person": {
                **asdict(user),
                "exported_at": now(),
                "keys": [asdict(key) for key in self.accounts.keys(user)],
                "sessions": self.store.people.sessions(user.id),
                "settings": self.store.people.settings(user.id),
            },
            "conversations": _Each(
                lambda: self.store.chats.every_conversation(user.id),
                lambda talk: {**asdict(talk), "messages": [asdict(m) for m in self.store.chats.every_message(talk.id)]},
            ),
            "replies": _Each(lambda: self.store.chats.all_replies(user.id), _reply),
            "feedback": [asdict(event) for event in self.store.acts.events(user.id)],
            "idempotency_keys": self.store.acts.request_keys(user.id),
            "profile": [trait_record(trait) for trait in self.learning.profile(user)],
            "updates": [asdict(update) for update in self.store.versions.updates(user.id)],
            "versions": [asdict(version) for version in self.store.versions.versions(user.id)],
            "trials": {
                "events": [asdict(event) for event in self.store.trials.events(user.id)],
                "duels": [asdict(duel) for duel in self.store.trials.duels(user.id)],
            },
            "audit": [asdict(entry) for entry in self.store.server.audit_of(user.id)],
            "examples": {
                f"v{number}": [asdict(example) for example in examples]
                for number, examples in self.store.versions.examples(user.id).items()
            },
        }

    def active(self, user: User) -> AdapterVersion | None:
        """The version served to a person, None for the base."""
        return self.store.versions.active(user.id, self.engine.base_id)

    def trials_told(self, user: User) -> dict[int, str]:
        """How the trial of each of a person's versions stands or ended, in words, by number."""
        return stories(self.store, user, self.engine.base_id, self.chat.asking.wanted(user))


def update_numbers(config: Config) -> UpdateConfig:
    """The numbers of an update: the defaults, changed by the file that `update_config` names. Raises InvalidInput."""
    if config.update_config is None:
        return UpdateConfig()
    try:
        return UpdateConfig.from_dict(read_json(config.update_config))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{config.update_config} cannot be used: {error}", param="update_config") from error


def _versions_of_other_bases(store: Store, base_id: str) -> int:
    return sum(v.base_id != base_id for user in store.people.all() for v in store.versions.versions(user.id))


def trait_record(trait: TraitView) -> dict[str, Any]:
    """A trait as it is told outside."""
    return {name: getattr(trait, name) for name in ("name", "weight", "sd", "evidence", "words")}


class _Each:
    """Records that are made one by one, whenever somebody goes through them."""

    def __init__(self, rows: Callable[[], Iterable[Any]], record: Callable[[Any], dict[str, Any]]) -> None:
        self._rows, self._record = rows, record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._record, self._rows())


def _json(value: Any) -> Iterator[str]:
    """A value as JSON, record by record where there are many; no text in it holds a line break as such."""
    if not isinstance(value, list | _Each):
        yield json.dumps(value, indent=1, ensure_ascii=False)
        return
    between = "["
    for record in value:
        yield between + "\n " + json.dumps(record, indent=1, ensure_ascii=False).replace("\n", "\n ")
        between = ","
    yield "[]" if between == "[" else "\n]"


def _reply(reply: Reply) -> dict[str, Any]:
    """A reply for its owner's eyes: without token ids and latent features, which only repeat the text for a machine."""
    kept = asdict(reply)
    for field in ("token_ids", "latent"):
        del kept[field]
    return kept
