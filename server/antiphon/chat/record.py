"""The third stage: stores the turn before the provider is called, and the reply before its last batch is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec.structs import replace

from antiphon.chat.replay import replay
from antiphon.domain.call import Call
from antiphon.domain.events import Batch, Finished, Started
from antiphon.history.recorder import Record, Recording


class RecordedTurn:
    """A turn that is recorded: however it ends, the reply so far is stored."""

    def __init__(self, call: Call, record: Record, recording: Recording) -> None:
        self._call = call
        self._record = record
        self._recording = recording
        self._ended = False
        self.replay: Iterator[Batch] | None = None
        """The stored reply, for a turn that was answered before: the provider is not called then."""
        if recording.turn.existing:
            self.replay = self._replay()
            self._report_end("replayed")

    def see(self, batch: Batch) -> None:
        """Take a batch of the reply before it is sent. May change the batch."""
        self._recording.see(batch)
        if type(batch[0]) is Started:
            batch[0] = self._located(batch[0])

    def before_end(self, batch: Batch) -> Batch:
        """Return what of the last batch is sent before the reply is stored; empty: nothing, as there is nothing to wait for."""
        return [event for event in batch if type(event) is not Finished]

    async def complete(self) -> None:
        """Store the whole reply, and return when it is stored. Raises as `Recording.complete`."""
        await self._recording.complete()
        self._report_end("complete")

    async def fail(self, error: BaseException) -> None:
        """Store the reply so far, as the call ended with an error, or because its caller left."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._report_end("cancelled")
            self._recording.cancel()
        elif isinstance(error, Exception):
            self._report_end("failed")
            await self._recording.fail(error)

    def _report_end(self, outcome: str) -> None:
        """Report the outcome to the observer, once: a caller may still leave after it."""
        if not self._ended:
            self._ended = True
            self._call.observer.turn_ended(self._call, outcome)

    def _replay(self) -> Iterator[Batch]:
        """Yield the stored reply, with its place in the first event."""
        for batch in replay(self._recording.turn):
            if type(batch[0]) is Started:
                batch[0] = self._located(batch[0])
            yield batch

    def _located(self, started: Started) -> Started:
        """Return the event with the conversation and message ids, and report the conversation."""
        turn = self._recording.turn
        conversation = turn.conversation
        self._record.report(conversation.id)
        return replace(started, conversation_id=conversation.id, conversation_title=conversation.title, message_id=turn.reply.id)
