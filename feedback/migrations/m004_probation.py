"""Versions on trial: how each trial began and ended, and which replies were shown side by side for it."""

from __future__ import annotations

from sqlite_utils import Database

_STATEMENTS = (
    """
    create table trials (
        seq integer primary key autoincrement,
        user_id text not null,
        number integer not null,
        what text not null,
        against integer,
        wins integer not null,
        losses integer not null,
        ties integer not null,
        words text not null,
        at text not null,
        foreign key (user_id, number) references versions(user_id, number) on delete cascade
    ) strict
    """,
    "create index trials_by_version on trials(user_id, number)",
    """
    create trigger trials_are_not_changed before update on trials
    begin select raise(abort, 'what is known of a trial is append-only'); end
    """,
    """
    create table duels (
        reply_id text primary key references replies(id) on delete cascade,
        other_id text not null references replies(id) on delete cascade,
        user_id text not null,
        number integer not null,
        created_at text not null,
        foreign key (user_id, number) references versions(user_id, number) on delete cascade
    ) strict
    """,
    "create index duels_by_version on duels(user_id, number)",
    "create index duels_by_other on duels(other_id)",
)


def probation(db: Database) -> None:
    """Create the tables."""
    for statement in _STATEMENTS:
        db.execute(statement)
