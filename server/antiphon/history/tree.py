"""What a unit of work does to a tree of messages: finds its way in it, and puts new ones behind others.

These functions run inside a transaction of `sql`, on a conversation that is locked where they change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec.structs import replace
from sqlalchemy import Connection, Row, insert

from antiphon.database import clock
from antiphon.database.ids import is_id, new_id
from antiphon.database.tables import conversations, messages, trees
from antiphon.domain.errors import ConversationNotFound, MessageNotFound, RequestIdReused, TurnInProgress
from antiphon.history import body, rows, statements
from antiphon.history.base import Conversation, MessageState, StoredMessage, Turn

_INSERT_TREE: Final = insert(trees)
_INSERT_CONVERSATION: Final = insert(conversations)
_INSERT_MESSAGES: Final = insert(messages)

_FEW: Final = 4
"""Messages whose sizes are looked at first; then so many times as many."""

Found: TypeAlias = Row[*tuple[Any, ...]]
"""A row that was read."""

NewRow: TypeAlias = dict[str, Any]
"""A row of `messages` that is to be inserted."""


class Place(NamedTuple):
    """Where to go on: behind the message `id`, the first of which has the depth 0. `length` counts the messages up to it."""

    id: str | None
    length: int


START: Final = Place(None, 0)


def find(connection: Connection, owner: str, conversation: str, *, lock: bool = False) -> Found:
    """The owner's conversation, and its `tree_id`; `lock` for a change. Raises `ConversationNotFound`."""
    if is_id(conversation):
        query = statements.LOCK if lock else statements.GET
        row = connection.execute(query, {"mine": owner, "conversation": conversation}).first()
        if row is not None:
            return row
    raise ConversationNotFound(conversation)


def get(connection: Connection, owner: str, conversation: str) -> Found:
    """The owner's conversation as `counted` takes it. Raises `ConversationNotFound`."""
    row = None
    if is_id(conversation):
        row = connection.execute(statements.GET_COUNTED, {"mine": owner, "conversation": conversation}).first()
    if row is None:
        raise ConversationNotFound(conversation)
    return row


def counted(connection: Connection, row: Found) -> Conversation:
    """The conversation, with the replies of which nothing came counted. Few have any: the others cost no query."""
    found = rows.conversation(row)
    if not row.may_have_empty:
        return found
    at = {"last": row.head_id, "tree": row.tree_id, "nothing": rows.NO_REPLY}
    return replace(found, empty_replies=connection.execute(statements.EMPTY_REPLIES, at).scalar_one())


def chains(found: Sequence[Found]) -> list[list[Found]]:
    """Messages that are not on a path as chains, each from its first message to a last one; the newest last message first.

    Every message is in one chain. A chain that leaves another one comes behind that. Replies of which nothing came end none.
    """
    known = {row.id: row for row in found}
    left: dict[str, Found] = {}  # of those, what is said and what stands before it
    for row in found:
        at = None if row.is_empty else row
        while at is not None and at.id not in left:
            left[at.id] = at
            at = known.get(at.parent_id)
    parents = {row.parent_id for row in left.values()}
    made: list[list[Found]] = []
    for end in sorted(left.keys() - parents, reverse=True):
        chain: list[Found] = []
        at = left[end]
        while at is not None:
            chain.append(left.pop(at.id))
            at = left.get(at.parent_id)
        made.append(chain[::-1])
    return made


def made_by(connection: Connection, owner: str, request_id: str) -> Found | None:
    """The owner's conversation that the turn of this request_id made, locked; None if there is none, or none any more."""
    made = connection.execute(statements.CREATED_BY, {"mine": owner, "request": request_id}).scalar()
    return None if made is None else connection.execute(statements.LOCK, {"mine": owner, "conversation": made}).first()


def place(connection: Connection, row: Found, message: str | None) -> Place:
    """Where a message of the conversation is, None: its head. Raises `MessageNotFound`.

    Not only those of the path are: a branch that was left can be taken up again. But what was only said in another conversation of
    the same tree is not.
    """
    if message is None or message == row.head_id:
        return Place(row.head_id, row.message_count)
    if is_id(message):
        found = connection.execute(statements.PLACE, {"message": message, "tree": row.tree_id}).first()
        at = {"message": message, "tree": row.tree_id, "conversation": row.id, "last": row.head_id}
        # Most are of the conversation's own, so that its messages need not be gone through.
        if found is not None and (found.conversation_id == row.id or connection.execute(statements.IS_REACHED, at).first()):
            return Place(found.id, found.depth + 1)
    raise MessageNotFound(message)


def path(connection: Connection, row: Found, last: str | None) -> tuple[StoredMessage, ...]:
    """The message and all before it, the oldest first."""
    if last is None:
        return ()
    found = connection.execute(statements.PATH, {"last": last, "tree": row.tree_id})
    return tuple(map(rows.stored, found))


def fitting(connection: Connection, at: Mapping[str, Any], size: int, most_bytes: int) -> tuple[int, bool]:
    """How many of the next `size` messages are not larger than `most_bytes` together, but at least one; and whether there are more.

    `at` are `last`, `tree` and `depth` of `statements.PATH_SIZES`. A database may have to read a text to know its size, so that few
    are looked at first.
    """
    found: list[int] = []
    total, look = 0, _FEW
    while len(found) <= size:
        wanted = min(look, size + 1 - len(found))
        sizes = connection.execute(statements.PATH_SIZES, {**at, "depth": at["depth"] + len(found), "size": wanted}).scalars().all()
        for each in sizes:
            total += each
            if found and (total > most_bytes or len(found) == size):
                return len(found), True
            found.append(each)
        if len(sizes) < wanted:
            break
        look *= _FEW
    return len(found), False


