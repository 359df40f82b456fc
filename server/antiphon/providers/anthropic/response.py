"""Turns an answer of Anthropic's Messages API into events: server-sent events, or one JSON object. No I/O.

https://platform.claude.com/docs/en/build-with-claude/streaming. `blocks` reads the content, and `usage` the tokens. The rules here:

- `message_stop` ends a reply; nothing else does, also not a reason to stop. A body that ends without it is a cut reply.
- `message_start` may hold blocks and a reason to stop already, with no deltas after it.
- An `error` may come at any time. Events that arrived before it in the same read are still returned; it is raised after them.
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
from antiphon.domain.errors import ProviderError, ProviderProtocolError
from antiphon.domain.events import Batch, Event, Finished, FinishReason, Started
from antiphon.domain.request import ChatRequest
from antiphon.net.sse import EventTooLarge, SseReader
from antiphon.providers.anthropic.blocks import BlockReader
from antiphon.providers.anthropic.messages import PROTOCOL
from antiphon.providers.anthropic.names import ToolNames
from antiphon.providers.anthropic.usage import UsageReader
from antiphon.providers.failure import error_of_payload
from antiphon.providers.openai.blocks import is_written
from antiphon.providers.openai.json import JsonReader
from antiphon.providers.openai.values import as_object, is_shallow, text

_REASONS: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "pause_turn": FinishReason.PAUSE,
    "compaction": FinishReason.PAUSE,
    "refusal": FinishReason.REFUSAL,
    "model_context_window_exceeded": FinishReason.CONTEXT_WINDOW,
}
_COMPLETE: Final = (FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.PAUSE)
"""The reasons after which no block is cut."""

_MESSAGE_FIELDS: Final = frozenset({"id", "type", "role", "model", "content", "usage", "stop_reason"})
_DETAILS: Final = frozenset({"stop_sequence", "stop_details", "container", "context_management"})
"""Fields of a message that are about its end."""
_EVENT_FIELDS: Final = frozenset({"type", "delta", "usage", "stop_reason"})

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
"""The exceptions that reading an event may raise. `ValueError` includes the errors of JSON and UTF-8."""


class Ending:
    """What is known about the end of the reply: only `message_stop` ends it, never silence."""

    def __init__(self) -> None:
        self.done = False
        self.changed = False

    def wait(self) -> float | None:
        """Return None: silence ends no reply."""
        return None


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
        self._sse = SseReader(MAX_MESSAGE_BYTES)
        self._json = JsonReader()
        self._batch: Batch = []
        self._id: str | None = None  # None before the start
        self._model = request.model
        self._blocks = BlockReader(names or ToolNames(()))
        self._usage = UsageReader()
        self._reason: str | None = None
        self._details: dict[str, Any] = {}
        self._finished: Finished | None = None
        self.has_output = False
        """Whether the model has produced anything."""

    @property
    def has_usage(self) -> bool:
        """Return whether the provider has reported the tokens used."""
        return self._usage.is_known

    def feed(self, data: bytes) -> Batch:
        """Return the events that these bytes complete; may be empty.

        Raises subclasses of `ProviderError`. A failure after some output in the same read is not raised but kept in `failure`, so
        that the caller first gets that output.
        """
        try:
            for name, payload in self._sse.feed(data):
                self._read_event(name, payload)
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
        """Ignore data that follows the end of the reply: its usage comes before its end."""

    def end(self, *, silent: bool = False) -> Batch:
        """Return the last batch: usage and end. Raises `ProviderProtocolError` if the reply is incomplete."""
        if self.failure is not None:
            raise self.failure
        if not self.ending.done:
            self._run(self._read_rest)
        if self._finished is None:
            raise self._protocol_error("ended before the reply was whole")
        batch, self._batch = self._batch, []
        usage = self._usage.usage(self._model)
        if usage is not None:
            batch.append(usage)
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
            case json.JSONDecodeError() | UnicodeDecodeError():
                return self._protocol_error("sent what is not JSON")
            case _:
                return self._protocol_error("sent JSON of an unknown shape")

    def _read_rest(self) -> None:
        event = self._sse.end()
        if event is not None:
            self._read_event(*event)

    def _read_event(self, name: bytes, payload: bytes) -> None:
        """Read one server-sent event. Its type is in the JSON; a name is only read if it is `error`."""
        if payload[:1] != b"{" and payload.strip() in (b"", b"[DONE]"):
            return
        event = self._json.read(payload)
        kind = event.get("type")
        if kind == "content_block_delta":  # nearly every event
            self._blocks.add(event["index"], event["delta"], self._batch)
            return
        if kind == "error" or name == b"error" or (kind is None and "error" in event):
            self.error_body = payload
            raise error_of_payload(self._provider, event)
        match kind:
            case "message_start":
                self._start(event["message"])
            case "content_block_start":
                self._start_if_needed()
                self._blocks.start(event["index"], event["content_block"], self._batch)
            case "content_block_stop":
                self._blocks.stop(event["index"], self._batch)
            case "message_delta":
                self._start_if_needed()
                self._read_end(event)
            case "message_stop":
                self._end()
            case _:
                pass

    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object."""
        reply = self._json.read(body)
        if not isinstance(reply, dict) or not isinstance(reply.get("content"), list):
            self.error_body = body
            raise error_of_payload(self._provider, reply)
        self._start(reply)
        self._end()

    def _start_if_needed(self) -> None:
        if self._id is None:
            self._start({})

    def _start(self, message: JsonObject) -> None:
        """Append `Started`, and the blocks that the message holds.

        A repeated start is ignored. Raises `ProviderProtocolError` if it is that of another reply.
        """
        given = text(message.get("id"))
        if self._id is not None:
            if given != self._id:
                raise self._protocol_error("started another reply within the first")
            return
        self._id = given or uuid4().hex
        self._model = text(message.get("model")) or self._model
        self._batch.append(
            Started(
                id=self._id,
                model=self._model,
                origin=Origin(PROTOCOL, self._provider, self._request.model, self._provider),
                created=int(time.time()),
                fields=_others(message, _MESSAGE_FIELDS | _DETAILS),
            )
        )
        self._usage.add(message.get("usage"))
        for index, block in enumerate(message.get("content") or ()):
            self._blocks.start(index, block, self._batch)
            self._blocks.stop(index, self._batch)
        self._add_details({name: value for name, value in message.items() if name in _DETAILS})
        self._reason = _optional_text(message.get("stop_reason"))

    def _read_end(self, event: JsonObject) -> None:
        """Read the reason to stop, and the tokens used."""
        delta = as_object(event.get("delta"))
        self._usage.add(event.get("usage"))
        self._add_details({**_others(event, _EVENT_FIELDS), **_others(delta, _EVENT_FIELDS)})
        self._reason = _optional_text(delta.get("stop_reason")) or self._reason

    def _add_details(self, details: JsonObject) -> None:
        if not is_shallow(details):
            raise ValueError("depth")
        self._details |= {name: value for name, value in details.items() if value is not None}

    def _end(self) -> None:
        """Read the end of the reply. Raises `ProviderProtocolError` if there is no reason for it."""
        if self._reason is None:
            raise self._protocol_error("ended a reply without a reason")
        reason = _REASONS.get(self._reason, FinishReason.OTHER)
        self._blocks.end(self._batch, is_cut=reason not in _COMPLETE)
        self._finished = Finished(0, reason, self._reason, self._details)
        self.ending.done = True

    def _protocol_error(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"The provider {self._provider} {what}.", provider=self._provider)


def _others(fields: JsonObject, known: frozenset[str]) -> JsonObject:
    """Return the unknown fields. Raises `ValueError` for values that are nested too deeply."""
    others = {name: value for name, value in fields.items() if name not in known}
    if not is_shallow(others):
        raise ValueError("depth")
    return others


def _optional_text(value: object) -> str | None:
    return text(value) or None


def _is_output(event: Event) -> bool:
    """Return whether an event is output of the model."""
    return not isinstance(event, Started) and is_written(event)
