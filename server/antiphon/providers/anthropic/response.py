"""Turns an answer of Anthropic's Messages API into events: server-sent events, or one JSON object. No I/O.

https://platform.claude.com/docs/en/build-with-claude/streaming. `blocks` reads the content, and `usage` the tokens. The rules here:

- `message_stop` ends a reply; nothing else does, also not a reason to stop. A body that ends without it is a cut reply.
- `message_start` may hold blocks and a reason to stop already, with no deltas after it.
- An `error` may come at any time.
- The container that code ran in is a field of the message, so that the next request can use it again.
- Events of unknown types are ignored.
"""

from __future__ import annotations

import time
from typing import Any, Final
from uuid import uuid4

from msgspec.structs import replace

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Event, ExtraFields, Finished, FinishReason, Started, Usage
from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.blocks import AnthropicBlockReader
from antiphon.providers.anthropic.container import CONTAINER
from antiphon.providers.anthropic.messages import PROTOCOL
from antiphon.providers.anthropic.names import NAMES
from antiphon.providers.anthropic.usage import UsageReader
from antiphon.providers.codec import json
from antiphon.providers.codec.blocks import is_written
from antiphon.providers.codec.names import ToolNames, tool_names
from antiphon.providers.codec.reader import MarkedReader
from antiphon.providers.codec.values import as_object, is_shallow, other_fields, text
from antiphon.providers.failure import error_of_payload

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
_DETAILS: Final = frozenset({"stop_sequence", "stop_details", CONTAINER, "context_management"})
"""Fields of a message that are about its end."""
_EVENT_FIELDS: Final = frozenset({"type", "delta", "usage", "stop_reason"})


class AnthropicReader(MarkedReader):
    """Reads the answer to one request."""

    protocol = PROTOCOL

    def __init__(self, request: ChatRequest, provider: str) -> None:
        super().__init__(request, provider)
        self._id: str | None = None  # None before the start
        self._model = request.model
        self._blocks = AnthropicBlockReader(ToolNames(NAMES, tool_names(request)))
        self._tokens = UsageReader()
        self._reason: str | None = None
        self._details: dict[str, Any] = {}

    @staticmethod
    def _is_output(event: Event) -> bool:
        return not isinstance(event, Started | Usage) and is_written(event)

    def _used(self) -> Usage | None:
        return self._tokens.usage(self._model)

    def _used_so_far(self) -> Usage | None:
        used = self._used()
        return None if used is None else replace(used, estimated=self._reason is None)

    def _read_event(self, event: Any, name: bytes, payload: bytes) -> None:
        """Read one server-sent event. Its type is in the JSON; a name is only read if it is `error`."""
        kind = event.get("type")
        if kind == "content_block_delta":  # nearly every event
            self._blocks.add(event["index"], event["delta"], self._batch)
            return
        if kind == "error" or name == b"error" or (kind is None and "error" in event):
            self.error_body = payload
            self._tokens.add(event.get("usage"))  # some hosts add it
            raise error_of_payload(self._provider, event)
        match kind:
            case "message_start":
                self._start(event["message"])
                used = self._used()
                if used is not None:  # a reply that is cut costs this at least
                    self._batch.append(replace(used, estimated=True))
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
        reply = json.read(body)
        if not isinstance(reply, dict) or not isinstance(reply.get("content"), list):
            self.error_body = body
            self._tokens.add(as_object(reply).get("usage"))
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
                origin=self._origin(),
                created=int(time.time()),
                fields=other_fields(message, _MESSAGE_FIELDS | _DETAILS),
            )
        )
        self._tokens.add(message.get("usage"))
        for index, block in enumerate(message.get("content") or ()):
            self._blocks.start(index, block, self._batch)
            self._blocks.stop(index, self._batch)
        self._add_details({name: value for name, value in message.items() if name in _DETAILS})
        self._reason = _optional_text(message.get("stop_reason"))

    def _read_end(self, event: JsonObject) -> None:
        """Read the reason to stop, and the tokens used."""
        delta = as_object(event.get("delta"))
        self._tokens.add(event.get("usage"))
        self._add_details({**other_fields(event, _EVENT_FIELDS), **other_fields(delta, _EVENT_FIELDS)})
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
        if isinstance(container := self._details.get(CONTAINER), dict):
            self._batch.append(ExtraFields(0, {CONTAINER: container}))
        self._end_with(Finished(0, reason, self._reason, self._details))


def _optional_text(value: object) -> str | None:
    return text(value) or None
