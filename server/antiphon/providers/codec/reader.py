"""The base of the readers of all protocols: it takes bytes, and turns every failure into a `ProviderError`. No I/O.

A protocol's reader says what an event, a whole body and the end of a reply mean. The rules for all of them:

- Events that arrived before a failure in the same read are still returned; the failure is raised after them.
- Readers do not check the shape of the JSON before they use it. JSON of another shape raises one of the built-in errors, which
  becomes a `ProviderProtocolError` here.
- A reply that ends without its end is a failure.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Final

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain.content import Origin
from antiphon.domain.errors import ProviderError, ProviderProtocolError
from antiphon.domain.events import Batch, Event, Finished, Usage
from antiphon.domain.request import ChatRequest
from antiphon.net.sse import EventTooLarge, SseReader
from antiphon.providers.codec.json import read

_EXPECTED_ERRORS: Final = (
    ProviderError,
    EventTooLarge,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""The exceptions that reading an event may raise. `ValueError` includes the errors of JSON, base64 and UTF-8."""

_NOTHING: Final = (b"", b"[DONE]")
"""Events that say nothing: some hosts add the mark of OpenAI's streams to those of other protocols."""


class EndMark:
    """What is known about the end of a reply whose provider marks it: only the mark ends it, never silence."""

    def __init__(self) -> None:
        self.done = False
        """The provider sent the mark."""
        self.changed = False
        """Always false: no time starts again."""

    def wait(self) -> float | None:
        """Return None: silence ends no reply."""
        return None


class StreamReader(ABC):
    """Reads the answer to one request (see `client.Reader`)."""

    protocol: str
    """The protocol's name in the origin of a reply."""

    def __init__(self, request: ChatRequest, provider: str) -> None:
        self.failure: ProviderError | None = None
        """The error to raise after the batch that `feed` returned."""
        self.error_body = b""
        """The provider's own text about the failure, for the log."""
        self.has_output = False
        """Whether the model has produced anything."""
        self._request = request
        self._provider = provider
        self._sse = SseReader(MAX_MESSAGE_BYTES)
        self._batch: Batch = []

    @property
    def has_usage(self) -> bool:
        """Return whether the provider has reported the tokens used."""
        return self._used() is not None

    def feed(self, data: bytes) -> Batch:
        """Return the events that these bytes complete; may be empty.

        Raises subclasses of `ProviderError`. A failure after some output in the same read is not raised but kept in `failure`, so
        that the caller first gets that output.
        """
        try:
            self._feed(data)
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
        if self.failure is not None and not any(map(self._is_output, self._batch)):
            # There is no output to return first.
            raise self.failure
        self._note_output()
        batch, self._batch = self._batch, []
        return batch

    def feed_after_done(self, data: bytes) -> None:  # noqa: B027  # right for most
        """Ignore data that follows the end of the reply: nothing of it does."""

    def break_off(self) -> Batch:
        """Return the tokens used, as far as they are known when the reply breaks off: no other event is held back."""
        told: Batch = [event for event in self._batch if type(event) is Usage]
        self._batch = []
        with suppress(*_EXPECTED_ERRORS):  # it may be what could not be read
            used = self._used_so_far()
            return told if used is None else [used]
        return told

    def end(self, *, silent: bool = False) -> Batch:
        """Return the last batch: usage and end. Raises `ProviderProtocolError` if the reply is incomplete.

        `silent`: nothing marked the end of the body (see `client.Reader.end`).
        """
        if self.failure is not None:
            raise self.failure
        try:
            self._read_rest()
            if not self._is_complete(silent=silent):
                raise self._protocol_error("ended before the reply was whole")
            self._finish()
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
            raise self.failure from None
        batch, self._batch = self._batch, []
        return batch

    def read_object(self, body: bytes) -> Batch:
        """Return all events of an answer that is one JSON object. Raises subclasses of `ProviderError`."""
        try:
            self._read_whole(body)
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
            raise self.failure from None
        return self.end()

    @abstractmethod
    def _feed(self, data: bytes) -> None:
        """Read a piece of a stream, and append its events to the batch. May raise any of the expected errors."""

    @abstractmethod
    def _read_rest(self) -> None:
        """Read an event that the end of the body has completed. Does nothing after the mark of the end."""

    @abstractmethod
    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object."""

    @abstractmethod
    def _used(self) -> Usage | None:
        """Return the tokens used as far as they are reported; None if nothing is."""

    def _used_so_far(self) -> Usage | None:
        """Return the tokens used by a reply that breaks off; `estimated`, if not all output is counted yet."""
        return self._used()

    @abstractmethod
    def _is_complete(self, *, silent: bool) -> bool:
        """Return whether the reply is complete if it ends now."""

    @abstractmethod
    def _finish(self) -> None:
        """Append the last events: of blocks that are still open, the usage and the ends of the choices."""

    @staticmethod
    @abstractmethod
    def _is_output(event: Event) -> bool:
        """Return whether an event is output of the model."""

    def _note_output(self) -> None:
        """Record whether the batch has output of the model."""
        self.has_output = self.has_output or any(map(self._is_output, self._batch))

    def _origin(self) -> Origin:
        """Return who makes the reply."""
        return Origin(self.protocol, self._provider, self._request.model, self._provider)

    def _failure(self, error: Exception) -> ProviderError:
        """Return the `ProviderError` for an exception of a step."""
        match error:
            case ProviderError():
                return error
            case EventTooLarge():
                return self._protocol_error("sent an event that is too large")
            case json.JSONDecodeError() | UnicodeDecodeError():
                return self._protocol_error("sent what is not JSON")
            case _:
                return self._protocol_error("sent JSON of an unknown shape")

    def _protocol_error(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"The provider {self._provider} {what}.", provider=self._provider)


class MarkedReader(StreamReader):
    """Reads an answer of one choice, whose provider marks the end of a stream with an event."""

    def __init__(self, request: ChatRequest, provider: str) -> None:
        super().__init__(request, provider)
        self.ending = EndMark()
        self._finished: Finished | None = None

    @abstractmethod
    def _read_event(self, event: Any, name: bytes, payload: bytes) -> None:
        """Read one server-sent event. `payload` is its JSON text."""

    def _feed(self, data: bytes) -> None:
        for name, payload in self._sse.feed(data):
            self._read_payload(name, payload)
            if self.ending.done:
                break

    def _read_rest(self) -> None:
        event = None if self.ending.done else self._sse.end()
        if event is not None:
            self._read_payload(*event)

    def _read_payload(self, name: bytes, payload: bytes) -> None:
        if payload[:1] == b"{" or payload.strip() not in _NOTHING:
            self._read_event(read(payload), name, payload)

    def _is_complete(self, *, silent: bool) -> bool:
        return self._finished is not None

    def _end_with(self, finished: Finished) -> None:
        """Record that the reply has ended, and how."""
        self._finished = finished
        self.ending.done = True

    def _finish(self) -> None:
        used = self._used()
        if used is not None:
            self._batch.append(used)
        if self._finished is not None:
            self._batch.append(self._finished)