def behind(parent: Place, tree: str, conversation: str, bodies: Sequence[str]) -> list[NewRow]:
    """Rows for new messages, each behind the one before."""
    created = clock.now()
    new: list[NewRow] = []
    last = parent.id
    for depth, written in enumerate(bodies, parent.length):
        new.append(
            {
                "id": new_id(),
                "tree_id": tree,
                "conversation_id": conversation,
                "parent_id": last,
                "depth": depth,
                "state": MessageState.COMPLETE.value,
                "created": created,
                "request_id": None,
                "worker": None,
                "model": "",
                "provider": "",
                "finish_reason": None,
                "error_reason": "",
                "usage": None,
                "body": written,
            }
        )
        last = new[-1]["id"]
    return new


def delete(connection: Connection, row: Found) -> None:
    """The conversation, which is locked, and the messages that no other on its tree needs."""
    at = {"conversation": row.id, "tree": row.tree_id}
    shared = connection.execute(statements.TREE_IS_SHARED, at).first() is not None
    connection.execute(statements.DELETE_CONVERSATION, {"conversation": row.id})
    # The messages of a tree go with it.
    connection.execute(statements.PRUNE if shared else statements.DELETE_TREE, {"tree": row.tree_id})


def append(connection: Connection, row: Found, new: Sequence[NewRow]) -> Conversation:
    """Inserts the messages, and makes the last of them the head."""
    connection.execute(_INSERT_MESSAGES, new)
    last = new[-1]
    moved = {"conversation": row.id, "head": last["id"], "count": last["depth"] + 1, "now": clock.now()}
    return rows.conversation(connection.execute(statements.ADVANCE, moved).one())


def create(
    connection: Connection,
    owner: str,
    bodies: Sequence[str],
    *,
    title: str,
    source: str,
    pinned: bool = False,
    request_id: str | None = None,
    reply: Mapping[str, Any] | None = None,
) -> tuple[Conversation, list[NewRow]]:
    """A new conversation on a new tree, with its messages; `reply` are values of the last of them."""
    tree, id_ = new_id(), new_id()
    new = behind(START, tree, id_, bodies)
    if reply is not None:
        new[-1] |= reply
    connection.execute(_INSERT_TREE, {"id": tree, "owner": owner})
    head = Place(new[-1]["id"], len(new)) if new else START
    made = conversation(connection, owner, tree, head, id_=id_, title=title, source=source, pinned=pinned, request_id=request_id)
    if new:
        connection.execute(_INSERT_MESSAGES, new)
    return made, new


def conversation(
    connection: Connection,
    owner: str,
    tree: str,
    head: Place,
    *,
    id_: str,
    title: str,
    source: str,
    pinned: bool = False,
    forked_from: str | None = None,
    request_id: str | None = None,
) -> Conversation:
    """A new conversation on a tree."""
    created = clock.now()
    values = {
        "id": id_,
        "owner": owner,
        "tree_id": tree,
        "title": title,
        "title_folded": title.casefold(),
        "pinned": pinned,
        "source": source,
        "created": created,
        "updated": created,
        "head_id": head.id,
        "message_count": head.length,
        "forked_from": forked_from,
        "create_request_id": request_id,
    }
    connection.execute(_INSERT_CONVERSATION, values)
    return rows.conversation([values[column.name] for column in statements.CONVERSATION])


def stored(new: NewRow) -> StoredMessage:
    """A row that was inserted, as it is read."""
    return rows.stored([new[column.name] for column in statements.MESSAGE])


def turn(changed: Conversation, before: tuple[StoredMessage, ...], new: Sequence[NewRow], *, made: bool = False) -> Turn:
    """A turn that was begun: the last of its new messages is the reply."""
    *said, reply = map(stored, new)
    return Turn(changed, (*before, *said), reply, existing=False, made=made)


def existing(connection: Connection, row: Found, request_id: str, bodies: Sequence[str]) -> Turn | None:
    """The turn of this request_id in the conversation, if there is one.

    `bodies` are the messages that it is to have. Raises `RequestIdReused`.
    """
    found = connection.execute(statements.TURN, {"conversation": row.id, "request": request_id}).first()
    if found is None:
        return None
    reply = rows.stored(found)
    before = path(connection, row, reply.parent_id)
    # What was stored in one go has one time: see `behind`.
    own = [stored.message for stored in before if stored.created == reply.created]
    if rows.bodies(own) != list(bodies):
        raise RequestIdReused(request_id)
    return Turn(rows.conversation(row), before, reply, existing=True, told=body.told(found.body))


def reopen(connection: Connection, turn: Turn, worker: str) -> Turn:
    """A turn that ended before anything was said, in progress again. Raises `TurnInProgress` if it is no longer as it was read."""
    at = {"reply": turn.reply.id, "was": turn.reply.state.value, "me": worker}
    if not connection.execute(statements.REOPEN, at).rowcount:
        raise TurnInProgress(turn.reply.request_id)
    return replace(turn, reply=replace(turn.reply, state=MessageState.IN_PROGRESS, error_reason=""), existing=False)
