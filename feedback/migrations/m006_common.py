"""What people have in common, while those whose acts it is made of are there and share: it goes with the first of them,
and with it the copies of heads that began there (their `population` says so by a "+")."""

from __future__ import annotations

from sqlite_utils import Database

_STATEMENTS = (
    """
    create table common (
        only integer primary key check (only = 1), version text not null, population text not null,
        share real not null, gain real not null, made_at text not null
    )
    """,
    """
    create table common_people (
        user_id text primary key references users(id) on delete cascade, part blob not null
    )
    """,
    """
    create trigger common_left after delete on common_people begin
        delete from common;
        delete from common_people;
        delete from heads where instr(population, '+');
    end
    """,
)


def common(db: Database) -> None:
    """Add the tables."""
    for statement in _STATEMENTS:
        db.execute(statement)
