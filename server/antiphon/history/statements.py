"""The SQL statements of the store, built once: building one costs as much as running it.

Each statement that takes an id from a caller is restricted to the owner too. Bound parameters have other names than columns, as
SQLAlchemy requires in an UPDATE: `mine` is the owner, `me` this worker.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from sqlalchemy import (
    CTE,
    ColumnElement,
    Delete,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from antiphon.database.size import ByteLength
from antiphon.database.tables import conversations, messages, trees, workers
from antiphon.history.base import MessageState

Query: TypeAlias = Select[*tuple[Any, ...]]

_C: Final = conversations.c
_M: Final = messages.c

CONVERSATION: Final = (
    _C.id,
    _C.owner,
    _C.title,
    _C.pinned,
    _C.source,
    _C.created,
    _C.updated,
    _C.message_count,
    _C.head_id,
    _C.forked_from,
)
"""The columns that `rows.conversation` reads, in its order."""

MESSAGE: Final = (
    _M.id,
    _M.parent_id,
    _M.body,
    _M.state,
    _M.created,
    _M.request_id,
    _M.model,
    _M.provider,
    _M.usage,
    _M.finish_reason,
    _M.error_reason,
)
"""The columns that `rows.stored` reads, in its order."""

_MINE: Final = (_C.id == bindparam("conversation"), _C.owner == bindparam("mine"))

# `updated` always grows, even if a clock is set back.
_NOW: Final = bindparam("now", type_=_C.updated.type)
_UPDATED: Final = case((_C.updated < _NOW, _NOW), else_=_C.updated + 1)

GET: Final[Query] = select(*CONVERSATION, _C.tree_id).where(*_MINE)

_FAILED: Final = _M.state == literal_column(f"'{MessageState.FAILED}'")
_CANCELLED: Final = _M.state == literal_column(f"'{MessageState.CANCELLED}'")
_IS_EMPTY: Final = or_(_FAILED, and_(_CANCELLED, _M.body == bindparam("nothing")))
"""Whether a message is a reply without output, as in `StoredMessage.is_retryable`. `nothing` is the body of such a reply."""


def _may_have_empty() -> ColumnElement[Any]:
    """Return a column that is NULL if no reply in the tree failed or was cancelled.

    It takes about 0.4 us per message of the tree; following the path would cost ten times as much.
    """
    # With LIMIT, as PostgreSQL might read the whole table for an EXISTS.
    ended: Query = select(literal_column("1")).where(_M.tree_id == _C.tree_id, or_(_FAILED, _CANCELLED))
    return ended.limit(1).correlate(conversations).label("may_have_empty")


COUNTED: Final = (*CONVERSATION, _C.tree_id, _may_have_empty())
"""The columns that `tree.counted` reads."""

GET_COUNTED: Final[Query] = select(*COUNTED).where(*_MINE)

LOCK: Final[Query] = GET.join_from(conversations, trees, trees.c.id == _C.tree_id).with_for_update()
"""Selects a conversation, and locks it and its tree until the transaction ends. SQLite needs no such lock, as it has one writer."""

UNTOUCHED: Final[Query] = (
    select(*CONVERSATION, _C.tree_id)
    .join_from(conversations, trees, trees.c.id == _C.tree_id)
    .where(_C.updated < bindparam("before", type_=_C.updated.type))
    .order_by(_C.updated, _C.id)
    .limit(bindparam("most", type_=_C.message_count.type))
    .with_for_update(skip_locked=True)
)
"""Selects and locks conversations of all owners not changed since `before`, oldest first. Skips those that another process has
locked."""

CREATED_BY: Final = select(_C.id).where(_C.owner == bindparam("mine"), _C.create_request_id == bindparam("request"))

TURN: Final[Query] = select(*MESSAGE).where(_M.conversation_id == bindparam("conversation"), _M.request_id == bindparam("request"))

POSITION: Final = select(_M.id, _M.depth, _M.conversation_id).where(_M.id == bindparam("message"), _M.tree_id == bindparam("tree"))
"""Selects the position of a message in its tree."""

ADVANCE: Final = (
    update(conversations)
    .where(_C.id == bindparam("conversation"))
    .values(head_id=bindparam("head"), message_count=bindparam("count"), updated=_NOW)
)
"""Sets the head of a conversation, which must be locked, and its time of change."""

# A turn of this worker that it has not ended, and that no other worker has started again.
_OURS: Final = (_M.id == bindparam("reply"), _M.worker == bindparam("me"))

OUR_TURN: Final = select(_M.id).where(*_OURS)

TOUCH_TURN: Final = (
    update(conversations)
    .where(
        _C.owner == bindparam("mine"),
        _C.id == select(_M.conversation_id).where(*_OURS).scalar_subquery(),
    )
    .values(updated=_UPDATED)
)

END_TURN: Final = update(messages).where(
    *_OURS,
    select(trees.c.id).where(trees.c.id == _M.tree_id, trees.c.owner == bindparam("mine")).exists(),
)
"""Sets the given columns of the reply of one of this worker's turns."""

