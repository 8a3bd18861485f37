"""Conversations one can branch, archive, search and delete with a way back; settings of a person.

A message knows the one it follows, so that an earlier message can be asked anew beside the old one; a conversation
knows the last message it shows. `seq` is the message's row in the search index, which holds its text as
feedback/search.py cuts it up.
"""

from __future__ import annotations

from sqlite_utils import Database

from feedback.search import indexed

_BEFORE = """
create table messages_new (
    seq integer primary key,
    id text not null unique,
    conversation_id text not null references conversations(id) on delete cascade,
    parent_id text,
    position integer not null,
    role text not null,
    content text not null,
    reply_id text references replies(id) on delete set null
) strict;
insert into messages_new (id, conversation_id, parent_id, position, role, content, reply_id)
    select id, conversation_id, lag(id) over (partition by conversation_id order by position), position, role, content,
    reply_id from messages order by rowid;
drop table messages;
alter table messages_new rename to messages;
create index messages_by_conversation on messages(conversation_id, position);

alter table conversations add column archived integer not null default 0;
alter table conversations add column deleted_at text;
alter table conversations add column leaf_id text;
update conversations set leaf_id =
    (select id from messages where conversation_id = conversations.id order by position desc limit 1);
create index conversations_deleted on conversations(deleted_at) where deleted_at is not null;

create table user_settings (
    user_id text not null references users(id) on delete cascade,
    name text not null,
    value text not null,
    primary key (user_id, name)
) strict;

create virtual table search using fts5(owner, text, tokenize="unicode61 remove_diacritics 2")
"""
_FORGET = "create trigger search_forgets after delete on messages begin delete from search where rowid = old.seq; end"


def chat(db: Database) -> None:
    """Rebuild messages as a tree and index what there is."""
    for statement in _BEFORE.split(";"):
        db.execute(statement)
    db.execute(_FORGET)
    sql = "select seq, user_id, content from messages join conversations on conversations.id = conversation_id"
    for seq, user_id, content in db.execute(sql).fetchall():
        db.execute("insert into search (rowid, owner, text) values (?, ?, ?)", [seq, user_id, indexed(content)])
