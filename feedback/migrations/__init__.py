"""The schema's history, one module a step. A step that was released is never changed again."""

from __future__ import annotations

from sqlite_utils import Migrations

from feedback.migrations.m001_start import start
from feedback.migrations.m002_chat import chat
from feedback.migrations.m003_administration import administration
from feedback.migrations.m004_probation import probation
from feedback.migrations.m005_forgetting import forgetting
from feedback.migrations.m006_common import common
from feedback.migrations.m007_no_heads import no_heads
from feedback.migrations.m008_untaught import untaught
from feedback.migrations.m009_width import width
from feedback.migrations.m010_sure import sure

MIGRATIONS = Migrations("mynah")
MIGRATIONS(name="m001_start")(start)
MIGRATIONS(name="m002_chat")(chat)
MIGRATIONS(name="m003_administration")(administration)
MIGRATIONS(name="m004_probation")(probation)
MIGRATIONS(name="m005_forgetting")(forgetting)
MIGRATIONS(name="m006_common")(common)
MIGRATIONS(name="m007_no_heads")(no_heads)
MIGRATIONS(name="m008_untaught")(untaught)
MIGRATIONS(name="m009_width")(width)
MIGRATIONS(name="m010_sure")(sure)
