"""The history store on a SQL database: what each method does in its transaction.

A method prepares values, passes a function to the `Database`, which runs it in a transaction, and returns its result. All SQL is in
`statements`, all conversion in `rows`; the differences between SQLite and PostgreSQL are in `sqlite` and `postgres`.

Two writes on one tree of messages run one after the other: each locks the tree first. A turn that starts while another of the same
conversation is in progress follows that one's reply; its path has what is stored of that reply by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from antiphon.database import clock, paging, text
from antiphon.database.base import Database
from antiphon.database.ids import is_id, new_id
from antiphon.database.prepared import PreparedStatement, together
from antiphon.database.tables import workers
from antiphon.domain.content import Message
from antiphon.domain.errors import ConversationChanged, ConversationNotFound, StoreUnavailable, TurnInProgress
from antiphon.history import rows, statements, tree
from antiphon.history.base import (
    BEGINNING,
    MAX_PAGE_BYTES,
    MAX_TITLE,
    Branch,
    BranchPage,
    Continue,
    Conversation,
    MessagePage,
    MessageState,
    Page,
    Parent,
    PartialReply,
    StoredMessage,
    Turn,
    TurnEnd,
)
from antiphon.history.paths import Paths
from antiphon.history.process import is_gone, this_process

STALE: Final = 15.0
"""Seconds without a heartbeat after which a worker is considered dead, if its process cannot be checked."""

_HEARTBEAT_INTERVAL: Final = 5.0
"""Seconds after which starting a turn renews the heartbeat itself, if nothing else did."""

_TOUCH_TURN: Final = PreparedStatement(statements.TOUCH_TURN)
_END_TURN: Final = PreparedStatement(
    statements.END_TURN, ("worker", "state", "body", "model", "provider", "usage", "finish_reason", "error_reason")
)

_T = TypeVar("_T")


class SqlStore:
    """Implements `base.Store`. One instance for each process, as it knows which turns its process has in progress."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._worker = new_id()
        self._process = this_process()
        self._last_heartbeat = float("-inf")
        # Reply ids of turns that are, or may be, in progress here. `settle` ends the other turns of this worker.
        self._in_progress: set[str] = set()
        self._paths = Paths()

    async def create(self, owner: str, *, title: str, source: str, pinned: bool, messages: Sequence[Message]) -> Conversation:
        rows.check_title(title)
        rows.check_source(source)
        new = tree.new_conversation(owner, rows.bodies(messages), title=title, source=source, pinned=pinned)
        return await self._database.write(lambda connection: tree.create(connection, new))

    async def get(self, owner: str, conversation: str) -> Conversation:
        return await self._database.read(lambda connection: tree.counted(connection, tree.get(connection, owner, conversation)))

    async def list(
        self,
        owner: str,
        *,
        size: int,
        token: str = "",
        pinned: bool | None = None,
        source: str = "",
        title_contains: str = "",
    ) -> Page:
        rows.check_source(source)
        text.check(title_contains, "title_contains", MAX_TITLE)
        filters = rows.digest(owner, pinned, source, title_contains)
        after = rows.read_token(token, rows.ListToken) if token else None
        if after is not None and after.filters != filters:
            raise paging.bad_token()
        query = statements.listing(
            size=size + 1,
            pinned=pinned,
            source=source,
            folded_title=title_contains.casefold(),
            after=None if after is None else (after.pinned, after.updated, after.id),
        )

        def work(connection: Connection) -> tuple[tuple[Conversation, ...], tree.Found | None]:
            found = connection.execute(query, {"mine": owner}).all()
            shown = tuple(tree.counted(connection, row) for row in found[:size])
            return shown, found[size - 1] if len(found) > size else None

        shown, last = await self._database.read(work)
        following = "" if last is None else paging.token(rows.ListToken(filters, last.pinned, last.updated, last.id))
        return Page(shown, following)

    async def update(self, owner: str, conversation: str, *, title: str | None = None, pinned: bool | None = None) -> Conversation:
        values: dict[str, Any] = {}
        if not is_id(conversation):
            raise ConversationNotFound(conversation)
        if title is not None:
            rows.check_title(title)
            values |= {"title": title, "title_folded": title.casefold()}
        if pinned is not None:
            values["pinned"] = pinned
        if not values:
            return await self.get(owner, conversation)
        # A pin is no change of the contents: `updated` stays.
        change = statements.changed(touch=title is not None, **values)

        def work(connection: Connection) -> Conversation:
            at = {"mine": owner, "conversation": conversation} | ({} if title is None else {"now": clock.now()})
            if connection.execute(change, at).first() is None:
                raise ConversationNotFound(conversation)
            return tree.counted(connection, tree.get(connection, owner, conversation))

        return await self._database.write(work)

    async def delete(self, owner: str, conversation: str) -> None:
        def work(connection: Connection) -> None:
            row = tree.find(connection, owner, conversation, lock=True)
            tree.delete(connection, row)

        await self._database.write(work)

    async def fork(self, owner: str, conversation: str, *, message_id: str | None = None, title: str | None = None) -> Conversation:
        if title is not None:
            rows.check_title(title)

        def work(connection: Connection) -> Conversation:
            row = tree.find(connection, owner, conversation, lock=True)
            head = tree.position(connection, row, message_id)
            made = tree.fork(connection, row, head, row.title if title is None else title)
            return tree.counted(connection, tree.get(connection, owner, made.id))

        return await self._database.write(work)

    async def messages(
        self, owner: str, conversation: str, *, size: int | None = None, token: str = "", most_bytes: int = MAX_PAGE_BYTES
    ) -> MessagePage:
        after = rows.read_token(token, rows.PathToken) if token else None
        if after is not None and after.conversation != conversation:
            raise paging.bad_token()
        depth = 0 if after is None else after.depth

        def work(connection: Connection) -> tuple[str | None, Sequence[tree.Found], bool]:
            row = tree.find(connection, owner, conversation)
            # All pages are of the path as it was at the first page; messages appended since are not on it.
            last = row.head_id if after is None else after.last
            if last is None:
                return None, (), False
            if size is None:
                return last, connection.execute(statements.PATH, {"last": last, "tree": row.tree_id}).all()[depth:], False
            at = {"last": last, "tree": row.tree_id, "depth": depth}
            count, more = tree.count_fitting(connection, at, size, most_bytes)
            return last, connection.execute(statements.PATH_PAGE, at | {"size": count}).all(), more

        last, found, more = await self._database.read(work)
        following = paging.token(rows.PathToken(conversation, last, depth + len(found))) if last is not None and more else ""
        return MessagePage(tuple(map(rows.stored, found)), following)

    async def branches(self, owner: str, conversation: str, *, size: int, token: str = "") -> BranchPage:
        after = rows.read_token(token, rows.BranchToken) if token else None
        if after is not None and after.conversation != conversation:
            raise paging.bad_token()

        def work(connection: Connection) -> tuple[str | None, Sequence[tree.Found]]:
            row = tree.find(connection, owner, conversation)
            at = {"conversation": row.id, "tree": row.tree_id, "last": row.head_id, "nothing": rows.NO_REPLY}
            return row.head_id, connection.execute(statements.OFF_PATH, at).all()

        head, off_path = await self._database.read(work)
        found = [chain for chain in tree.chains(off_path) if after is None or chain[-1].id < after.last]
        branches = tuple(
            Branch(chain[0].parent_id, paging.token(rows.PathToken(conversation, chain[-1].id, chain[0].depth)))
            for chain in found[:size]
        )
        following = paging.token(rows.BranchToken(conversation, found[size - 1][-1].id)) if len(found) > size else ""
        return BranchPage(branches, following, "" if head is None else paging.token(rows.PathToken(conversation, head, 0)))

    async def append(
        self, owner: str, conversation: str, messages: Sequence[Message], *, expected_head: str | None = None
    ) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        bodies = rows.bodies(messages)

        def work(connection: Connection) -> tuple[Conversation, list[tree.NewRow]]:
            row = tree.find(connection, owner, conversation, lock=True)
            if expected_head is not None and expected_head != row.head_id:
                raise ConversationChanged(conversation)
            if not bodies:
                return rows.conversation(row), []
            new = tree.new_rows(tree.position(connection, row, None), row.tree_id, row.id, bodies)
            return tree.append(connection, row, new), new

        changed, new = await self._database.write(work)
        return changed, tuple(map(tree.stored, new, messages))

    async def begin_turn(
        self,
        owner: str,
        conversation: str | None,
        messages: Sequence[Message] | Continue,
        *,
        request_id: str = "",
        parent_id: Parent = None,
        title: str = "",
        source: str = "",
    ) -> Turn:
        rows.check_request_id(request_id)
        rows.check_title(title)
        rows.check_source(source)
        given, given_bodies = ((), []) if callable(messages) else (messages, rows.bodies(messages))
        reply_id, named = new_id(), request_id or None
        ours = {reply_id}
        reply = {"id": reply_id, "state": MessageState.IN_PROGRESS.value, "worker": self._worker, "request_id": named}
        created = None
        if conversation is None:
            written = [*given_bodies, rows.NO_REPLY]
            created = tree.new_conversation(owner, written, title=title, source=source, request_id=named, reply=reply)

        def existing(connection: Connection, row: tree.Found, bodies: Sequence[str]) -> Turn | None:
            turn = tree.existing_turn(connection, row, request_id, bodies) if named else None
            if turn is None or not turn.reply.is_retryable:
                return turn
            if turn.reply.id in self._in_progress and turn.reply.id not in ours:
                # An earlier attempt of this worker does not know yet that its end is stored, and will store it again. That write
                # could not be told apart from one of a new attempt.
                raise TurnInProgress(request_id)
            ours.add(turn.reply.id)
            self._in_progress.add(turn.reply.id)
            return tree.reopen(connection, turn, self._worker)

        def begin(connection: Connection) -> Turn:
            if created is not None:
                earlier = tree.created_by(connection, owner, request_id) if named else None
                if earlier and (turn := existing(connection, earlier, given_bodies)):
                    return turn
                return tree.new_turn(tree.create(connection, created), (), created.messages, given, created_conversation=True)
            assert conversation is not None
            row = tree.find(connection, owner, conversation, lock=True)
            path, asked, bodies, after = None, given, given_bodies, parent_id
            if callable(messages):
                path = self._paths.read(connection, row, row.head_id)
                asked, after = messages(path)
                bodies = rows.bodies(asked)
            if turn := existing(connection, row, bodies):
                return turn
            parent = tree.START if after is BEGINNING else tree.position(connection, row, after)
            before = self._paths.read(connection, row, parent.id) if path is None else path[: parent.length]
            new = tree.new_rows(parent, row.tree_id, row.id, [*bodies, rows.NO_REPLY])
            new[-1] |= reply
            return tree.new_turn(tree.append(connection, row, new), before, new, asked)

        # The heartbeat must be stored before the turn, or another worker could settle the turn.
        if time.monotonic() - self._last_heartbeat > _HEARTBEAT_INTERVAL:
            await self.heartbeat()
        self._in_progress.add(reply_id)
        turn = None
        try:
            try:
                turn = await self._database.write(begin, single=created is not None and not named)
            except IntegrityError:
                # Another call with the same request id created its conversation first. The second try finds it.
                turn = await self._database.write(begin)
            return turn
        finally:
            # If this raises although the commit succeeded, `settle` ends the turn.
            started = {turn.reply.id} if turn is not None and not turn.existing else set()
            self._in_progress -= ours - started

    async def checkpoint(self, replies: Sequence[PartialReply]) -> None:
        # Sorted, as every transaction that locks several of these rows does, so that none deadlock.
        ordered = sorted(replies, key=lambda each: each.reply_id)

        def work(connection: Connection) -> None:
            values = [
                {
                    "reply": each.reply_id,
                    "me": self._worker,
                    "partial": rows.reply(each.message),
                    "by_model": text.clean(each.model),
                    "by_provider": text.clean(each.provider),
                }
                for each in ordered
            ]
            connection.execute(statements.CHECKPOINT, values)

        if ordered:
            await self._database.write(work)

    async def end_turn(self, owner: str, reply_id: str, end: TurnEnd) -> bool:
        if not is_id(reply_id):
            return False
        return await self._final_write(reply_id, lambda connection: self._end(connection, owner, reply_id, end), single=True)

    async def drop_turn(self, owner: str, turn: Turn, end: TurnEnd) -> None:
        made = turn.conversation

        def work(connection: Connection) -> None:
            row = connection.execute(statements.LOCK, {"mine": owner, "conversation": made.id}).first()
            if row is None:
                return
            at = {"conversation": row.id, "tree": row.tree_id}
            ours = connection.execute(statements.OUR_TURN, {"reply": turn.reply.id, "me": self._worker}).first() is not None
            if ours and rows.conversation(row) == made and connection.execute(statements.TREE_IS_SHARED, at).first() is None:
                tree.delete(connection, row)
            else:
                self._end(connection, owner, turn.reply.id, end)

        await self._final_write(turn.reply.id, work)

    async def settle(self) -> int:
        self._paths.forget()

        def work(connection: Connection) -> int:
            own = connection.execute(statements.OWN_IN_PROGRESS, {"me": self._worker}).scalars().all()
            # Checked after reading the rows: a turn is added before it is stored, and removed after it has ended.
            lost = [reply_id for reply_id in own if reply_id not in self._in_progress]
            others = connection.execute(select(workers.c.id, workers.c.process).where(workers.c.id != self._worker)).all()
            if gone := [worker for worker, process in others if is_gone(process)]:
                connection.execute(update(workers).where(workers.c.id.in_(gone)).values(seen=0))
            limit = connection.execute(select(self._database.clock() - int(STALE * 1_000_000))).scalar_one()
            lost += connection.execute(statements.OTHERS_IN_PROGRESS, {"me": self._worker, "limit": limit}).scalars()
            if lost:
                connection.execute(statements.SETTLE, [{"reply": reply_id, "nothing": rows.NO_REPLY} for reply_id in lost])
            connection.execute(statements.FORGET_WORKERS, {"limit": limit})
            return len(lost)

        return await self._database.write(work)

    async def heartbeat(self) -> None:
        now = time.monotonic()
        upsert = self._database.insert(workers).values(id=self._worker, seen=self._database.clock(), process=self._process)
        upsert = upsert.on_conflict_do_update(index_elements=["id"], set_={"seen": upsert.excluded.seen})
        await self._database.write(lambda connection: connection.execute(upsert) and None)
        self._last_heartbeat = now

    async def _final_write(self, reply_id: str, work: Callable[[Connection], _T], *, single: bool = False) -> _T:
        """Run the final write of one of this worker's turns, which is then no longer in progress here.

        After `StoreUnavailable` the turn stays in progress, as the caller tries again. After any other error it no longer counts as
        in progress, so that the next run of `SqlStore.settle` ends it.
        """
        try:
            done = await self._database.write(work, single=single)
        except StoreUnavailable:
            raise
        except Exception:
            self._in_progress.discard(reply_id)  # nobody will try again: `settle` ends it
            raise
        self._in_progress.discard(reply_id)
        return done

    def _end(self, connection: Connection, owner: str, reply_id: str, end: TurnEnd) -> bool:
        """Store the end of a turn. Returns as `end_turn`."""
        values: dict[str, Any] = {
            "reply": reply_id,
            "mine": owner,
            "me": self._worker,
            "worker": None,
            "state": end.state.value,
            "body": rows.reply(end.message, rows.stored_provider_info(end)),
            "model": text.clean(end.model),
            "provider": text.clean(end.provider),
            "usage": rows.usage(end.usage),
            "finish_reason": rows.finish_reason_column(end.finish_reason),
            "error_reason": text.clean(end.error_reason),
        }
        # The conversation is locked first, as everywhere: one order of locks avoids deadlocks.
        at = {"reply": reply_id, "mine": owner, "me": self._worker, "now": clock.now()}
        touched, ended = together(connection, (_TOUCH_TURN, at), (_END_TURN, values))
        if touched and ended:
            return True
        # An earlier try may have stored this end, with its confirmation lost.
        found = connection.execute(statements.TURN_OUTCOME, {"reply": reply_id, "mine": owner}).first()
        return found is not None and (found.state, found.body) == (values["state"], values["body"])
