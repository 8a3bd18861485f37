"""A version for somebody, made beside the running server: real weights in real files, without the training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adapters.policy import Policy
from adapters.versions import VersionFiles
from feedback.store import Store
from tests.assistant.conftest import Maker
from tests.browser.site import Site


def give_version(site: Site, policy: Policy, name: str) -> None:
    """The person's next version, in use from the next reply on; it speaks differently from the base."""
    data = Path(site.environment["MYNAH_DATA_DIR"])
    store = Store(data / "mynah.db")
    try:
        user = store.people.find(name.casefold())
        assert user is not None
        maker = Maker(policy, VersionFiles(data / "adapters"))
        made = maker.version(user.id, store.versions.next_number(user.id), seed=3)
        check = {"check": "kl", "value": 0.02, "bound": 0.1, "passed": True, "words": "It stayed close to the base."}
        store.versions.add(replace(made, gate=[check], last_label=11), activate=True, update_state="promoted")
    finally:
        store.database.close()
