"""What is taken back leaves nothing: when a version was forgotten, and no words in acts that were taken back before.

`first_seq` of a preference is the number of the first act that it stands in the place of, its own where there is none.
"""

from __future__ import annotations

from sqlite_utils import Database

_STATEMENTS = (
    "alter table versions add column forgotten_at text",
    "alter table preferences add column first_seq integer not null default 0",
    "update preferences set first_seq = seq",
    "update feedback set payload = '{}' where retracted_at is not null",
    "delete from feedback_replies where feedback_id in (select id from feedback where retracted_at is not null)",
)


def forgetting(db: Database) -> None:
    """Add the column and erase."""
    for statement in _STATEMENTS:
        db.execute(statement)
