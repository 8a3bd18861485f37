"""One frozen Config: defaults, environment, command line, and what it refuses."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from adapters import base_model
from assistant import config as module
from assistant.config import Config
from feedback.errors import InvalidInput


def test_the_command_line_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {
        "MYNAH_PORT": "8000",
        "MYNAH_HOST": "0.0.0.0",
        "MYNAH_DATA_DIR": "~/mynah",
        "MYNAH_IDLE_SECONDS": "5",
    }
    built = Config.build({"port": 9000, "host": None}, environment)
    assert (built.port, built.host, built.idle_seconds) == (9000, "0.0.0.0", 5.0)
    assert built.data_dir == Path.home() / "mynah"
    assert built.quantize == "nf4" and built.updates == "idle"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Config.build({}, {"MYNAH_PORT": ""}).port == 7860


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"port": 70000}, ("port", "70000", "0 to 65535")),
        ({"quantize": "fp4"}, ("quantize", "fp4", "nf4, int8, none")),
        ({"engine": "tgi"}, ("engine", "tgi", "local, vllm")),
        *(
            ({"vllm_url": url}, ("vllm_url", url, "http://127.0.0.1:8000"))
            for url in ("127.0.0.1:8000", "ftp://x", "http://", "http://me:key@x", "http://x/v1", "http://x y")
        ),
        ({"updates": "25:00-26:00"}, ("updates", "25:00-26:00", "off, idle")),
        ({"updates": "22:00-22:00"}, ("updates", "22:00-22:00", "length")),
        ({"labels_per_update": 3}, ("labels_per_update", "3", "10 to 10000")),
        ({"host": "a b"}, ("host", "a b", "address")),
        ({"update_config": Path("/nowhere.json")}, ("update_config", "/nowhere.json", "no such file")),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(given: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        Config(**given)
    assert all(word in caught.value.message for word in words)
    assert caught.value.param == words[0]


def test_text_that_is_no_number_is_named() -> None:
    with pytest.raises(InvalidInput, match="port is 'many'"):
        Config.build({}, {"MYNAH_PORT": "many"})


def test_it_is_frozen_and_every_option_has_help() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().port = 1  # type: ignore[misc]
    assert all(each.metadata["help"] for each in fields(Config))


def test_the_light_names_are_those_of_the_base_model() -> None:
    assert module.DEFAULT_BASE == base_model.DEFAULT_BASE
    assert module.QUANTIZE == base_model.QUANTIZE


def test_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MYNAH_MODELS_DIR", "MYNAH_DATA_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    monkeypatch.setenv("XDG_DATA_HOME", "/d")
    assert module.default_models_dir() == Path("/c/mynah/models")
    assert module.default_data_dir() == Path("/d/mynah")
    monkeypatch.setenv("MYNAH_MODELS_DIR", "/m")
    assert module.default_models_dir() == Path("/m")
