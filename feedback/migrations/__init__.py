"""The schema's history, one module a step. A step that was released is never changed again."""

from __future__ import annotations

from sqlite_utils import Migrations

from feedback.migrations.m001_start import start

MIGRATIONS = Migrations("mynah")
MIGRATIONS(name="m001_start")(start)
