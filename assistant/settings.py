"""What an admin may change while the server runs: kept in the database, read anew at every use.

An option that the command line or the environment named stays as it was named, whatever is kept; the page shows it as
fixed. Everything else about a server is in config.py and needs a restart.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

from adapters.files import read_json
from adapters.job import UpdateConfig
from assistant.config import PREFIX, Config, convert
from assistant.schedule import Schedule
from feedback.errors import Conflict, InvalidInput
from feedback.store import Store

CHANGEABLE = ("sign_up", "updates", "labels_per_update", "kl_budget")
OVER_BUDGET = 2.0  # with many labels the KL budget grows to so many times its value at 30


@dataclass(frozen=True)
class Setting:
    """One of them as it is now. fixed: what fixes it, in words, empty when it can be changed."""

    name: str
    value: Any
    fixed: str


class Settings:
    """The settings in force."""

    def __init__(self, store: Store, config: Config, numbers: UpdateConfig | None = None) -> None:
        """numbers: of an update, before the KL budget is set into them."""
        self._store, self._config = store, config
        self._numbers = numbers or UpdateConfig()
        self._fixed = {
            name: f"it was given as --{name.replace('_', '-')} or {PREFIX}{name.upper()} when the server was started"
            for name in config.given
        }
        if "kl_budget" not in self._fixed and _names_kl_bounds(config):
            self._fixed["kl_budget"] = f"the file {config.update_config} sets it"

    def all(self) -> list[Setting]:
        """Every setting, in the order of CHANGEABLE."""
        now = self._now()
        values = {name: getattr(now, name) for name in CHANGEABLE} | {"kl_budget": self.numbers.gate.kl_at_30}
        return [Setting(name, values[name], self._fixed.get(name, "")) for name in CHANGEABLE]

    def set(self, name: str, text: str) -> tuple[Any, Any]:
        """Change one; what it was and what it is. Raises InvalidInput, and Conflict for one that is fixed."""
        was = next((setting for setting in self.all() if setting.name == name), None)
        if was is None:
            raise InvalidInput(f"There is no setting {name[:40]!r}; there are {', '.join(CHANGEABLE)}.", param="name")
        if was.fixed:
            raise Conflict(f"{name} is fixed: {was.fixed}.", param=name)
        value = convert(name, text.strip())
        replace(self._config, **{name: value})  # says what is wrong with it
        self._store.server.set(name, str(value))
        return was.value, value

    @property
    def schedule(self) -> Schedule:
        """When updates start by themselves."""
        return self._now().schedule

    @property
    def open_to_all(self) -> bool:
        """Whether everybody may make an account."""
        return self._now().sign_up == "open"

    @property
    def numbers(self) -> UpdateConfig:
        """The numbers of an update that begins now. Its KL bounds are its own where nobody set a budget."""
        budget = self._now().kl_budget if "kl_budget" in self._config.given else self._kept().get("kl_budget")
        if budget is None:
            return self._numbers
        return replace(self._numbers, gate=replace(self._numbers.gate, kl_at_30=budget, kl_most=OVER_BUDGET * budget))

    def _now(self) -> Config:
        """The config with what is kept in it."""
        return replace(self._config, **self._kept())

    def _kept(self) -> dict[str, Any]:
        """What is kept and counts: not fixed, and still valid."""
        kept: dict[str, Any] = {}
        for name, text in self._store.server.settings().items():
            if name in CHANGEABLE and name not in self._fixed:
                with contextlib.suppress(InvalidInput):
                    value = convert(name, text)
                    replace(self._config, **{name: value})
                    kept[name] = value
        return kept


def _names_kl_bounds(config: Config) -> bool:
    """Whether the file with an update's numbers names the gate's KL bounds."""
    if config.update_config is None:
        return False
    try:
        return bool({"kl_at_30", "kl_most"} & set(read_json(config.update_config)["gate"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False
