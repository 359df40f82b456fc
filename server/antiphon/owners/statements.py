"""The statements about one owner, by table.

Every table that holds data of owners must have its rows here: a test checks all tables.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from sqlalchemy import BindParameter, Select, bindparam, delete, func, or_, select, union, update

from antiphon.database.size import ByteLength
from antiphon.database.tables import api_keys, audit_events, conversations, messages, model_usage, tag_usage, trees, usage

Query: TypeAlias = Select[*tuple[Any, ...]]

_C: Final = conversations.c
_M: Final = messages.c
_OWNER: Final[BindParameter[str]] = bindparam("owner")
_IDS: Final[BindParameter[str]] = bindparam("ids", expanding=True)

CONVERSATIONS: Final = select(_C.id, _C.tree_id).where(_C.owner == _OWNER).order_by(_C.id)

CONVERSATION_ROWS: Final[Query] = (
    select(*(column for column in _C if column.name not in {"owner", "tree_id", "title_folded"}))
    .where(_C.id.in_(_IDS))
    .order_by(_C.id)
)

MESSAGE_SIZES: Final = (
    select(_M.id, (ByteLength(_M.body) + func.coalesce(func.length(_M.usage), 0)).label("size"))
    .where(_M.tree_id.in_(_IDS))
    .order_by(_M.tree_id, _M.depth, _M.id)
)

MESSAGE_ROWS: Final[Query] = (
    select(*(column for column in _M if column.name not in {"tree_id", "depth", "worker"}))
    .where(_M.id.in_(_IDS))
    .order_by(_M.tree_id, _M.depth, _M.id)
)

KEY_ROWS: Final[Query] = (
    select(*(column for column in api_keys.c if column.name not in {"owner", "digest", "previous_digest", "previous_until"}))
    .where(api_keys.c.owner == _OWNER)
    .order_by(api_keys.c.id)
)

USAGE_ROWS: Final[Query] = (
    select(*(column for column in usage.c if column.name != "owner"))
    .where(usage.c.owner == _OWNER)
    .order_by(usage.c.day, usage.c.key)
)

MODEL_USAGE_ROWS: Final[Query] = (
    select(*(column for column in model_usage.c if column.name != "owner"))
    .where(model_usage.c.owner == _OWNER)
    .order_by(model_usage.c.day, model_usage.c.key, model_usage.c.provider, model_usage.c.model)
)

TAG_USAGE_ROWS: Final[Query] = (
    select(*(column for column in tag_usage.c if column.name != "owner"))
    .where(tag_usage.c.owner == _OWNER)
    .order_by(tag_usage.c.day, tag_usage.c.key, tag_usage.c.tag)
)

CREDENTIALS: Final = union(
    select(("key:" + api_keys.c.id).label("id")).where(api_keys.c.owner == _OWNER),
    select(usage.c.key).where(usage.c.owner == _OWNER, usage.c.key != ""),
)
"""The credentials known to be the owner's, as named in the audit log."""

EVENT_ROWS: Final[Query] = (
    select(*audit_events.c)
    .where(
        or_(audit_events.c.actor.in_(_IDS), audit_events.c.target == bindparam("digest")), audit_events.c.id > bindparam("after")
    )
    .order_by(audit_events.c.id)
    .limit(bindparam("limit", type_=audit_events.c.count.type))
)

LOCKED: Final[Query] = (
    select(_C.id, _C.tree_id, _C.message_count)
    .join_from(conversations, trees, trees.c.id == _C.tree_id)
    .where(_C.owner == _OWNER)
    .order_by(_C.id)
    .limit(bindparam("limit", type_=_C.message_count.type))
    .with_for_update()
)
"""Some of the owner's conversations, locked together with their trees."""

COUNT_MESSAGES: Final = select(func.count()).select_from(messages).where(_M.tree_id.in_(_IDS))
DELETE_CONVERSATIONS: Final = delete(conversations).where(_C.tree_id.in_(_IDS))
DELETE_TREES: Final = delete(trees).where(trees.c.id.in_(_IDS))
"""Also deletes the messages of the trees, by cascade."""
DELETE_KEYS: Final = delete(api_keys).where(api_keys.c.owner == _OWNER)
DELETE_USAGE: Final = delete(usage).where(usage.c.owner == _OWNER)
DELETE_MODEL_USAGE: Final = delete(model_usage).where(model_usage.c.owner == _OWNER)
DELETE_TAG_USAGE: Final = delete(tag_usage).where(tag_usage.c.owner == _OWNER)
ANONYMIZE_ACTOR: Final = update(audit_events).where(audit_events.c.actor.in_(_IDS)).values(actor=bindparam("digest"), peer="")
"""Keeps in the audit log what was done, and removes who did it and from where."""
