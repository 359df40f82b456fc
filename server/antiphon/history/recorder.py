"""Records turns: begun before the provider is asked, settled whichever way they end.

A turn is settled even if its caller is gone, and even if the database is out of reach for a while: what was said waits here, and is
written when it can be. What long replies have said so far is written down now and then, all of them together: a token costs no
write, and what is lost with a worker that is killed are its last seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeAlias

import structlog
from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import Message, Role
from antiphon.domain.errors import (
    AntiphonError,
    ConversationNotFound,
    InvalidRequest,
    ProviderRejected,
    Reason,
    StoreUnavailable,
    TurnInProgress,
    Violation,
    to_public_error,
)
from antiphon.domain.events import Batch
from antiphon.domain.reply import Reply
from antiphon.history.base import MessageState, Said, Store, StoredMessage, Told, Turn, TurnEnd
from antiphon.history.resent import Continuation, continuation, up_to
from antiphon.history.sendable import LeftOut, sendable
from antiphon.history.storable import storable
from antiphon.history.title import title_of

FIRST_DELAY = 0.1
"""Seconds before a turn that could not be settled is tried again; doubled each time."""

LONGEST_DELAY = 5.0

PATIENCE = 2.0
"""Seconds that a failed call waits for its turn to be settled, before its caller is told."""

Weigh: TypeAlias = Callable[[tuple[Message, ...]], Awaitable[None]]

log = structlog.get_logger(__name__)


class Record(Struct, frozen=True):
    """Where a turn is recorded.

    `conversation` None: a new one, with `title` (blank: taken from the first message of the user) and `source`. Else the request's
    messages are the new ones, and those that are stored come before them; `parent_id` is the message to go on from, None the head.
    `request_id` names the turn, for a retry that is safe. `resent`: the request's messages may repeat what is stored, and only what
    is new of them is taken; `antiphon.history.resent` has the rules.
    """

    owner: str
    conversation: str | None = None
    request_id: str = ""
    parent_id: str | None = None
    title: str = ""
    source: str = ""
    instructions: tuple[Message, ...] = ()
    """What the operator tells the model before everything else. Not stored, and not guarded."""
    preamble: tuple[Message, ...] = ()
    """What the caller has to say before the conversation, for this turn alone. Not stored; guarded as all that a caller says."""
    resent: bool = False
    began: Callable[[str], None] | None = None
    """Is told the conversation's id before the first batch comes. Of a conversation that is named, before the provider is asked: a
    failure can name it too. One that a turn makes is gone again if nothing comes of it, so that nobody is told of it before."""

    @property
    def before(self) -> tuple[Message, ...]:
        """What the model is told before the conversation."""
        return self.instructions + self.preamble

    def tell(self, conversation: str) -> None:
        """Tells whoever wants to know that the turn is recorded there."""
        if self.began is not None:
            self.began(conversation)


class Recorder:
    """Begins turns, and sees to it that each is settled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: set[asyncio.Task[bool]] = set()
        self._going: dict[str, Recording] = {}
        """The turns in progress, by their reply's id."""

    async def begin(self, record: Record, messages: Sequence[Message], weigh: Weigh | None = None) -> Recording:
        """Stores the new messages and the reply to come. Raises as `Store.begin_turn`.

        `weigh` is asked before, with all that the model would be told of a conversation that there is: it may raise.
        If its caller leaves meanwhile, the turn ends as CANCELLED as soon as it is begun, so that a retry need not wait.
        """
        follows = Continuation(tuple(messages), tuple(range(len(messages))), record.parent_id)
        if record.conversation is not None and (record.resent or weigh is not None):
            stored = (await self._store.messages(record.owner, record.conversation)).messages
            if record.resent:
                follows = continuation(stored, messages)
            if weigh is not None:
                told, _ = sendable(follows.told(up_to(stored, follows.parent_id)))
                await weigh((*record.before, *told))
        beginning = asyncio.create_task(
            self._store.begin_turn(
                record.owner,
                record.conversation,
                follows.new,
                request_id=record.request_id,
                parent_id=follows.parent_id,
                title=title_of(record.title, follows.new),
                source=record.source,
            )
        )
        try:
            await asyncio.wait({beginning})
        except asyncio.CancelledError:
            self._run(self._leave(record.owner, beginning))
            raise
        try:
            turn = beginning.result()
        except InvalidRequest as error:  # what is at fault is told of the messages that were sent, and not of those that are new
            error.violations = tuple(_sent(violation, follows.places) for violation in error.violations)
            raise
        if turn.existing:
            return Recording(self, record.owner, turn)
        begun = len(turn.path) - len(follows.new)
        told, left_out = sendable(follows.told(turn.path[:begun]))
        _log_left_out(turn, turn.path[:begun], left_out)
        recording = self._going[turn.reply.id] = Recording(self, record.owner, turn, (*record.before, *told))
        return recording

    async def keep(self, interval: float) -> None:
        """Writes down what turns in progress have said, every `interval` seconds, until it is cancelled."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.keep_once()
            except Exception:  # a fault in one moment must not be the end of it
                log.exception("replies in progress not written down")

    async def keep_once(self) -> None:
        """What `keep` does every time, for the turns that it has met before and that have said something since.

        So a reply that is shorter than the interval is written once, at its end.
        """
        grown: list[Recording] = []
        for recording in self._going.values():
            if recording.met and recording.grown:
                grown.append(recording)
            recording.met = True
        if not grown:
            return
        seen = [recording.seen for recording in grown]
        try:
            await self._store.keep([recording.said() for recording in grown])
        except StoreUnavailable:
            return  # the store has told why; the next time is soon
        for recording, batches in zip(grown, seen, strict=True):
            recording.kept = batches

    def settle(self, owner: str, turn: Turn, end: TurnEnd, *, drop: bool) -> asyncio.Task[bool]:
        """Settles a turn, or takes it back, in a task of its own, which goes on until it is done; returns as `Store.end_turn`."""
        self._going.pop(turn.reply.id, None)
        return self._run(self._settle(owner, turn, end, drop=drop))

    async def not_stored(self, owner: str, turn: Turn) -> AntiphonError:
        """Why the end of a turn is not in its conversation."""
        try:
            await self._store.get(owner, turn.conversation.id)
        except (ConversationNotFound, StoreUnavailable) as error:
            return error
        return TurnInProgress(turn.reply.request_id)

    def _run(self, settling: Coroutine[None, None, bool]) -> asyncio.Task[bool]:
        task = asyncio.create_task(settling)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, seconds: float) -> None:
        """Waits for the turns that are being settled, for so many seconds at most."""
        if self._tasks:
            _, left = await asyncio.wait(set(self._tasks), timeout=seconds)
            for task in left:
                task.cancel()
            if left:
                log.error("turns not settled", count=len(left))

    async def _leave(self, owner: str, begun: asyncio.Task[Turn]) -> bool:
        """Ends a turn whose caller left while it was begun."""
        try:
            turn = await begun
        except AntiphonError:
            return False
        end = TurnEnd(MessageState.CANCELLED, turn.reply.message)
        return not turn.existing and await self._settle(owner, turn, end, drop=False)

    async def _settle(self, owner: str, turn: Turn, end: TurnEnd, *, drop: bool) -> bool:
        delay = FIRST_DELAY
        while True:
            try:
                if not drop:
                    return await self._store.end_turn(owner, turn.reply.id, end)
                await self._store.drop_turn(owner, turn, end)
            except StoreUnavailable:
                log.warning("turn not settled yet", message=turn.reply.id, retry_in_s=delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY)
            else:
                return False


class Recording:
    """One turn that is being recorded."""

    def __init__(self, recorder: Recorder, owner: str, turn: Turn, messages: tuple[Message, ...] = ()) -> None:
        """`messages` are what the model is asked with: instructions, preamble and the path, as far as that can be sent."""
        self.turn = turn
        self.messages = messages
        self._recorder = recorder
        self._owner = owner
        self._reply = Reply()
        self._settled = False
        self.met = False
        """`Recorder.keep` has come by before."""
        self.seen = 0
        """Batches so far; `kept`: when its text was last written down."""
        self.kept = 0

    @property
    def grown(self) -> bool:
        """Whether anything was said that is not written down."""
        return self.seen > self.kept and bool(self._reply.choices)

    def see(self, batch: Batch) -> None:
        """Takes what was said. What cannot be stored is replaced in the batch, so that what is told is what is stored."""
        self.seen += 1
        for index, event in enumerate(batch):
            if (clean := storable(event)) is not event:
                batch[index] = clean
            self._reply.add(clean)

    async def complete(self) -> None:
        """The reply is whole: returns when it is stored. Raises `StoreUnavailable`; it is then stored as soon as can be.

        Raises `ConversationNotFound` if the conversation was deleted meanwhile, `TurnInProgress` if another worker has begun the
        turn again, as this one was taken for dead: what is stored is then not what was said here.
        """
        task = self._settle(MessageState.COMPLETE, "")
        # The store's own time-out bounds the first try. What could not be stored then is tried on, but not waited for.
        done, _ = await asyncio.wait({task}, timeout=PATIENCE + FIRST_DELAY)
        if not done:
            raise StoreUnavailable
        if not task.result():
            raise await self._recorder.not_stored(self._owner, self.turn)

    async def fail(self, error: Exception) -> None:
        """The turn failed; returns when that is stored, or after a while.

        If the provider answered nothing, a conversation that the turn made is removed: its caller knows only that the call failed,
        and will make another one if it tries again.
        """
        if not self._settled:
            said = self._reply.has_output
            drop = self.turn.made and self.seen == 0
            task = self._settle(MessageState.INCOMPLETE if said else MessageState.FAILED, _reason(error), drop=drop)
            await asyncio.wait({task}, timeout=PATIENCE)

    def cancel(self) -> None:
        """The caller is gone: what came is stored, and nobody waits for it.

        What the caller said stays, even if nothing came: it may be nowhere else.
        """
        if not self._settled:
            self._settle(MessageState.CANCELLED, "")

    def said(self) -> Said:
        """What was said so far. Of several choices the first is what is stored."""
        started = self._reply.started
        provider, model = ("", "") if started is None else (started.origin.provider, started.model)
        return Said(self.turn.reply.id, self._reply.message(), model, provider)

    def _told(self) -> Told:
        started, choices = self._reply.started, self._reply.choices
        told = Told() if started is None else Told(started.id, started.created)
        return replace(told, reason=choices[0].provider_reason) if choices else told

    def _settle(self, state: MessageState, reason: str, *, drop: bool = False) -> asyncio.Task[bool]:
        self._settled = True
        reply, said = self._reply, self.said()
        end = TurnEnd(
            state=state,
            message=said.message,
            model=said.model,
            provider=said.provider,
            usage=reply.usage,
            finish_reason=reply.choices[0].reason if reply.choices and state is MessageState.COMPLETE else None,
            error_reason=reason,
            told=self._told() if state is MessageState.COMPLETE else Told(),
        )
        return self._recorder.settle(self._owner, self.turn, end, drop=drop)


def _reason(error: Exception) -> Reason:
    """What is stored as the reason of a failure. `history.sendable` leaves out what a provider refused, which it tells by this."""
    if isinstance(error, ProviderRejected) and error.code == "model_not_found":
        return Reason.MODEL_NOT_FOUND  # a provider that has no such model has nothing against the messages
    return to_public_error(error).reason


def _log_left_out(turn: Turn, before: Sequence[StoredMessage], left_out: Sequence[LeftOut]) -> None:
    """Logs what was left out for the first time. What stands before the last reply was left out of an earlier turn already."""
    last = max((row.created for row in before if row.message.role is Role.ASSISTANT), default=None)
    new = [each for each in left_out if each.row is None or last is None or each.row.created >= last]
    if new:
        log.info(
            "messages_not_sent",
            conversation=turn.conversation.id,
            messages=[each.row.id for each in new if each.row is not None],
            reasons=sorted({each.why.value for each in new}),
        )


def _sent(violation: Violation, places: Sequence[int]) -> Violation:
    match violation.path:
        case ("messages", int(index), *inner):
            return replace(violation, path=("messages", places[index], *inner))
        case _:
            return violation
