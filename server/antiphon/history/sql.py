"""The store over a SQL database: what each method does inside one transaction.

A method makes its values, hands a unit of work to the `Database`, and gives back what that one returns. All SQL is in
`statements`, all conversion in `rows`, and what SQLite and PostgreSQL do not have in common in `sqlite` and `postgres`.

Two calls on one tree of messages are put one after the other: whoever writes locks the tree first. A turn that is begun while
another of the same conversation is in progress goes behind that one's reply; its path then holds what is kept of that by then.
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
    Conversation,
    MessagePage,
    MessageState,
    Page,
    Parent,
    Said,
    StoredMessage,
    Turn,
    TurnEnd,
)
from antiphon.history.process import is_gone, this_process

STALE: Final = 15.0
"""Seconds without a heartbeat after which a worker is taken for dead, where its process cannot be looked at."""

_BEAT: Final = 5.0
"""Seconds after which a turn renews the heartbeat by itself, if nobody has."""

_T = TypeVar("_T")


class SqlStore:
    """Implements `base.Store`. One for a process: it knows which turns that one has in progress."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._worker = new_id()
        self._process = this_process()
        self._beaten = float("-inf")
        # Turns that are, or may be, in progress here. One that this worker has begun and does not know was never told to a caller.
        self._live: set[str] = set()

    async def create(self, owner: str, *, title: str, source: str, pinned: bool, messages: Sequence[Message]) -> Conversation:
        rows.check_title(title)
        rows.check_source(source)
        bodies = rows.bodies(messages)

        def work(connection: Connection) -> Conversation:
            made, _ = tree.create(connection, owner, bodies, title=title, source=source, pinned=pinned)
            return made

        return await self._database.write(work)

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
        # A pin says nothing about what was said: only the place in the list is another.
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
            head = tree.place(connection, row, message_id)
            made = tree.conversation(
                connection,
                owner,
                row.tree_id,
                head,
                id_=new_id(),
                title=row.title if title is None else title,
                source=row.source,
                forked_from=row.id,
            )
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
            # The path as it was when its first page was read: what is appended meanwhile is not on it.
            last = row.head_id if after is None else after.last
            if last is None:
                return None, (), False
            if size is None:
                return last, connection.execute(statements.PATH, {"last": last, "tree": row.tree_id}).all()[depth:], False
            at = {"last": last, "tree": row.tree_id, "depth": depth}
            fitting, more = tree.fitting(connection, at, size, most_bytes)
            return last, connection.execute(statements.PATH_PAGE, at | {"size": fitting}).all(), more

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
            new = tree.behind(tree.place(connection, row, None), row.tree_id, row.id, bodies)
            return tree.append(connection, row, new), new

        changed, new = await self._database.write(work)
        return changed, tuple(map(tree.stored, new))

    async def begin_turn(
        self,
        owner: str,
        conversation: str | None,
        messages: Sequence[Message],
        *,
        request_id: str = "",
        parent_id: Parent = None,
        title: str = "",
        source: str = "",
    ) -> Turn:
        rows.check_request_id(request_id)
        rows.check_title(title)
        rows.check_source(source)
        bodies = [*rows.bodies(messages), rows.NO_REPLY]
        reply_id, named = new_id(), request_id or None
        ours = {reply_id}
        reply = {"id": reply_id, "state": MessageState.IN_PROGRESS.value, "worker": self._worker, "request_id": named}

        def existing(connection: Connection, row: tree.Found) -> Turn | None:
            turn = tree.existing(connection, row, request_id, bodies[:-1])
            if turn is None or not turn.reply.is_unheard:
                return turn
            if turn.reply.id in self._live and turn.reply.id not in ours:
                # An attempt of this worker's that has not been told that it ended: it will try again to end the turn, and it cannot
                # be told from the attempt that would be begun here.
                raise TurnInProgress(request_id)
            ours.add(turn.reply.id)
            self._live.add(turn.reply.id)
            return tree.reopen(connection, turn, self._worker)

        def begin(connection: Connection) -> Turn:
            if conversation is None:
                if named and (row := tree.made_by(connection, owner, request_id)) and (turn := existing(connection, row)):
                    return turn
                made, new = tree.create(connection, owner, bodies, title=title, source=source, request_id=named, reply=reply)
                return tree.turn(made, (), new, made=True)
            row = tree.find(connection, owner, conversation, lock=True)
            if named and (turn := existing(connection, row)):
                return turn
            parent = tree.START if parent_id is BEGINNING else tree.place(connection, row, parent_id)
            path = tree.path(connection, row, parent.id)
            new = tree.behind(parent, row.tree_id, row.id, bodies)
            new[-1] |= reply
            return tree.turn(tree.append(connection, row, new), path, new)

        # It has to be seen that this worker lives before its turn can be seen.
        if time.monotonic() - self._beaten > _BEAT:
            await self.heartbeat()
        self._live.add(reply_id)
        turn = None
        try:
            try:
                turn = await self._database.write(begin)
            except IntegrityError:
                # Another call of the same request_id made its conversation first. Now it is there to be found.
                turn = await self._database.write(begin)
            return turn
        finally:
            # If nobody was told of it, and the commit came to pass all the same, `settle` takes care of it.
            begun = {turn.reply.id} if turn is not None and not turn.existing else set()
            self._live -= ours - begun

    async def keep(self, said: Sequence[Said]) -> None:
        # In one order, as all who lock several of these rows.
        ordered = sorted(said, key=lambda each: each.reply_id)

        def work(connection: Connection) -> None:
            values = [
                {
                    "reply": each.reply_id,
                    "me": self._worker,
                    "said": rows.reply(each.message),
                    "by_model": text.clean(each.model),
                    "by_provider": text.clean(each.provider),
                }
                for each in ordered
            ]
            connection.execute(statements.KEEP, values)

        if ordered:
            await self._database.write(work)

    async def end_turn(self, owner: str, reply_id: str, end: TurnEnd) -> bool:
        if not is_id(reply_id):
            return False
        return await self._last(reply_id, lambda connection: self._end(connection, owner, reply_id, end))

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

        await self._last(turn.reply.id, work)

    async def settle(self) -> int:
        def work(connection: Connection) -> int:
            own = connection.execute(statements.OWN_IN_PROGRESS, {"me": self._worker}).scalars().all()
            # Read after the rows: a turn is known before it is stored, and for as long as it is in progress.
            lost = [reply_id for reply_id in own if reply_id not in self._live]
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
        self._beaten = now

    async def _last(self, reply_id: str, work: Callable[[Connection], _T]) -> _T:
        """The last that is done for a turn of this worker's; `StoreUnavailable`, which is tried again, is not the last."""
        try:
            done = await self._database.write(work)
        except StoreUnavailable:
            raise
        except Exception:
            self._live.discard(reply_id)  # nobody comes back for it: `settle` ends it
            raise
        self._live.discard(reply_id)
        return done

    def _end(self, connection: Connection, owner: str, reply_id: str, end: TurnEnd) -> bool:
        """Ends the turn; returns as `end_turn`."""
        values: dict[str, Any] = {
            "reply": reply_id,
            "mine": owner,
            "me": self._worker,
            "worker": None,
            "state": end.state.value,
            "body": rows.reply(end.message, rows.beside(end)),
            "model": text.clean(end.model),
            "provider": text.clean(end.provider),
            "usage": rows.usage(end.usage),
            "finish_reason": rows.finish_word(end.finish_reason),
            "error_reason": text.clean(end.error_reason),
        }
        # The conversation first, as everybody does: those who take locks in one order never wait for each other.
        at = {"reply": reply_id, "mine": owner, "me": self._worker, "now": clock.now()}
        touched = connection.execute(statements.TOUCH_TURN, at).rowcount
        if connection.execute(statements.END_TURN, values).rowcount and touched:
            return True
        # It may have been ended so before, where the answer to the first try was lost.
        found = connection.execute(statements.HOW_IT_ENDED, {"reply": reply_id, "mine": owner}).first()
        return found is not None and (found.state, found.body) == (values["state"], values["body"])
