"""Turns an answer of the Converse API into events: a binary event stream, or one JSON object. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html. `blocks` reads the content, `usage` the
tokens and `errors` the exceptions. The rules here:

- `messageStop` ends a reply, and `metadata` has its tokens. They come in either order, and `messageStart` may be missing.
- A body that ends before `messageStop`, or within a message, is a cut reply. After it, only the tokens are waited for.
- The reasons `malformed_model_output` and `malformed_tool_use` are failures.
- An exception may come at any time. Events that arrived before it in the same read are still returned; it is raised after them.
- Events of unknown types are ignored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from uuid import uuid4

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain.content import JsonObject, Origin
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderUnavailable
from antiphon.domain.events import Batch, Event, ExtraFields, Finished, FinishReason, Place, Started, Usage
from antiphon.domain.request import ChatRequest
from antiphon.net.eventstream import EventStreamReader, InvalidStream, StreamMessage
from antiphon.net.sse import EventTooLarge
from antiphon.providers.anthropic.names import ToolNames
from antiphon.providers.bedrock.blocks import BlockReader
from antiphon.providers.bedrock.errors import error_of_exception
from antiphon.providers.bedrock.messages import PROTOCOL
from antiphon.providers.bedrock.usage import read_usage
from antiphon.providers.failure import error_of_payload
from antiphon.providers.openai.blocks import is_written
from antiphon.providers.openai.json import JsonReader
from antiphon.providers.openai.values import as_object, is_shallow, text

_REASONS: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,  # of newer models, in no list of the API
    "model_context_window_exceeded": FinishReason.CONTEXT_WINDOW,
}
_FAILURES: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
_COMPLETE: Final = (FinishReason.STOP, FinishReason.TOOL_CALLS)
"""The reasons after which no block is cut."""

_RESPONSE_FIELDS: Final = "additionalModelResponseFields"
_KNOWN: Final = frozenset({"output", "stopReason", "usage", _RESPONSE_FIELDS, "p"})
"""Fields of the reply or its metadata that have a place in the events; `p` is padding, which hides the lengths of messages."""

_WAIT: Final = 5.0
"""Seconds of silence that end a reply after `messageStop`, if the tokens do not come."""

_EXPECTED_ERRORS: Final = (
    ProviderError,
    EventTooLarge,
    InvalidStream,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""The exceptions that reading an event may raise. `ValueError` includes the errors of JSON and UTF-8."""


class Ending:
    """What is known about the end of the reply."""

    def __init__(self) -> None:
        self.done = False
        self.changed = False
        self.is_stopped = False
        """`messageStop` has come."""

    def wait(self) -> float | None:
        """Return how long to wait for the tokens; None before `messageStop`, when silence ends no reply."""
        return _WAIT if self.is_stopped else None


