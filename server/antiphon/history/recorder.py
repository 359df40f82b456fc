"""Records turns: they are started before the provider is called, and settled whichever way they end.

A turn is settled even if its caller is gone. If the database is unreachable, the reply waits here, and is written when it is back.
Long replies are checkpointed periodically, all in one transaction: no token costs a write, and a killed worker loses only the last
seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeAlias

import structlog
from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import Message, Role
from antiphon.domain.deadline import ANSWER_MARGIN, Deadline
from antiphon.domain.errors import (
    AntiphonError,
    ConversationNotFound,
    DeadlineExceeded,
    InvalidRequest,
    ProviderRejected,
    Reason,
    StoreUnavailable,
    TurnInProgress,
    Violation,
    to_public_error,
)
from antiphon.domain.events import Batch
from antiphon.domain.reply import Reply, ReplyChoice
from antiphon.history.base import MessageState, Parent, PartialReply, ProviderReplyInfo, Store, StoredMessage, Turn, TurnEnd
from antiphon.history.resent import Continuation, continuation, up_to
from antiphon.history.sendable import LeftOut, sendable
from antiphon.history.storable import clean
from antiphon.history.title import title_of

FIRST_DELAY = 0.1
"""Seconds before settling a turn is tried again; doubled after each failure."""

LONGEST_DELAY = 5.0
"""The most seconds between two tries to settle a turn."""

PATIENCE = 2.0
"""The most seconds that a call waits for its turn to be settled before its caller gets an error."""

LAST_MOMENT = ANSWER_MARGIN / 2
"""The same, of a call whose deadline passed: its status has to reach the caller in what is left."""

Admit: TypeAlias = Callable[[tuple[Message, ...]], Awaitable[None]]
"""Raises an error if the caller's limits do not allow to send a model these messages."""

log = structlog.get_logger(__name__)


class Record(Struct, frozen=True):
    """Where and how a turn is recorded.

    `conversation` None creates one, with `title` (if blank, taken from the user's first message) and `source`. Otherwise the
    request has the new messages only, and the stored ones come before them; `parent_id` is the message that the turn follows, None
    for the head. `request_id` identifies the turn, so that a retry is safe. `resent`: the request may repeat stored messages, and
    only its new ones are stored; `antiphon.history.resent` has the rules.
    """

    owner: str
    conversation: str | None = None
    request_id: str = ""
    parent_id: str | None = None
    title: str = ""
    source: str = ""
    instructions: tuple[Message, ...] = ()
    """The operator's messages, sent to the model before everything else. Not stored, and not guarded."""
    preamble: tuple[Message, ...] = ()
    """The caller's messages before the conversation, for this turn alone. Not stored, but guarded like all text of callers."""
    resent: bool = False
    on_recorded: Callable[[str], None] | None = None
    """Called with the conversation's id before the first batch of the reply.

    For an existing conversation it is called before the provider is, so that even an error can name the conversation. A
    conversation that the turn creates is removed again if the provider answers nothing, so it is not reported earlier.
    """

    @property
    def leading_messages(self) -> tuple[Message, ...]:
        """Return the messages that the model is sent before the conversation."""
        return self.instructions + self.preamble

    def report(self, conversation: str) -> None:
        """Call `on_recorded`, if set, with the id of the conversation in which the turn is recorded."""
        if self.on_recorded is not None:
            self.on_recorded(conversation)


