"""Logs are for programs where there is no terminal, and for people where there is one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TextIO

import pytest

from assistant.logs import set_up


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[TextIO], None]:
    """Set up logging where nothing is set up yet; all is as it was afterwards."""
    root = logging.getLogger()

    def to(stream: TextIO) -> None:
        monkeypatch.setattr(root, "handlers", [])  # pytest has its own there by now
        monkeypatch.setattr(root, "level", root.level)
        set_up(stream)

    return to


def test_a_line_of_json_for_each_record_a_defect_with_its_traceback(fresh: Callable[[TextIO], None]) -> None:
    stream = io.StringIO()
    fresh(stream)
    log = logging.getLogger("mynah.test")
    log.warning("Update %s failed: %s", "up_1", "the disk\nis full")
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError:
        log.exception("A defect ended update %s", "up_2")
    failed, defect = map(json.loads, stream.getvalue().splitlines())
    assert failed["message"] == "Update up_1 failed: the disk\nis full" and "traceback" not in failed
    assert (failed["level"], failed["logger"], failed["template"]) == ("WARNING", "mynah.test", "Update %s failed: %s")
    assert abs(datetime.fromisoformat(failed["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert defect["level"] == "ERROR" and "ZeroDivisionError: division by zero" in defect["traceback"]


def test_plain_lines_on_a_terminal_and_others_are_quieter(fresh: Callable[[TextIO], None]) -> None:
    stream = Terminal()
    fresh(stream)
    logging.getLogger("mynah.test").info("It is %s.", "up")
    logging.getLogger("httpx").info("HTTP Request: GET")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("INFO mynah.test: It is up.")
