"""The tables, as the newest migration leaves them. A test holds the two together.

Times are microseconds since 1970 in UTC, as integers: both databases sort and compare those alike. Ids are compared byte by byte,
whatever the database's own collation.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA: Final = MetaData()

ID: Final = Text().with_variant(Text(collation="C"), "postgresql")

trees = Table(
    "trees",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("owner", Text, nullable=False),
)
"""One row for each tree of messages. It is what a writer locks: all that touches one tree happens one after the other."""

conversations = Table(
    "conversations",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("tree_id", ID, ForeignKey("trees.id"), nullable=False),
    Column("title", Text, nullable=False),
    # Case-folded by Python, as neither database can do that for every script.
    Column("title_folded", Text, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("source", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("head_id", ID),
    Column("message_count", Integer, nullable=False),
    Column("forked_from", ID),
    # The request_id of the turn that made it.
    Column("create_request_id", Text),
    UniqueConstraint("owner", "create_request_id", name="conversations_create_request"),
    Index("conversations_list", "owner", "pinned", "updated", "id"),
    Index(
        "conversations_list_source",
        "owner",
        "source",
        "pinned",
        "updated",
        "id",
        sqlite_where=text("source <> ''"),
        postgresql_where=text("source <> ''"),
    ),
    Index("conversations_tree", "tree_id"),
    Index("conversations_updated", "updated", "id"),
)

messages = Table(
    "messages",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("tree_id", ID, ForeignKey("trees.id", ondelete="CASCADE"), nullable=False),
    # Where it was made. It may outlive that conversation, in a fork.
    Column("conversation_id", ID, nullable=False),
    Column("parent_id", ID),
    # How many messages are before it.
    Column("depth", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    # Assistant messages of a turn only, from here.
    Column("request_id", Text),
    # The worker that is to end it; null once that one has.
    Column("worker", ID),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("finish_reason", Text),
    Column("error_reason", Text, nullable=False),
    Column("usage", Text),
    # The message as JSON. The last column: SQLite then needs not read it to follow a path.
    Column("body", Text, nullable=False),
    Index("messages_tree", "tree_id"),
    Index(
        "messages_request",
        "conversation_id",
        "request_id",
        unique=True,
        sqlite_where=text("request_id IS NOT NULL"),
        postgresql_where=text("request_id IS NOT NULL"),
    ),
    Index(
        "messages_in_progress",
        "worker",
        sqlite_where=text("state = 'in_progress'"),
        postgresql_where=text("state = 'in_progress'"),
    ),
)

workers = Table(
    "workers",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("seen", BigInteger, nullable=False),
    Column("process", Text, nullable=False, server_default=""),
)
"""The processes that begin turns, when each last said that it lives, and which process of which machine it is."""

api_keys = Table(
    "api_keys",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("digest", ID, nullable=False, unique=True),
    Column("previous_digest", ID, unique=True),
    Column("previous_until", BigInteger),
    Column("hint", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("grants", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Column("last_used", BigInteger),
    Index("api_keys_owner", "owner", "id"),
)
"""One row for each key that was ever made. `grants` is JSON; `previous_digest` is good until `previous_until`."""

audit_events = Table(
    "audit_events",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Index("audit_events_time", "time"),
    Index("audit_events_actor", "actor", "id"),
    Index("audit_events_action", "action", "id"),
)
"""What admins did, and which calls were refused; `count` in a row."""

usage = Table(
    "usage",
    METADATA,
    # In UTC, as in 2026-11-25.
    Column("day", ID, primary_key=True),
    Column("owner", ID, primary_key=True),
    # `Principal.id`; empty for those who call without a key.
    Column("key", ID, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cost_nanos", BigInteger, nullable=False),
    # Requests whose cost is not known.
    Column("unpriced", BigInteger, nullable=False),
)
"""What was used: one row for each day and key. Money is in nano-dollars."""

model_usage = Table(
    "model_usage",
    METADATA,
    Column("day", ID, primary_key=True),
    Column("owner", ID, primary_key=True),
    Column("key", ID, primary_key=True),
    Column("provider", ID, primary_key=True),
    # As the provider names it. Empty: not known. "*": one of several.
    Column("model", ID, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cost_nanos", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),
)
"""The same by provider and model, as far as these are known: never more than `usage` has, and less of calls of earlier versions."""

tag_usage = Table(
    "tag_usage",
    METADATA,
    Column("day", ID, primary_key=True),
    Column("owner", ID, primary_key=True),
    Column("key", ID, primary_key=True),
    # As in "team=search". "*": one of several.
    Column("tag", ID, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cost_nanos", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),
)
"""The same by tag: a call is in it once for each of its tags, and not at all without."""

compatibility = Table("compatibility", METADATA, Column("oldest", ID, primary_key=True))
"""One row: the oldest revision whose program can use the schema as it is."""
