"""Turns an answer of Cohere's chat API into events: server-sent events, or one JSON object. No I/O.

https://docs.cohere.com/v2/docs/streaming. `blocks` reads the content. The rules here:

- `message-end` ends a reply; nothing else does. A body that ends without it is a cut reply.
- The finish reasons `ERROR` and `TIMEOUT`, and an `error` beside a finish reason, are failures.
- Events that arrived before a failure in the same read are still returned; the failure is raised after them.
- Events of unknown types are ignored.
- `tokens` are what is counted. `billed_units`, which are fewer, are in `Usage.extra`.
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
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from antiphon.domain.events import Batch, BlockFinished, BlockStarted, Event, ExtraFields, Finished, FinishReason, Started, Usage
from antiphon.domain.request import ChatRequest
from antiphon.net.sse import EventTooLarge, SseReader
from antiphon.providers.cohere.blocks import PLAN, PROTOCOL, BlockReader
from antiphon.providers.failure import error_of_payload
from antiphon.providers.openai.json import JsonReader
from antiphon.providers.openai.values import as_object, is_shallow, read_usage, text

_REASONS: Final = {
    "COMPLETE": FinishReason.STOP,
    "STOP_SEQUENCE": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
}
_TIMEOUT: Final = "TIMEOUT"
_ERROR: Final = "ERROR"

_REPLY_FIELDS: Final = frozenset({"id", "type", "delta", "message", "finish_reason", "usage"})
_MESSAGE_FIELDS: Final = frozenset({"role", "content", PLAN, "tool_calls", "citations"})
"""The fields of a reply and its message that have a place in the events."""

_NO_OUTPUT: Final = (Started, BlockStarted, BlockFinished)

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
    """What is known about the end of the reply: only `message-end` ends it, never silence."""

    def __init__(self) -> None:
        self.done = False
        self.changed = False

    def wait(self) -> float | None:
        """Return None: silence ends no reply."""
        return None


class ReplyReader:
    """Reads the answer to one request."""

    def __init__(self, request: ChatRequest, provider: str) -> None:
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
        self._blocks = BlockReader()
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
        """Ignore data that follows the end of the reply: its usage is in the same event as its end."""

    def end(self, *, silent: bool = False) -> Batch:
        """Return the last batch: usage and end. Raises `ProviderProtocolError` if the reply is incomplete."""
        if self.failure is not None:
            raise self.failure
        if not self.ending.done:
            self._run(self._read_rest)
        if self._finished is None:
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
        if kind == "content-delta":  # nearly every event
            self._start_if_needed()
            self._blocks.add_content(event["index"], event["delta"]["message"]["content"], self._batch)
            return
        if kind == "error" or name == b"error" or (kind is None and ("message" in event or "error" in event)):
            self.error_body = payload
            raise error_of_payload(self._provider, event)
        if kind == "message-start":
            self._start(event, as_object(as_object(event.get("delta")).get("message")))
        elif kind == "message-end":
            self._start_if_needed()
            self._end(as_object(event.get("delta")), payload)
        else:
            self._read_block(kind, event)

    def _read_block(self, kind: object, event: JsonObject) -> None:
        """Read an event of a block."""
        blocks, batch, index = self._blocks, self._batch, event.get("index")
        if kind in ("content-start", "tool-plan-delta", "tool-call-start", "tool-call-delta", "citation-start"):
            self._start_if_needed()
            message = event["delta"]["message"]
        match kind:
            case "content-start":
                blocks.start_content(index, message["content"], batch)
            case "content-end":
                blocks.end_content(index, batch)
            case "tool-plan-delta":
                blocks.add_plan(text(message[PLAN]), batch)
            case "tool-call-start":
                blocks.start_call(index, message["tool_calls"], batch)
            case "tool-call-delta":
                blocks.add_arguments(index, message["tool_calls"], batch)
            case "tool-call-end":
                blocks.end_call(index, batch)
            case "citation-start":
                blocks.add_citation(message["citations"], batch)
            case _:
                pass

    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object."""
        reply = self._json.read(body)
        message = reply.get("message")
        if not isinstance(message, dict):
            self.error_body = body
            raise error_of_payload(self._provider, reply)
        blocks, batch = self._blocks, self._batch
        self._start(reply, message)
        blocks.add_plan(text(message.get(PLAN)), batch)
        for index, part in enumerate(message.get("content") or ()):
            blocks.start_content(index, part, batch)
            blocks.end_content(index, batch)
        for citation in message.get("citations") or ():
            blocks.add_citation(citation, batch)
        for index, call in enumerate(message.get("tool_calls") or ()):
            blocks.start_call(index, call, batch)
            blocks.end_call(index, batch)
        self._end(reply, body)

    def _start_if_needed(self) -> None:
        if self._id is None:
            self._start({}, {})

    def _start(self, reply: JsonObject, message: JsonObject) -> None:
        """Append `Started`. A repeated start is ignored. Raises `ProviderProtocolError` if it is that of another reply."""
        given = text(reply.get("id"))
        if self._id is not None:
            if given != self._id:
                raise self._protocol_error("started another reply within the first")
            return
        self._id = given or uuid4().hex
        self._batch.append(
            Started(
                id=self._id,
                model=self._request.model,
                origin=Origin(PROTOCOL, self._provider, self._request.model, self._provider),
                created=int(time.time()),
                fields=_others(reply, _REPLY_FIELDS),
            )
        )
        if fields := _others(message, _MESSAGE_FIELDS):
            self._batch.append(ExtraFields(0, fields))

    def _end(self, end: JsonObject, payload: bytes) -> None:
        """Read the end of the reply: its reason and usage. Raises subclasses of `ProviderError` if it is a failure."""
        word = text(end.get("finish_reason"))
        if word == _TIMEOUT or word.startswith(_ERROR) or end.get("error"):
            self.error_body = payload
            if word == _TIMEOUT:
                raise ProviderTimeout(f"The provider {self._provider} took too long.", provider=self._provider)
            raise ProviderUnavailable(f"The provider {self._provider} failed during the reply.", provider=self._provider)
        reason = _REASONS.get(word, FinishReason.OTHER)
        self._blocks.end(self._batch, is_cut=reason not in (FinishReason.STOP, FinishReason.TOOL_CALLS))
        self._usage = _usage(as_object(end.get("usage")))
        self._finished = Finished(0, reason, word)
        self.ending.done = True

    def _protocol_error(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"The provider {self._provider} {what}.", provider=self._provider)


def _usage(raw: JsonObject) -> Usage | None:
    """Return the tokens used; None if the provider reported none."""
    counted = as_object(raw.get("tokens")) or as_object(raw.get("billed_units"))
    if not counted:
        return None
    rest: dict[str, Any] = {name: value for name, value in raw.items() if name not in ("tokens", "cached_tokens")}
    counts = {"prompt_tokens": counted.get("input_tokens"), "completion_tokens": counted.get("output_tokens")}
    return read_usage({**rest, **counts, "prompt_tokens_details": {"cached_tokens": raw.get("cached_tokens")}})


def _others(fields: JsonObject, known: frozenset[str]) -> JsonObject:
    """Return the unknown fields. Raises `ValueError` for values that are nested too deeply."""
    others = {name: value for name, value in fields.items() if name not in known}
    if not is_shallow(others):
        raise ValueError("depth")
    return others


def _is_output(event: Event) -> bool:
    """Return whether an event is output of the model."""
    return not isinstance(event, _NO_OUTPUT)
