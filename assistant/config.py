"""Settings: one frozen `Config`, and the only place that reads the environment.

Every option of `serve` is a field here and an environment variable, MYNAH_ and the field's name in capitals
(MYNAH_DATA_DIR, MYNAH_UPDATES, …); what only another command takes has a variable, too (cli.py). The command line wins
over the environment, the environment over the default.

Nothing here imports torch, so that a second server or a taken port is noticed before the slow imports. Left out on
purpose: configuration files (except the numbers of an update, which are many). What an admin may change while the
server runs is in settings.py; an option that was named here stays as it was named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from assistant.schedule import Schedule, parse_updates
from feedback.errors import InvalidInput

PREFIX = "MYNAH_"
# The names of adapters.base_model, which is slow to import; a test keeps the two equal.
DEFAULT_BASE = "smollm2-135m-instruct"
QUANTIZE = ("nf4", "int8", "none")
EXECUTOR = ("local", "ray")
SIGN_UP = ("invitation", "open")
ENGINES = ("local", "vllm")


def default_models_dir() -> Path:
    """Where prepared base models lie: $MYNAH_MODELS_DIR, else the user's cache folder."""
    if chosen := os.environ.get("MYNAH_MODELS_DIR"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "mynah" / "models"


def default_data_dir() -> Path:
    """Where everything personal lies: $MYNAH_DATA_DIR, else the user's data folder."""
    if chosen := os.environ.get("MYNAH_DATA_DIR"):
        return Path(chosen).expanduser()
    share = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(share) / "mynah"


def about(words: str, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """An option's help text and, for a number, what is allowed."""
    return {"help": words, "low": low, "high": high}


@dataclass(frozen=True)
class Config:
    """All settings of one server or command. Raises InvalidInput naming the field, its value and what is allowed."""

    host: str = field(default="127.0.0.1", metadata=about("address to listen on; 0.0.0.0 for every network"))
    port: int = field(default=7860, metadata=about("port to listen on; 0 takes a free one", 0, 65535))
    data_dir: Path = field(
        default_factory=default_data_dir, metadata=about("folder of the database and everybody's adapters")
    )
    models_dir: Path = field(
        default_factory=default_models_dir, metadata=about("folder of prepared base models; holds nothing personal")
    )
    base_model: str = field(
        default=DEFAULT_BASE,
        metadata=about("the shared base: a folder, a hub id like org/name, or the embedded default"),
    )
    quantize: str = field(default="nf4", metadata=about(f"how the base is kept in memory: {', '.join(QUANTIZE)}"))
    engine: str = field(
        default="local",
        metadata=about("what writes the replies: local, or vllm, a server of its own (docs/OPERATING.md)"),
    )
    vllm_url: str = field(default="http://127.0.0.1:8000", metadata=about("where that server is, with --engine vllm"))
    updates: str = field(
        default="idle",
        metadata=about("when updates start by themselves: off, idle, or a daily window like 22:00-06:00"),
    )
    labels_per_update: int = field(
        default=20, metadata=about("new labels after which an update starts by itself", 10, 10_000)
    )
    kl_budget: float = field(
        default=0.10,
        metadata=about(
            "nats a token that a version may move from the base after 30 labels; twice that at most", 0.01, 1
        ),
    )
    sign_up: str = field(
        default="invitation",
        metadata=about("who may make an account: by invitation of an admin, or open to everybody who gets here"),
    )
    idle_seconds: float = field(
        default=60.0, metadata=about("seconds without chat after which the machine counts as idle", 0, 86_400)
    )
    max_tokens: int = field(
        default=256, metadata=about("longest reply in tokens, when a request does not say", 1, 4096)
    )
    max_waiting: int = field(
        default=64, metadata=about("requests that may wait for the model; more are answered 429", 1, 10_000)
    )
    requests_per_minute: int = field(
        default=120, metadata=about("requests to the model that one person may make in a minute", 1, 1_000_000)
    )
    storage_mb: int = field(
        default=1000, metadata=about("megabytes that one person's chats, feedback and versions may take", 1, 10_000_000)
    )
    updates_per_day: int = field(
        default=24, metadata=about("updates of one person that may begin within 24 hours", 1, 1000)
    )
    threads: int = field(default=0, metadata=about("processor threads an update may use; 0 for all", 0, 1024))
    nice: int = field(
        default=19, metadata=about("how far updates stand back behind other programs; 0 not at all, 19 most", 0, 19)
    )
    executor: str = field(
        default="local",
        metadata=about("where updates run: local, one at a time, or ray, on a cluster, as many as it has room for"),
    )
    ray_address: str = field(
        default="auto",
        metadata=about("host:port of the Ray cluster's head; auto for the one that this machine belongs to"),
    )
    session_days: int = field(default=30, metadata=about("days a browser stays signed in", 1, 3650))
    update_config: Path | None = field(
        default=None, metadata=about("JSON file with numbers of an update that differ from the defaults")
    )
    tensorboard: Path | None = field(
        default=None, metadata=about("folder to write every update's metrics to, for TensorBoard")
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value, low, high = getattr(self, each.name), each.metadata["low"], each.metadata["high"]
            if low is not None and not low <= value <= high:
                raise InvalidInput(f"{each.name} is {value}; it can be {low} to {high}.", param=each.name)
        if not self.host or any(c.isspace() for c in self.host):
            raise InvalidInput(f"host is {self.host!r}; it must be an address or a host name.", param="host")
        if not self.base_model:
            raise InvalidInput("base_model is empty; it must be a folder, a hub id or the default.", param="base_model")
        if self.quantize not in QUANTIZE:
            raise InvalidInput(f"quantize is {self.quantize!r}; it can be {', '.join(QUANTIZE)}.", param="quantize")
        if self.engine not in ENGINES:
            raise InvalidInput(f"engine is {self.engine!r}; it can be {', '.join(ENGINES)}.", param="engine")
        if not re.fullmatch(r"https?://[^\s/?#@]+/?", self.vllm_url):
            raise InvalidInput(
                f"vllm_url is {self.vllm_url!r}; it must be like http://127.0.0.1:8000.", param="vllm_url"
            )
        if self.sign_up not in SIGN_UP:
            raise InvalidInput(f"sign_up is {self.sign_up!r}; it can be {', '.join(SIGN_UP)}.", param="sign_up")
        if self.executor not in EXECUTOR:
            raise InvalidInput(f"executor is {self.executor!r}; it can be {', '.join(EXECUTOR)}.", param="executor")
        if self.ray_address != "auto" and not self.ray_address.rpartition(":")[2].isdigit():
            raise InvalidInput(
                f"ray_address is {self.ray_address!r}; it must be host:port of the cluster's head, or auto.",
                param="ray_address",
            )
        if self.update_config is not None and not self.update_config.is_file():
            raise InvalidInput(f"update_config is {self.update_config}; there is no such file.", param="update_config")
        parse_updates(self.updates)

    @property
    def given(self) -> frozenset[str]:
        """Options that the command line or the environment named; the others are at their defaults."""
        named: frozenset[str] = self.__dict__.get("_given", frozenset())
        return named

    @property
    def schedule(self) -> Schedule:
        """When updates start by themselves."""
        mode, window = parse_updates(self.updates)
        return Schedule(mode, window, self.labels_per_update, self.idle_seconds)

    @property
    def database(self) -> Path:
        """The one database file."""
        return self.data_dir / "mynah.db"

    @property
    def adapters(self) -> Path:
        """Everybody's adapter versions: <user id>/v<number>/."""
        return self.data_dir / "adapters"

    @property
    def latents(self) -> Path:
        """The directions that latent features are measured along, for each base."""
        return self.data_dir / "latents"

    @property
    def jobs(self) -> Path:
        """Updates under way: <update id>/."""
        return self.data_dir / "jobs"

    @classmethod
    def build(cls, given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Config:
        """From what the command line gave (None = not given), the environment and the defaults."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for each in fields(cls):
            chosen = given.get(each.name)
            if chosen is None and (text := in_environment(each.name, environ)):
                chosen = convert(each.name, text)
            if chosen is not None:
                values[each.name] = chosen
        built = cls(**values)
        object.__setattr__(built, "_given", frozenset(values))  # no field: it is not an option
        return built


def in_environment(name: str, environ: Mapping[str, str] | None = None) -> str:
    """What the environment says of an option, "" where it says nothing."""
    return (os.environ if environ is None else environ).get(PREFIX + name.upper(), "")


def default_of(option: Field[Any]) -> Any:
    """What an option is when nobody sets it."""
    return option.default if option.default_factory is MISSING else option.default_factory()


def convert(name: str, text: str) -> Any:
    """An option's text as its field's type. Raises InvalidInput."""
    kinds: dict[str, Callable[[str], Any]] = {
        "int": int,
        "float": float,
        "str": str,
        "Path": _path,
        "Path | None": _path,
    }
    kind = {each.name: kinds[str(each.type)] for each in fields(Config)}[name]
    try:
        return kind(text)
    except ValueError as error:
        raise InvalidInput(f"{name} is {text!r}; it must be a number.", param=name) from error


def _path(text: str) -> Path:
    return Path(text).expanduser()
