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

import time
from typing import Any, Final
from uuid import uuid4

from msgspec.structs import replace

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain.content import JsonObject
from antiphon.domain.errors import ProviderError, ProviderUnavailable
from antiphon.domain.events import Batch, Event, ExtraFields, Finished, FinishReason, Place, Started, Usage
from antiphon.domain.request import ChatRequest
from antiphon.net.eventstream import EventStreamReader, InvalidStream, StreamMessage
from antiphon.providers.bedrock.blocks import BedrockBlockReader
from antiphon.providers.bedrock.errors import error_of_exception
from antiphon.providers.bedrock.messages import PROTOCOL
from antiphon.providers.bedrock.names import NAMES
from antiphon.providers.bedrock.usage import read_usage
from antiphon.providers.codec import json
from antiphon.providers.codec.blocks import is_written
from antiphon.providers.codec.names import ToolNames, tool_names
from antiphon.providers.codec.reader import StreamReader
from antiphon.providers.codec.values import as_object, is_shallow, other_fields, service_tier, text
from antiphon.providers.failure import error_of_payload

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
_TIER: Final = "serviceTier"
_KNOWN: Final = frozenset({"output", "stopReason", "usage", _RESPONSE_FIELDS, "p"})
"""Fields of the reply or its metadata that have a place in the events; `p` is padding, which hides the lengths of messages."""

_WAIT: Final = 5.0
"""Seconds of silence that end a reply after `messageStop`, if the tokens do not come."""


class BedrockEnding:
    """What is known about the end of the reply."""

    def __init__(self) -> None:
        self.done = False
        self.changed = False
        self.is_stopped = False
        """`messageStop` has come."""

    def wait(self) -> float | None:
        """Return how long to wait for the tokens; None before `messageStop`, when silence ends no reply."""
        return _WAIT if self.is_stopped else None


class BedrockReader(StreamReader):
    """Reads the answer to one request."""

    protocol = PROTOCOL

    def __init__(self, request: ChatRequest, provider: str) -> None:
        super().__init__(request, provider)
        self.ending = BedrockEnding()
        self._messages = EventStreamReader(MAX_MESSAGE_BYTES)
        self._is_started = False
        self._blocks = BedrockBlockReader(ToolNames(NAMES, tool_names(request)))
        self._usage: Usage | None = None
        self._finished: Finished | None = None
        self._is_malformed = False

    @staticmethod
    def _is_output(event: Event) -> bool:
        return not isinstance(event, Started | ExtraFields) and is_written(event)

    def _used(self) -> Usage | None:
        return self._usage

    def break_off(self) -> Batch:
        """Return the tokens used by a reply that broke off, if they are known."""
        return [] if self._usage is None else [self._usage]

    def _is_complete(self, *, silent: bool) -> bool:
        is_stopped = self._finished is not None or self._is_malformed
        return is_stopped and (self.ending.done or self._messages.is_between_messages)

    def _finish(self) -> None:
        self._check_form()
        self._batch += (event for event in (self._usage, self._finished) if event is not None)

    def _failure(self, error: Exception) -> ProviderError:
        return (
            self._protocol_error("sent what is not an event stream")
            if isinstance(error, InvalidStream)
            else super()._failure(error)
        )

    def _feed(self, data: bytes) -> None:
        for message in self._messages.feed(data):
            self._read_message(message)
            if self.ending.done:
                break

    def _read_rest(self) -> None:
        """Do nothing: the end of the body completes no message."""

    def _read_message(self, message: StreamMessage) -> None:
        headers, payload = message
        if headers.get(":message-type") != "event":
            error, self.error_body = error_of_exception(self._provider, headers, payload)
            raise error
        kind = headers[":event-type"]
        event = json.read(payload)
        if kind == "contentBlockDelta":  # nearly every event
            if not self._is_started:
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
        if self.ending.done:
            self._check_form()

    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object."""
        reply = json.read(body)
        message = as_object(as_object(reply.get("output")).get("message")) if isinstance(reply, dict) else {}
        if not isinstance(message.get("content"), list):
            self.error_body = body
            raise error_of_payload(self._provider, reply)
        self._start(other_fields(message, frozenset({"role", "content"})))
        for index, block in enumerate(message["content"]):
            self._blocks.add_whole(index, block, self._batch)
        self._read_end(reply, body)
        self._read_metadata(reply)
        self.ending.done = True

    def _start(self, fields: JsonObject) -> None:
        """Append `Started`, unless it was. A stream has neither an id nor the model's name."""
        if self._is_started:
            return
        self._is_started = True
        if not is_shallow(fields):
            raise ValueError("depth")
        self._batch.append(
            Started(id=uuid4().hex, model=self._request.model, origin=self._origin(), created=int(time.time()), fields=fields)
        )

    def _read_end(self, event: JsonObject, payload: bytes) -> None:
        """Read why the reply ended. A failure is raised later, because its tokens are still to come."""
        if self._finished is not None or self._is_malformed:
            raise ValueError("end")
        word = text(event["stopReason"])
        if word in _FAILURES:
            self.error_body = payload
            self._is_malformed = True
            return
        reason = _REASONS.get(word, FinishReason.OTHER)
        self._blocks.end(self._batch, is_cut=reason not in _COMPLETE)
        details: dict[str, Any] = {name: event[name] for name in (_RESPONSE_FIELDS,) if event.get(name) is not None}
        if not is_shallow(details):
            raise ValueError("depth")
        self._finished = Finished(0, reason, word, details)

    def _check_form(self) -> None:
        """Raise `ProviderUnavailable` if the model could not write its reply in the API's form."""
        if self._is_malformed:
            raise ProviderUnavailable(f"The provider {self._provider} failed during the reply.", provider=self._provider)

    def _read_metadata(self, event: JsonObject) -> None:
        if (usage := event.get("usage")) is not None:
            tier = service_tier(as_object(event.get(_TIER)).get("type"))
            self._usage = replace(read_usage(as_object(usage)), service_tier=tier)
        if fields := other_fields(event, _KNOWN):
            self._batch.append(ExtraFields(None, fields, Place.REPLY))
