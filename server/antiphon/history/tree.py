"""Operations on a tree of messages within a transaction: find positions and paths, and insert messages.

The functions run inside a transaction of `sql`. Those that change a conversation require that it is locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec.structs import replace
from sqlalchemy import Connection, insert

from antiphon.database import clock
from antiphon.database.ids import is_id, new_id
from antiphon.database.prepared import PreparedStatement, together
from antiphon.database.tables import conversations, messages, trees
from antiphon.domain.content import Message
from antiphon.domain.errors import ConversationNotFound, MessageNotFound, RequestIdReused, TurnInProgress
from antiphon.history import body, rows, statements
from antiphon.history.base import Conversation, MessageState, StoredMessage, Turn

_GET: Final = PreparedStatement(statements.GET)
_LOCK: Final = PreparedStatement(statements.LOCK)
_PATH: Final = PreparedStatement(statements.PATH)
_TURN: Final = PreparedStatement(statements.TURN)
_ADVANCE: Final = PreparedStatement(statements.ADVANCE)

# A row that is there already is one that the same call has inserted, and not been told of: see `Database.write`.
_ONCE: Final = " ON CONFLICT (id) DO NOTHING"
_INSERT_TREE: Final = PreparedStatement(insert(trees), ending=_ONCE)
_INSERT_CONVERSATION: Final = PreparedStatement(insert(conversations), ending=_ONCE)
_INSERT_MESSAGES: Final = PreparedStatement(insert(messages), ending=_ONCE)

_FEW: Final = 4
"""The number of messages whose sizes are read first; each further read takes this many times as many."""

Found: TypeAlias = Any
"""A row that was read from the database: a tuple, with its columns as attributes."""

NewRow: TypeAlias = dict[str, Any]
"""A row of `messages` to insert, by column name."""


class TreePosition(NamedTuple):
    """A position in a tree: after the message `id` (None: at the start). `length` counts the messages up to it."""

    id: str | None
    length: int


START: Final = TreePosition(None, 0)

_STATES: Final = {state.value: state for state in MessageState}
_COMPLETE: Final = MessageState.COMPLETE.value


def find(connection: Connection, owner: str, conversation: str, *, lock: bool = False) -> Found:
    """Return the owner's conversation, with its `tree_id`; `lock` locks it for a change. Raises `ConversationNotFound`."""
    if is_id(conversation):
        row = (_LOCK if lock else _GET).first(connection, {"mine": owner, "conversation": conversation})
        if row is not None:
            return row
    raise ConversationNotFound(conversation)


def get(connection: Connection, owner: str, conversation: str) -> Found:
    """Return the owner's conversation as the row that `counted` takes. Raises `ConversationNotFound`."""
    row = None
    if is_id(conversation):
        row = connection.execute(statements.GET_COUNTED, {"mine": owner, "conversation": conversation}).first()
    if row is None:
        raise ConversationNotFound(conversation)
    return row


def counted(connection: Connection, row: Found) -> Conversation:
    """Return the conversation with its empty replies counted. Few have any; the others cost no further query."""
    found = rows.conversation(row)
    if not row.may_have_empty:
        return found
    at = {"last": row.head_id, "tree": row.tree_id, "nothing": rows.NO_REPLY}
    return replace(found, empty_replies=connection.execute(statements.EMPTY_REPLIES, at).scalar_one())


def chains(found: Sequence[Found]) -> list[list[Found]]:
    """Group messages that are not on a path into chains, each oldest first; the chain with the newest last message comes first.

    Every message is in one chain. A chain that forks from another one comes after it. No chain ends with a reply without output.
    """
    known = {row.id: row for row in found}
    left: dict[str, Found] = {}  # non-empty replies and their ancestors, not in a chain yet
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


def created_by(connection: Connection, owner: str, request_id: str) -> Found | None:
    """Lock and return the owner's conversation that the turn with this request id created; None if it does not exist."""
    made = connection.execute(statements.CREATED_BY, {"mine": owner, "request": request_id}).scalar()
    return None if made is None else _LOCK.first(connection, {"mine": owner, "conversation": made})


def position(connection: Connection, row: Found, message: str | None) -> TreePosition:
    """Return the position of a message of the conversation; None: of the head. Raises `MessageNotFound`.

    The message may be on a branch too, as branches can be continued. Messages that only another conversation of the same tree has
    are not found.
    """
    if message is None or message == row.head_id:
        return TreePosition(row.head_id, row.message_count)
    if is_id(message):
        found = connection.execute(statements.POSITION, {"message": message, "tree": row.tree_id}).first()
        at = {"message": message, "tree": row.tree_id, "conversation": row.id, "last": row.head_id}
        # Checked first, as it is true for most messages, and cheap.
        if found is not None and (found.conversation_id == row.id or connection.execute(statements.IS_REACHED, at).first()):
            return TreePosition(found.id, found.depth + 1)
    raise MessageNotFound(message)


def path(connection: Connection, row: Found, last: str | None) -> tuple[StoredMessage, ...]:
    """Return the message `last` and all its ancestors, oldest first; empty for None."""
    if last is None:
        return ()
    return tuple(map(rows.stored, _PATH.all(connection, {"last": last, "tree": row.tree_id})))