TURN_OUTCOME: Final = (
    select(_M.state, _M.body)
    .join(conversations, _C.id == _M.conversation_id)
    .where(_M.id == bindparam("reply"), _C.owner == bindparam("mine"))
)
"""Selects the state and body of a turn's reply, if the conversation that the turn belongs to still exists."""

CHECKPOINT: Final = (
    update(messages)
    .where(*_OURS, _M.state == MessageState.IN_PROGRESS.value)
    .values(body=bindparam("partial"), model=bindparam("by_model"), provider=bindparam("by_provider"))
)
"""Stores the partial reply of a turn that is in progress in this worker."""

REOPEN: Final = (
    update(messages)
    .where(_M.id == bindparam("reply"), _M.state == bindparam("was"))
    .values(state=MessageState.IN_PROGRESS.value, worker=bindparam("me"), error_reason="")
)
"""Starts a turn again, if its state is still `was`. Its body stays: the turn ended without output, so the body has none."""

TREE_IS_SHARED: Final = select(_C.id).where(_C.tree_id == bindparam("tree"), _C.id != bindparam("conversation")).limit(1)
DELETE_CONVERSATION: Final = delete(conversations).where(_C.id == bindparam("conversation"))
DELETE_TREE: Final = delete(trees).where(trees.c.id == bindparam("tree"))

# A literal, not a bound parameter: only then do the plans use the partial index.
_IN_PROGRESS: Final = _M.state == literal_column(f"'{MessageState.IN_PROGRESS}'")

OWN_IN_PROGRESS: Final = select(_M.id).where(_IN_PROGRESS, _M.worker == bindparam("me"))
OTHERS_IN_PROGRESS: Final = (
    select(_M.id)
    .where(
        _IN_PROGRESS,
        _M.worker != bindparam("me"),
        _M.worker.not_in(select(workers.c.id).where(workers.c.seen >= bindparam("limit"))),
    )
    .with_for_update(skip_locked=True)
)
"""Selects the turns in progress of dead workers, except those that another process has locked."""
SETTLE: Final = (
    update(messages)
    .where(_M.id == bindparam("reply"), _IN_PROGRESS)
    .values(
        state=case(
            (_M.body == bindparam("nothing"), MessageState.FAILED.value),
            else_=MessageState.INCOMPLETE.value,
        )
    )
)
"""Ends a turn in progress. `nothing` is the body of a reply without output. `worker` stays: if that worker was only suspended,
its own result is better than this guess, as long as the turn was not started again."""
FORGET_WORKERS: Final = delete(workers).where(workers.c.seen < bindparam("limit"))


def _walk(*bounds: ColumnElement[bool]) -> CTE:
    """Return a CTE of the ids of the message `last` and its ancestors, up to the first ancestor that does not fulfil `bounds`."""
    last = select(_M.id, _M.parent_id).where(_M.id == bindparam("last"), _M.tree_id == bindparam("tree"))
    walk = last.cte("walk", recursive=True)
    return walk.union_all(select(_M.id, _M.parent_id).join(walk, _M.id == walk.c.parent_id).where(*bounds))


_WALK: Final = _walk()
PATH: Final[Query] = select(*MESSAGE).join(_WALK, _M.id == _WALK.c.id).order_by(_M.depth)
"""Selects the message `last` of `tree` and all its ancestors, oldest first."""

_DEPTH: Final = bindparam("depth", type_=_M.depth.type)
_FROM: Final = _M.depth >= _DEPTH
_WALK_FROM: Final = _walk(_FROM)


