"""The third stage: the turn is stored before the provider is asked, and the reply before its last batch goes out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from msgspec.structs import replace

from antiphon.chat.replay import replay
from antiphon.domain.call import Call
from antiphon.domain.events import Batch, Started
from antiphon.history.recorder import Record, Recording


class Turning(Protocol):
    """What becomes of a turn, as a context manager around the call of the provider."""

    replay: Iterator[Batch] | None = None
    """The reply as it is stored, of a turn that was made before: the provider is not asked."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def see(self, batch: Batch) -> None:
        """Take what the model says, before it goes out. The batch may be changed."""
        ...

    async def complete(self) -> None:
        """The reply is whole: return when it is stored. Raises `StoreUnavailable` and the like."""
        ...


class Unrecorded(Turning):
    """A turn that is not recorded: the database is asked nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def see(self, batch: Batch) -> None:
        pass

    async def complete(self) -> None:
        pass


class Recorded(Turning):
    """A turn that is recorded: whichever way it ends, what the model said by then is kept."""

    def __init__(self, call: Call, record: Record, recording: Recording) -> None:
        self._call = call
        self._record = record
        self._recording = recording
        self._over = False
        if recording.turn.existing:
            self.replay = self._replay()
            self._tell("replayed")

    async def __aenter__(self) -> Self:
        return self

    def see(self, batch: Batch) -> None:
        self._recording.see(batch)
        if type(batch[0]) is Started:
            batch[0] = self._located(batch[0])

    async def complete(self) -> None:
        await self._recording.complete()
        self._tell("complete")

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._tell("cancelled")
            self._recording.cancel()
        elif isinstance(error, Exception):
            self._tell("failed")
            await self._recording.fail(error)

    def _tell(self, outcome: str) -> None:
        """Tell the observer of the turn's end, once: a caller may leave after it."""
        if not self._over:
            self._over = True
            self._call.observer.turn_ended(self._call, outcome)

    def _replay(self) -> Iterator[Batch]:
        for batch in replay(self._recording.turn):
            if type(batch[0]) is Started:
                batch[0] = self._located(batch[0])
            yield batch

    def _located(self, started: Started) -> Started:
        """Tell the caller where the turn is recorded."""
        turn = self._recording.turn
        conversation = turn.conversation
        self._record.tell(conversation.id)
        return replace(started, conversation_id=conversation.id, conversation_title=conversation.title, message_id=turn.reply.id)