def count_fitting(connection: Connection, at: Mapping[str, Any], size: int, most_bytes: int) -> tuple[int, bool]:
    """Return how many of the next `size` messages fit into `most_bytes` together, but at least one; and whether more follow.

    `at` has the parameters `last`, `tree` and `depth` of `statements.PATH_SIZES`. A database may have to read a text to know its
    size, so only a few sizes are read first.
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


def new_rows(parent: TreePosition, tree: str, conversation: str, bodies: Sequence[str]) -> list[NewRow]:
    """Return rows for new messages, each the child of the one before, the first a child of `parent`."""
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
                "state": _COMPLETE,
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
    """Delete the conversation, which is locked, and the messages that no other on its tree needs."""
    at = {"conversation": row.id, "tree": row.tree_id}
    shared = connection.execute(statements.TREE_IS_SHARED, at).first() is not None
    connection.execute(statements.DELETE_CONVERSATION, {"conversation": row.id})
    # Deleting a tree deletes its messages (ON DELETE CASCADE).
    connection.execute(statements.PRUNE if shared else statements.DELETE_TREE, {"tree": row.tree_id})


def append(connection: Connection, row: Found, new: list[NewRow]) -> Conversation:
    """Insert the messages, make the last of them the head, and return the changed conversation, which is locked."""
    last = new[-1]
    head, count = last["id"], last["depth"] + 1
    updated = max(clock.now(), row.updated + 1)  # always grows, even if a clock is set back
    advance = {"conversation": row.id, "head": head, "count": count, "now": updated}
    together(connection, (_INSERT_MESSAGES, new), (_ADVANCE, advance))
    return replace(rows.conversation(row), head_id=head, message_count=count, updated=clock.read(updated))


class NewConversation(NamedTuple):
    """A conversation on a new tree, and the rows to insert."""

    conversation: Conversation
    row: dict[str, Any]
    messages: list[NewRow]


def new_conversation(
    owner: str,
    bodies: Sequence[str],
    *,
    title: str,
    source: str,
    pinned: bool = False,
    request_id: str | None = None,
    reply: Mapping[str, Any] | None = None,
) -> NewConversation:
    """Return a conversation on a new tree, with its messages. `reply` has columns to set in the last message."""
    tree, id_ = new_id(), new_id()
    new = new_rows(START, tree, id_, bodies)
    if reply is not None:
        new[-1] |= reply
    head = TreePosition(new[-1]["id"], len(new)) if new else START
    made, row = _on_tree(owner, tree, head, id_=id_, title=title, source=source, pinned=pinned, request_id=request_id)
    return NewConversation(made, row, new)


def create(connection: Connection, new: NewConversation) -> Conversation:
    """Insert a conversation on a new tree, with its messages, and return it."""
    rows_ = ((_INSERT_MESSAGES, new.messages),) if new.messages else ()
    tree = {"id": new.row["tree_id"], "owner": new.row["owner"]}
    together(connection, (_INSERT_TREE, tree), (_INSERT_CONVERSATION, new.row), *rows_)
    return new.conversation


def fork(connection: Connection, row: Found, head: TreePosition, title: str) -> Conversation:
    """Insert a conversation with the head `head` on the tree of another, which is locked, and return it."""
    made, new = _on_tree(row.owner, row.tree_id, head, id_=new_id(), title=title, source=row.source, forked_from=row.id)
    _INSERT_CONVERSATION.count(connection, new)
    return made


def _on_tree(
    owner: str,
    tree: str,
    head: TreePosition,
    *,
    id_: str,
    title: str,
    source: str,
    pinned: bool = False,
    forked_from: str | None = None,
    request_id: str | None = None,
) -> tuple[Conversation, dict[str, Any]]:
    """Return a new conversation on a tree, with the head `head`, and its row."""
    created = clock.now()
    row = {
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
    time = clock.read(created)
    return Conversation(id_, owner, title, pinned, source, time, time, head.length, head.id, forked_from), row


def stored(new: NewRow, message: Message) -> StoredMessage:
    """Return an inserted row of `message` as it is read, without reading its JSON again."""
    created = clock.read(new["created"])
    return StoredMessage(new["id"], new["parent_id"], message, _STATES[new["state"]], created, new["request_id"] or "")


def new_turn(
    changed: Conversation,
    before: tuple[StoredMessage, ...],
    new: Sequence[NewRow],
    messages_: Sequence[Message],
    *,
    created_conversation: bool = False,
) -> Turn:
    """Return a turn that was started: the last of the new rows is its reply, which is empty; the others are of `messages_`."""
    *asked, reply = map(stored, new, (*messages_, rows.EMPTY))
    return Turn(changed, (*before, *asked), reply, existing=False, created_conversation=created_conversation)


def existing_turn(connection: Connection, row: Found, request_id: str, bodies: Sequence[str]) -> Turn | None:
    """Return the turn with this request id in the conversation; None if there is none.

    `bodies` are the messages that it must have. Raises `RequestIdReused` if it has others.
    """
    found = _TURN.first(connection, {"conversation": row.id, "request": request_id})
    if found is None:
        return None
    reply = rows.stored(found)
    before = path(connection, row, reply.parent_id)
    # Messages stored together have the same `created`: see `new_rows`.
    own = [stored.message for stored in before if stored.created == reply.created]
    if rows.bodies(own) != list(bodies):
        raise RequestIdReused(request_id)
    return Turn(rows.conversation(row), before, reply, existing=True, provider_info=body.provider_info(found.body))


def reopen(connection: Connection, turn: Turn, worker: str) -> Turn:
    """Set a turn that ended without output in progress again. Raises `TurnInProgress` if it has changed since it was read."""
    at = {"reply": turn.reply.id, "was": turn.reply.state.value, "me": worker}
    if not connection.execute(statements.REOPEN, at).rowcount:
        raise TurnInProgress(turn.reply.request_id)
    return replace(turn, reply=replace(turn.reply, state=MessageState.IN_PROGRESS, error_reason=""), existing=False)
