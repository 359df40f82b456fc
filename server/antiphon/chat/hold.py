"""Holds back the beginning of a reply, so that an early failure can still be returned as a status."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from antiphon.chat.stopwatch import Stopwatch
from antiphon.domain.call import Call
from antiphon.domain.events import Batch, Finished, Started, Usage

MAX_HELD: Final = 64
"""The most events before the first delta that are held back."""


class HoldBack:
    """Passes on the batches of one reply from the first delta on."""

    def __init__(self, call: Call, watch: Stopwatch) -> None:
        self._call = call
        self._watch = watch
        self._held: Batch | None = []
        """The events held back so far; None once they have been sent."""
        self.is_needed = True
        """False once nothing is held back and the first delta has come: only usage is then taken out of a batch."""

    def take(self, batch: Batch) -> Batch:
        """Return what may be sent now of a new batch, which was measured, and of those held back; may be empty.

        Usage is not sent: the last batch gets what the call used in all.
        """
        watch = self._watch
        if self._call.first_token is None and (first := watch.first_token) is not None:
            self._call.first_token = first
            self._call.observer.first_token(self._call)
        if watch.reported is not None:
            batch = [event for event in batch if type(event) is not Usage]
        if self._held is None:
            self.is_needed = self._call.first_token is None
            return batch
        self._held += batch
        if not (batch and type(batch[-1]) is Finished) and len(self._held) < MAX_HELD and not watch.has_delta:
            return []
        batch, self._held = self._held, None
        self.is_needed = self._call.first_token is None
        if self._call.warnings and type(batch[0]) is Started:
            batch[0] = replace(batch[0], warnings=self._call.warnings)
        return batch
