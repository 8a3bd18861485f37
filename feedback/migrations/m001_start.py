"""The first schema: people, chats, feedback, heads, updates and versions."""

from __future__ import annotations

from sqlite_utils import Database

_SCHEMA = """
create table users (
    id text primary key,
    name text not null,
    name_key text not null unique,
    password_hash text not null,
    admin integer not null default 0,
    disabled integer not null default 0,
    created_at text not null
) strict;

create table sessions (
    token_hash text primary key,
    user_id text not null references users(id) on delete cascade,
    created_at text not null,
    expires_at text not null
) strict;

create table api_keys (
    id text primary key,
    user_id text not null references users(id) on delete cascade,
    key_hash text not null unique,
    hint text not null,
    created_at text not null,
    used_at text
) strict;

create table conversations (
    id text primary key,
    user_id text not null references users(id) on delete cascade,
    title text not null,
    system text not null default '',
    learn integer not null default 1,
    created_at text not null,
    updated_at text not null
) strict;
create index conversations_by_user on conversations(user_id, updated_at);

create table replies (
    id text primary key,
    user_id text not null references users(id) on delete cascade,
    conversation_id text references conversations(id) on delete set null,
    group_id text not null,
    prompt text not null,
    text text not null,
    arm text not null,
    version integer,
    base_id text not null,
    sampling text not null,
    seed integer not null,
    token_ids blob not null,
    ended integer not null,
    learn integer not null,
    source text not null,
    latent blob not null,
    created_at text not null
) strict;
create index replies_by_user on replies(user_id, created_at);

create table messages (
    id text primary key,
    conversation_id text not null references conversations(id) on delete cascade,
    position integer not null,
    role text not null,
    content text not null,
    reply_id text references replies(id) on delete set null,
    unique (conversation_id, position)
) strict;

create table feedback (
    id text primary key,
    user_id text not null references users(id) on delete cascade,
    kind text not null,
    payload text not null,
    created_at text not null,
    retracted_at text
) strict;
create index feedback_by_user on feedback(user_id, created_at);

create table feedback_replies (
    feedback_id text not null references feedback(id) on delete cascade,
    reply_id text not null references replies(id) on delete cascade,
    primary key (feedback_id, reply_id)
) strict;
create index feedback_by_reply on feedback_replies(reply_id);

create table preferences (
    feedback_id text primary key references feedback(id) on delete cascade,
    user_id text not null references users(id) on delete cascade,
    base_id text not null,
    population text not null,
    seq integer not null,
    kind text not null,
    tiers text not null,
    thumb integer not null,
    value real not null,
    rows integer not null,
    features blob not null,
    held_out integer not null,
    unique (user_id, seq)
) strict;

create table idempotency (
    user_id text not null references users(id) on delete cascade,
    key text not null,
    request_hash text not null,
    answer text not null,
    created_at text not null,
    primary key (user_id, key)
) strict;

create table heads (
    user_id text not null references users(id) on delete cascade,
    base_id text not null,
    population text not null,
    mean blob not null,
    cov blob not null,
    threshold real not null,
    labels integer not null,
    updated_at text not null,
    primary key (user_id, base_id)
) strict;

create table updates (
    id text primary key,
    user_id text not null references users(id) on delete cascade,
    base_id text not null,
    state text not null,
    trigger text not null,
    seed integer not null,
    parent integer,
    first_label integer not null,
    last_label integer not null,
    config text not null,
    progress real not null default 0,
    eta_seconds real,
    metrics text not null default '{}',
    gate text not null default '[]',
    version integer,
    reason text not null default '',
    created_at text not null,
    started_at text,
    finished_at text
) strict;
create index updates_by_user on updates(user_id, created_at);
create unique index one_live_update on updates(user_id) where state in ('queued', 'running', 'paused');

create table versions (
    user_id text not null references users(id) on delete cascade,
    number integer not null,
    base_id text not null,
    status text not null,
    parent integer,
    update_id text,
    first_label integer not null,
    last_label integer not null,
    seed integer not null,
    config text not null,
    metrics text not null,
    gate text not null,
    manifest_sha256 text not null,
    created_at text not null,
    primary key (user_id, number)
) strict;

create table active_versions (
    user_id text not null references users(id) on delete cascade,
    base_id text not null,
    number integer not null,
    primary key (user_id, base_id),
    foreign key (user_id, number) references versions(user_id, number)
) strict;

create table counters (
    user_id text not null references users(id) on delete cascade,
    name text not null,
    value integer not null,
    primary key (user_id, name)
) strict;
"""


def start(db: Database) -> None:
    """Create every table."""
    for statement in _SCHEMA.split(";"):
        if statement.strip():
            db.execute(statement)
