"""Turns an answer of Cohere's chat API into events: server-sent events, or one JSON object. No I/O.

https://docs.cohere.com/v2/docs/streaming. `blocks` reads the content. The rules here:

- `message-end` ends a reply; nothing else does. A body that ends without it is a cut reply.
- The finish reasons `ERROR` and `TIMEOUT`, and an `error` beside a finish reason, are failures.
- Events of unknown types are ignored.
- `tokens` are what is counted; the price is that of `billed_units`, which are fewer.
"""

from __future__ import annotations

import time
from typing import Any, Final
from uuid import uuid4

from antiphon.domain.content import JsonObject
from antiphon.domain.errors import ProviderTimeout, ProviderUnavailable
from antiphon.domain.events import (
    BlockFinished,
    BlockStarted,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    Started,
    Usage,
    UsagePart,
)
from antiphon.domain.request import ChatRequest
from antiphon.providers.codec import json
from antiphon.providers.codec.names import ToolNames, tool_names
from antiphon.providers.codec.reader import MarkedReader
from antiphon.providers.codec.values import as_object, count, is_shallow, optional_count, other_fields, text
from antiphon.providers.cohere.blocks import PLAN, PROTOCOL, CohereBlockReader
from antiphon.providers.cohere.names import NAMES
from antiphon.providers.failure import error_of_payload

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

_BILLED: Final = "billed_units"
_COUNTED: Final = frozenset({"tokens", "cached_tokens"})
"""The fields of a usage that have a place in `Usage`."""

_NO_OUTPUT: Final = (Started, BlockStarted, BlockFinished)


class CohereReader(MarkedReader):
    """Reads the answer to one request."""

    protocol = PROTOCOL

    def __init__(self, request: ChatRequest, provider: str) -> None:
        super().__init__(request, provider)
        self._id: str | None = None  # None before the start
        self._blocks = CohereBlockReader(ToolNames(NAMES, tool_names(request)))
        self._usage: Usage | None = None

    @staticmethod
    def _is_output(event: Event) -> bool:
        return not isinstance(event, _NO_OUTPUT)

    def _used(self) -> Usage | None:
        return self._usage

    def _read_event(self, event: Any, name: bytes, payload: bytes) -> None:
        """Read one server-sent event. Its type is in the JSON; a name is only read if it is `error`."""
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
                cited = message["citations"]
                for citation in cited if isinstance(cited, list) else (cited,):
                    blocks.add_citation(citation, batch)
            case _:
                pass

    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object."""
        reply = json.read(body)
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
                origin=self._origin(),
                created=int(time.time()),
                fields=other_fields(reply, _REPLY_FIELDS),
            )
        )
        if fields := other_fields(message, _MESSAGE_FIELDS):
            self._batch.append(ExtraFields(0, fields))

    def _end(self, end: JsonObject, payload: bytes) -> None:
        """Read the end of the reply: its reason and usage. Raises subclasses of `ProviderError` if it is a failure."""
        word = text(end.get("finish_reason"))
        used = _usage(as_object(end.get("usage")), self._request.model)
        if word == _TIMEOUT or word.startswith(_ERROR) or end.get("error"):
            self.error_body = payload
            if used is not None:
                self._batch.append(used)  # a reply that failed is billed, too
            if word == _TIMEOUT:
                raise ProviderTimeout(f"The provider {self._provider} took too long.", provider=self._provider)
            raise ProviderUnavailable(f"The provider {self._provider} failed during the reply.", provider=self._provider)
        reason = _REASONS.get(word, FinishReason.OTHER)
        self._blocks.end(self._batch, is_cut=reason not in (FinishReason.STOP, FinishReason.TOOL_CALLS))
        if reason is FinishReason.STOP and self._blocks.has_calls:
            reason = FinishReason.TOOL_CALLS
        self._usage = used
        self._end_with(Finished(0, reason, word))


def _usage(raw: JsonObject, model: str) -> Usage | None:
    """Return the tokens used by a reply of `model`; None if the provider reported none."""
    counted = as_object(raw.get("tokens")) or as_object(raw.get(_BILLED))
    if not counted:
        return None
    prompt, completion = count(counted.get("input_tokens")), count(counted.get("output_tokens"))
    extra = {name: value for name, value in raw.items() if name not in _COUNTED and value is not None}
    return Usage(
        prompt,
        completion,
        prompt + completion,
        cached_tokens=optional_count(raw.get("cached_tokens")),
        parts=_billed(as_object(raw.get(_BILLED)), model),
        extra=extra if is_shallow(extra) else {},
    )


def _billed(raw: JsonObject, model: str) -> tuple[UsagePart, ...]:
    """Return the tokens that cost something: not those of the API's own instructions."""
    prompt, completion = optional_count(raw.get("input_tokens")), optional_count(raw.get("output_tokens"))
    return () if prompt is None or completion is None else (UsagePart(model, _BILLED, prompt, completion),)