class Recorder:
    """Starts turns, and makes sure that each is settled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: set[asyncio.Task[bool]] = set()
        self._in_progress: dict[str, Recording] = {}
        """The turns in progress, by the id of their reply."""

    async def begin(self, record: Record, messages: Sequence[Message], admit: Admit | None = None) -> Recording:
        """Store the new messages and an empty reply, and return the turn's recording.

        `admit` is called first if the conversation exists, with all messages that the model would be sent, and may raise to refuse
        them. If the caller leaves meanwhile, the turn ends as CANCELLED as soon as it is stored, so that a retry need not wait.
        Raises as `Store.begin_turn`.
        """
        follows = Continuation(tuple(messages), tuple(range(len(messages))), record.parent_id)

        def follow(path: Sequence[StoredMessage]) -> tuple[Sequence[Message], Parent]:
            nonlocal follows
            follows = continuation(path, messages)
            return follows.new, follows.parent_id

        resent = record.resent and record.conversation is not None
        if record.conversation is not None and admit is not None:
            stored = (await self._store.messages(record.owner, record.conversation)).messages
            if resent:
                follow(stored)
            for_model, _ = sendable(follows.for_model(up_to(stored, follows.parent_id)))
            await admit((*record.leading_messages, *for_model))
        beginning = asyncio.create_task(
            self._store.begin_turn(
                record.owner,
                record.conversation,
                follow if resent else messages,
                request_id=record.request_id,
                parent_id=record.parent_id,
                title=title_of(record.title, messages) if record.conversation is None else "",
                source=record.source,
            )
        )
        try:
            turn = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            self._run(self._cancel_begun(record.owner, beginning))
            raise
        except InvalidRequest as error:  # the index in the error is one of the new messages; the caller needs the one it sent
            error.violations = tuple(_with_sent_index(violation, follows.places) for violation in error.violations)
            raise
        if turn.existing:
            return Recording(self, record.owner, turn)
        before = turn.path[: len(turn.path) - len(follows.places)]
        for_model, left_out = sendable(follows.for_model(before))
        if left_out:
            _log_left_out(turn, before, left_out)
        recording = self._in_progress[turn.reply.id] = Recording(self, record.owner, turn, (*record.leading_messages, *for_model))
        return recording

    async def checkpoint_every(self, interval: float) -> None:
        """Checkpoint the turns in progress every `interval` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.checkpoint()
            except Exception:  # one failure must not end the checkpoints
                log.exception("replies in progress not written down")

    async def checkpoint(self) -> None:
        """Store the partial replies that grew since the last pass, of turns that were in progress at the previous pass already.

        So a reply that takes less than the interval is written once, at its end.
        """
        changed: list[Recording] = []
        for recording in self._in_progress.values():
            if recording.checkpointed and recording.has_unsaved_output:
                changed.append(recording)
            recording.checkpointed = True
        if not changed:
            return
        counts = [recording.batch_count for recording in changed]
        try:
            await self._store.checkpoint([recording.partial_reply() for recording in changed])
        except StoreUnavailable:
            return  # the store has logged it; the next pass tries again
        for recording, batches in zip(changed, counts, strict=True):
            recording.saved_count = batches

    async def end(self, owner: str, turn: Turn, end: TurnEnd) -> bool:
        """Store the end of a turn, and return as `Store.end_turn`. Raises `StoreUnavailable` after `PATIENCE`.

        The first try is made in the caller's own task, which saves another one and its hops. Whatever ends it, `settle` goes on.
        """
        self._in_progress.pop(turn.reply.id, None)
        patience = Deadline(PATIENCE)
        try:
            with patience:
                try:
                    return await self._store.end_turn(owner, turn.reply.id, end)
                except StoreUnavailable:
                    return await asyncio.shield(self.settle(owner, turn, end, drop=False))
                except asyncio.CancelledError:
                    self.settle(owner, turn, end, drop=False)
                    raise
        except DeadlineExceeded:
            raise StoreUnavailable from None
        finally:
            patience.close()

    def settle(self, owner: str, turn: Turn, end: TurnEnd, *, drop: bool) -> asyncio.Task[bool]:
        """Settle or remove a turn in a new task, which retries until it is done. Its result is that of `Store.end_turn`."""
        self._in_progress.pop(turn.reply.id, None)
        return self._run(self._settle(owner, turn, end, drop=drop))

    async def why_not_stored(self, owner: str, turn: Turn) -> AntiphonError:
        """Return the error that tells why the end of a turn is not in its conversation."""
        try:
            await self._store.get(owner, turn.conversation.id)
        except (ConversationNotFound, StoreUnavailable) as error:
            return error
        return TurnInProgress(turn.reply.request_id)

    def _run(self, settling: Coroutine[None, None, bool]) -> asyncio.Task[bool]:
        """Run a task, and keep it referenced until it is done."""
        task = asyncio.create_task(settling)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, seconds: float) -> None:
        """Wait for the turns that are being settled, for at most so many seconds."""
        if self._tasks:
            _, left = await asyncio.wait(set(self._tasks), timeout=seconds)
            for task in left:
                task.cancel()
            if left:
                log.error("turns not settled", count=len(left))

    async def _cancel_begun(self, owner: str, beginning: asyncio.Task[Turn]) -> bool:
        """Cancel a turn whose caller left while it was being stored. Returns as `Store.end_turn`."""
        try:
            turn = await beginning
        except AntiphonError:
            return False
        end = TurnEnd(MessageState.CANCELLED, turn.reply.message)
        return not turn.existing and await self._settle(owner, turn, end, drop=False)

    async def _settle(self, owner: str, turn: Turn, end: TurnEnd, *, drop: bool) -> bool:
        """Store the end of a turn, or drop it, again and again while the store is unavailable. Returns as `Store.end_turn`."""
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
        """Take the messages that the model is sent: instructions, preamble, and the sendable messages of the path."""
        self.turn = turn
        self.messages = messages
        self._recorder = recorder
        self._owner = owner
        self._reply = Reply()
        self._settled = False
        self.checkpointed = False
        """Set after the first checkpoint pass."""
        self.batch_count = 0
        """The number of batches so far."""
        self.saved_count = 0
        """The number of batches that the last stored checkpoint covers."""

    @property
    def has_unsaved_output(self) -> bool:
        """Return whether the reply has output that no checkpoint has stored."""
        return self.batch_count > self.saved_count and bool(self._reply.choices)

    def see(self, batch: Batch) -> None:
        """Add a batch to the reply.

        Characters that cannot be stored are replaced in the batch itself, so that the caller gets what is stored.
        """
        self.batch_count += 1
        clean(batch)
        self._reply.add(*batch)

    async def complete(self) -> None:
        """Store the whole reply, and return when it is stored.

        Raises `StoreUnavailable`; storing it is then retried in the background. Raises `ConversationNotFound` if the conversation
        was deleted meanwhile, and `TurnInProgress` if another worker considered this one dead and started the turn again: the
        stored reply is then not this one.
        """
        if not await self._recorder.end(self._owner, self.turn, self._end(MessageState.COMPLETE, "")):
            raise await self._recorder.why_not_stored(self._owner, self.turn)

    async def fail(self, error: Exception) -> None:
        """Store that the turn failed; return when it is stored, or after `PATIENCE` or `LAST_MOMENT`.

        If the provider answered nothing, a conversation that the turn created is removed: its caller only knows that the call
        failed, and a retry would create another one.
        """
        if not self._settled:
            has_output = self._reply.has_output
            drop = self.turn.created_conversation and self.batch_count == 0
            task = self._settle(MessageState.INCOMPLETE if has_output else MessageState.FAILED, _reason(error), drop=drop)
            await asyncio.wait({task}, timeout=LAST_MOMENT if isinstance(error, DeadlineExceeded) else PATIENCE)

    def cancel(self) -> None:
        """Store the reply so far in the background, as the caller is gone.

        The caller's messages stay even if no reply came: they may be stored nowhere else.
        """
        if not self._settled:
            self._settle(MessageState.CANCELLED, "")

    def partial_reply(self) -> PartialReply:
        """Return the reply so far. If there are several choices, the first one is stored."""
        started = self._reply.started
        provider, model = ("", "") if started is None else (started.origin.provider, started.model)
        return PartialReply(self.turn.reply.id, self._reply.message(), model, provider)

    def _provider_info(self, choices: Sequence[ReplyChoice]) -> ProviderReplyInfo:
        """Return what the provider sent with the reply. Of several choices the first one counts."""
        started = self._reply.started
        info = ProviderReplyInfo() if started is None else ProviderReplyInfo(started.id, started.created, fields=started.fields)
        if not choices:
            return info
        choice = choices[0]
        return replace(
            info,
            reason=choice.provider_reason,
            choice={name: value for name, value in choice.choice_fields.items() if name != "logprobs"},
            details=choice.details,
            empty_texts=choice.left_out(),
        )

    def _settle(self, state: MessageState, reason: str, *, drop: bool = False) -> asyncio.Task[bool]:
        """Start to store the end of the turn, with the reply so far; return the task."""
        return self._recorder.settle(self._owner, self.turn, self._end(state, reason), drop=drop)

    def _end(self, state: MessageState, reason: str) -> TurnEnd:
        """Return the end of the turn, with the reply so far. From now on it is being settled."""
        self._settled = True
        reply, partial, choices = self._reply, self.partial_reply(), self._reply.choices
        return TurnEnd(
            state=state,
            message=partial.message,
            model=partial.model,
            provider=partial.provider,
            usage=reply.usage,
            finish_reason=choices[0].reason if choices and state is MessageState.COMPLETE else None,
            error_reason=reason,
            provider_info=self._provider_info(choices) if state is MessageState.COMPLETE else ProviderReplyInfo(),
        )


def _reason(error: Exception) -> Reason:
    """Return the reason of a failure, as it is stored. `history.sendable` uses it to leave out messages that a provider refused."""
    if isinstance(error, ProviderRejected) and error.code == "model_not_found":
        return Reason.MODEL_NOT_FOUND  # the provider refused the model, not the messages
    return to_public_error(error).reason


def _log_left_out(turn: Turn, before: Sequence[StoredMessage], left_out: Sequence[LeftOut]) -> None:
    """Log what was left out for the first time. What precedes the last reply was logged by an earlier turn already."""
    last = max((row.created for row in before if row.message.role is Role.ASSISTANT), default=None)
    new = [each for each in left_out if each.row is None or last is None or each.row.created >= last]
    if new:
        log.info(
            "messages_not_sent",
            conversation=turn.conversation.id,
            messages=[each.row.id for each in new if each.row is not None],
            reasons=sorted({each.reason.value for each in new}),
        )


def _with_sent_index(violation: Violation, places: Sequence[int]) -> Violation:
    """Return the violation with the index of the message in the request, instead of among the new messages."""
    match violation.path:
        case ("messages", int(index), *inner):
            return replace(violation, path=("messages", places[index], *inner))
        case _:
            return violation