def _page(*columns: ColumnElement[Any]) -> Query:
    """Return the query for `columns` of the `size` messages from depth `depth` on, of the path that ends at `last`."""
    path = select(*columns).join_from(messages, _WALK_FROM, _M.id == _WALK_FROM.c.id)
    # Restricted by depth, not by LIMIT: with LIMIT a database would read all following texts to sort them.
    return path.where(_FROM, _M.depth < _DEPTH + bindparam("size", type_=_M.depth.type)).order_by(_M.depth)


PATH_FROM: Final[Query] = select(*MESSAGE).join_from(messages, _WALK_FROM, _M.id == _WALK_FROM.c.id).where(_FROM).order_by(_M.depth)
"""Selects the messages from depth `depth` on, of the path that ends at `last`; those before them are not read."""

PATH_PAGE: Final[Query] = _page(*MESSAGE)
PATH_SIZES: Final = _page(ByteLength(_M.body) + func.coalesce(func.length(_M.usage), 0))
"""Selects the approximate sizes of a page's rows, in bytes."""


EMPTY_REPLIES: Final = (
    select(func.count()).select_from(messages).join(_WALK, _M.id == _WALK.c.id).where(_M.tree_id == bindparam("tree"), _IS_EMPTY)
)
"""Counts the replies without output on the path that ends at `last`."""


def _reached(begin: ColumnElement[bool]) -> CTE:
    """Return a CTE of the ids of the messages of a tree that fulfil `begin`, and of all their ancestors."""
    reached = select(_M.id, _M.parent_id).where(_M.tree_id == bindparam("tree"), begin).cte("reached", recursive=True)
    return reached.union(select(_M.id, _M.parent_id).join(reached, _M.id == reached.c.parent_id))


# A conversation has the messages of its path, those created in it, and their ancestors: earlier branches can be continued.
_OF_CONVERSATION: Final = or_(_M.conversation_id == bindparam("conversation"), _M.id == bindparam("last"))


def _is_reached() -> Query:
    reached = _reached(_OF_CONVERSATION)
    return select(reached.c.id).where(reached.c.id == bindparam("message")).limit(1)


IS_REACHED: Final[Query] = _is_reached()
"""Selects the message, if it belongs to the conversation with the head `last`."""


def _off_path() -> Query:
    reached = _reached(_OF_CONVERSATION)
    query = select(_M.id, _M.parent_id, _M.depth, _IS_EMPTY.label("is_empty")).join(reached, _M.id == reached.c.id)
    return query.where(_M.id.not_in(select(_WALK.c.id)))


OFF_PATH: Final[Query] = _off_path()
"""Selects the messages of a conversation that are not on its path, which ends at `last`."""


def _prune() -> Delete:
    # The messages of the conversations that remain on the tree stay.
    left = select(_C.id).where(_C.tree_id == bindparam("tree"))
    heads = select(_C.head_id).where(_C.tree_id == bindparam("tree"), _C.head_id.is_not(None))
    keep = _reached(or_(_M.conversation_id.in_(left), _M.id.in_(heads)))
    return delete(messages).where(_M.tree_id == bindparam("tree"), _M.id.not_in(select(keep.c.id)))


PRUNE: Final = _prune()
"""Deletes the messages of a tree that no conversation on it needs."""


def listing(*, size: int, pinned: bool | None, source: str, folded_title: str, after: tuple[bool, int, str] | None) -> Query:
    """Return the query for one page of `mine`'s conversations; `after` is (pinned, updated, id) of the previous page's last one."""
    query = select(*COUNTED).where(_C.owner == bindparam("mine"))
    if pinned is not None:
        query = query.where(_C.pinned == bindparam("is_pinned", pinned, type_=_C.pinned.type))
    if source:
        # The second condition is redundant, but lets the plan use the partial index.
        query = query.where(_C.source == bindparam("of_source", source), _C.source != literal_column("''"))
    if folded_title:
        query = query.where(_C.title_folded.contains(folded_title, autoescape=True))
    if after is not None:
        order = _C.pinned, _C.updated, _C.id
        query = query.where(tuple_(*order) < tuple_(*after, types=[column.type for column in order]))
    return query.order_by(_C.pinned.desc(), _C.updated.desc(), _C.id.desc()).limit(size)


def changed(*, touch: bool, **values: Any) -> Update:
    """Return the statement that sets columns of one conversation of `mine`; `touch` sets its time of change too."""
    if touch:
        values["updated"] = _UPDATED
    return update(conversations).where(*_MINE).values(**values).returning(*CONVERSATION)
