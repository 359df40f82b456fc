"""The tables as the newest migration makes them. A test compares the two.

Times are integers of microseconds since 1970 in UTC, which both databases sort and compare alike. Ids are compared byte by byte,
whatever the database's collation.
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
)

METADATA: Final = MetaData()

ID: Final = Text().with_variant(Text(collation="C"), "postgresql")

trees = Table(
    "trees",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("owner", Text, nullable=False),
)
"""One row for each tree of messages. Writers lock it, so changes of one tree happen one after the other."""

conversations = Table(
    "conversations",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("tree_id", ID, ForeignKey("trees.id"), nullable=False),
    Column("title", Text, nullable=False),
    # Case-folded in Python, as neither database can do that for every script.
    Column("title_folded", Text, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("source", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("head_id", ID),
    Column("message_count", Integer, nullable=False),
    Column("forked_from", ID),
    # The request_id of the turn that created it.
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
    ),
    Index("conversations_tree", "tree_id"),
    Index("conversations_updated", "updated", "id"),
)

messages = Table(
    "messages",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("tree_id", ID, ForeignKey("trees.id", ondelete="CASCADE"), nullable=False),
    # The conversation in which it was created. In a fork it may outlive that conversation.
    Column("conversation_id", ID, nullable=False),
    Column("parent_id", ID),
    # The number of messages before it.
    Column("depth", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    # The columns from here on are for assistant messages of a turn only.
    Column("request_id", Text),
    # The worker that will complete it; null once it has.
    Column("worker", ID),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("finish_reason", Text),
    Column("error_reason", Text, nullable=False),
    Column("usage", Text),
    # The message as JSON. It is the last column, so that SQLite need not read it to follow a path.
    Column("body", Text, nullable=False),
    Index("messages_tree", "tree_id"),
    Index(
        "messages_request",
        "conversation_id",
        "request_id",
        unique=True,
    ),
    Index(
        "messages_in_progress",
        "worker",
    ),
)

workers = Table(
    "workers",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("seen", BigInteger, nullable=False),
    Column("process", Text, nullable=False, server_default=""),
)
"""The processes that begin turns: when each last reported, and which process on which machine it is."""

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
"""One row for each key ever created. `grants` is JSON; `previous_digest` is valid until `previous_until`."""

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
"""Admins' actions and refused calls; `count` of them in a row."""


def _counts() -> list[Column[int]]:
    """Return the columns of every table of usage. Money is in nano-dollars; `unpriced` are requests whose cost is not known."""
    return [
        Column(name, BigInteger, nullable=False)
        for name in ("requests", "prompt_tokens", "completion_tokens", "cost_nanos", "unpriced")
    ]


usage = Table(
    "usage",
    METADATA,
    # In UTC, such as 2026-11-25.
    Column("day", ID, primary_key=True),
    Column("owner", ID, primary_key=True),
    # `Principal.id`; empty for those who call without a key.
    Column("key", ID, primary_key=True),
    *_counts(),
)
"""Usage: one row for each day, owner and key. Money is in nano-dollars."""

model_usage = Table(
    "model_usage",
    METADATA,
    Column("day", ID, primary_key=True),
    Column("owner", ID, primary_key=True),
    Column("key", ID, primary_key=True),
    # The deployment: "<provider>" or "<provider>/<deployment>".
    Column("provider", ID, primary_key=True),
    # The provider's own name of it; empty if unknown; "*" for those beyond `ledger.MODELS`.
    Column("model", ID, primary_key=True),
    *_counts(),
)
"""Usage by deployment and model, where they are known. Its sums never exceed those of `usage`.

It lacks calls of earlier versions."""

tag_usage = Table(
    "tag_usage",
    METADATA,
    Column("day", ID, primary_key=True),
    Column("owner", ID, primary_key=True),
    Column("key", ID, primary_key=True),
    # Such as "team=search"; "*" for those beyond `ledger.TAGS`.
    Column("tag", ID, primary_key=True),
    *_counts(),
)
"""Usage by tag: a call is counted once for each of its tags, and not at all if it has none."""

drained_deployments = Table(
    "drained_deployments",
    METADATA,
    # "<provider>" or "<provider>/<deployment>".
    Column("deployment", ID, primary_key=True),
    # When it is in use again; NULL: when it is restored.
    Column("until", BigInteger),
)
"""The deployments that an admin took out of use."""

tripped_deployments = Table(
    "tripped_deployments",
    METADATA,
    # As in `drained_deployments`: a deployment may be in both.
    Column("deployment", ID, primary_key=True),
    # When its breakers let a probe pass.
    Column("until", BigInteger, nullable=False),
)
"""The deployments that an admin tripped."""

compatibility = Table("compatibility", METADATA, Column("oldest", ID, primary_key=True))
"""One row: the oldest revision that can use the present schema."""