class ReplyReader:
    """Reads the answer to one request. `names` are those of the request's tools."""

    def __init__(self, request: ChatRequest, provider: str, names: ToolNames | None = None) -> None:
        self.ending = Ending()
        self.failure: ProviderError | None = None
        """The error to raise after the batch that `feed` returned."""
        self.error_body = b""
        """The provider's own text about the failure, for the log."""
        self._request = request
        self._provider = provider
        self._messages = EventStreamReader(MAX_MESSAGE_BYTES)
        self._json = JsonReader()
        self._batch: Batch = []
        self._is_started = False
        self._blocks = BlockReader(names or ToolNames(()))
        self._usage: Usage | None = None
        self._finished: Finished | None = None
        self.has_output = False
        """Whether the model has produced anything."""

    @property
    def has_usage(self) -> bool:
        """Return whether the provider has reported the tokens used."""
        return self._usage is not None

    def feed(self, data: bytes) -> Batch:
        """Return the events that these bytes complete; may be empty.

        Raises subclasses of `ProviderError`. A failure after some output in the same read is not raised but kept in `failure`, so
        that the caller first gets that output.
        """
        try:
            for message in self._messages.feed(data):
                self._read_message(message)
                if self.ending.done:
                    break
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
        if self.failure is not None and not any(map(_is_output, self._batch)):
            # There is no output to return first.
            raise self.failure
        batch, self._batch = self._batch, []
        self.has_output = self.has_output or any(map(_is_output, batch))
        return batch

    def break_off(self) -> Batch:
        """Return nothing: no event is held back."""
        return []

    def feed_after_done(self, data: bytes) -> None:
        """Ignore data that follows the end of the reply, of which the tokens are a part."""

    def end(self, *, silent: bool = False) -> Batch:
        """Return the last batch: usage and end. Raises `ProviderProtocolError` if the reply is incomplete."""
        if self.failure is not None:
            raise self.failure
        if self._finished is None or not (self.ending.done or self._messages.is_between_messages):
            raise self._protocol_error("ended before the reply was whole")
        batch, self._batch = self._batch, []
        if self._usage is not None:
            batch.append(self._usage)
        batch.append(self._finished)
        return batch

    def read_object(self, body: bytes) -> Batch:
        """Return all events of an answer that is one JSON object. Raises subclasses of `ProviderError`."""
        self._run(partial(self._read_whole, body))
        return self.end()

    def _run(self, step: Callable[[], None]) -> None:
        """Run a step, and raise its failure as a `ProviderError`."""
        try:
            step()
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
            raise self.failure from None

    def _failure(self, error: Exception) -> ProviderError:
        """Return the `ProviderError` for an exception of a step.

        The steps do not check the shape of the JSON before they use it. JSON of another shape therefore raises one of the built-in
        errors.
        """
        match error:
            case ProviderError():
                return error
            case EventTooLarge():
                return self._protocol_error("sent an event that is too large")
            case InvalidStream():
                return self._protocol_error("sent what is not an event stream")
            case json.JSONDecodeError() | UnicodeDecodeError():
                return self._protocol_error("sent what is not JSON")
            case _:
                return self._protocol_error("sent JSON of an unknown shape")

    def _read_message(self, message: StreamMessage) -> None:
        headers, payload = message
        if headers.get(":message-type") != "event":
            error, self.error_body = error_of_exception(self._provider, headers, payload)
            raise error
        kind = headers[":event-type"]
        event = self._json.read(payload)
        if kind == "contentBlockDelta":  # nearly every event
            self._start({})
            self._blocks.add(event["contentBlockIndex"], event["delta"], self._batch)
            return
        match kind:
            case "messageStart":
                self._start({name: value for name, value in event.items() if name not in ("role", "p")})
            case "contentBlockStart":
                self._start({})
                self._blocks.start(event["contentBlockIndex"], event["start"], self._batch)
            case "contentBlockStop":
                self._blocks.stop(event["contentBlockIndex"], self._batch)
            case "messageStop":
                self._start({})
                self._read_end(event, payload)
                self.ending.changed = True
                self.ending.is_stopped = True
            case "metadata":
                self._start({})
                self._read_metadata(event)
            case _:
                return
        self.ending.done = self.ending.is_stopped and self.has_usage

    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object."""
        reply = self._json.read(body)
        message = as_object(as_object(reply.get("output")).get("message")) if isinstance(reply, dict) else {}
        if not isinstance(message.get("content"), list):
            self.error_body = body
            raise error_of_payload(self._provider, reply)
        self._start(_others(message, frozenset({"role", "content"})))
        for index, block in enumerate(message["content"]):
            self._blocks.add_whole(index, block, self._batch)
        self._read_end(reply, body)
        self._read_metadata(reply)

    def _start(self, fields: JsonObject) -> None:
        """Append `Started`, unless it was. A stream has neither an id nor the model's name."""
        if self._is_started:
            return
        self._is_started = True
        if not is_shallow(fields):
            raise ValueError("depth")
        model = self._request.model
        origin = Origin(PROTOCOL, self._provider, model, self._provider)
        self._batch.append(Started(id=uuid4().hex, model=model, origin=origin, created=int(time.time()), fields=fields))

    def _read_end(self, event: JsonObject, payload: bytes) -> None:
        """Read why the reply ended. Raises `ProviderUnavailable` if that is a failure."""
        if self._finished is not None:
            raise ValueError("end")
        word = text(event["stopReason"])
        if word in _FAILURES:
            self.error_body = payload
            raise ProviderUnavailable(f"The provider {self._provider} failed during the reply.", provider=self._provider)
        reason = _REASONS.get(word, FinishReason.OTHER)
        self._blocks.end(self._batch, is_cut=reason not in _COMPLETE)
        details: dict[str, Any] = {name: event[name] for name in (_RESPONSE_FIELDS,) if event.get(name) is not None}
        if not is_shallow(details):
            raise ValueError("depth")
        self._finished = Finished(0, reason, word, details)

    def _read_metadata(self, event: JsonObject) -> None:
        if (usage := event.get("usage")) is not None:
            self._usage = read_usage(as_object(usage))
        if fields := _others(event, _KNOWN):
            self._batch.append(ExtraFields(None, fields, Place.REPLY))

    def _protocol_error(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"The provider {self._provider} {what}.", provider=self._provider)


def _others(fields: JsonObject, known: frozenset[str]) -> JsonObject:
    """Return the unknown fields. Raises `ValueError` for values that are nested too deeply."""
    others = {name: value for name, value in fields.items() if name not in known}
    if not is_shallow(others):
        raise ValueError("depth")
    return others


def _is_output(event: Event) -> bool:
    """Return whether an event is output of the model."""
    return not isinstance(event, Started | ExtraFields) and is_written(event)
