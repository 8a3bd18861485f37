"""What admins set and do: settings, invitations, the audit log. And for each version, what it wrote beside the base."""

from __future__ import annotations

from sqlite_utils import Database

_STATEMENTS = (
    """
    create table settings (
        name text primary key,
        value text not null,
        changed_at text not null
    ) strict
    """,
    """
    create table invitations (
        id text primary key,
        token_hash text not null unique,
        note text not null,
        invited_by text not null references users(id) on delete cascade,
        created_at text not null,
        expires_at text not null
    ) strict
    """,
    """
    create table audit (
        number integer primary key autoincrement,
        at text not null,
        admin text not null,
        action text not null,
        subject text not null,
        details text not null
    ) strict
    """,
    """
    create trigger audit_is_not_changed before update on audit
    begin select raise(abort, 'the audit log is append-only'); end
    """,
    """
    create trigger audit_is_not_shortened before delete on audit
    begin select raise(abort, 'the audit log is append-only'); end
    """,
    """
    create table examples (
        user_id text not null,
        number integer not null,
        prompt text not null,
        base_text text not null,
        version_text text not null,
        seed integer not null,
        created_at text not null,
        primary key (user_id, number, prompt),
        foreign key (user_id, number) references versions(user_id, number) on delete cascade
    ) strict
    """,
)


def administration(db: Database) -> None:
    """Create the tables."""
    for statement in _STATEMENTS:
        db.execute(statement)
