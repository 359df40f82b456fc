"""Turns an answer of the Responses API into events: server-sent events, or one JSON object. No I/O.

https://platform.openai.com/docs/api-reference/responses-streaming. `blocks` reads the output items. The rules here:

- `response.completed` and `response.incomplete` end a reply; nothing else does. A body that ends without one is a cut reply.
- `response.failed`, `error`, an `error` in a response, and a status that is no end are failures.
- A host that streams no items, or only some of them or of their content, has all of them in the last event.
- An event of an unknown type is progress if it belongs to an item, else it is ignored.
- The fields of a response that repeat the request are left out.
"""

from __future__ import annotations

import time
from typing import Any, Final, NoReturn
from uuid import uuid4

from msgspec.structs import replace

from antiphon.domain.content import Image, JsonObject, Opaque, ServerToolCall, ServerToolResult, ToolCall
from antiphon.domain.events import (
    BlockFinished,
    BlockStarted,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    Place,
    Started,
    Usage,
)
from antiphon.domain.request import ChatRequest, NativeTool
from antiphon.providers.codec import json
from antiphon.providers.codec.names import ToolNames, tool_names
from antiphon.providers.codec.reader import MarkedReader
from antiphon.providers.codec.values import as_object, seconds, service_tier, text
from antiphon.providers.failure import error_of_payload
from antiphon.providers.responses.blocks import ResponsesBlockReader
from antiphon.providers.responses.fields import custom_tools, passed_fields, usage_of
from antiphon.providers.responses.items import NAMES, PART_TYPES, PROTOCOL, error_of

_REASONS: Final = {
    "content_filter": FinishReason.CONTENT_FILTER,
    "max_messages": FinishReason.LENGTH,
    "max_output_tokens": FinishReason.LENGTH,
    "steered": FinishReason.PAUSE,
}
"""By `incomplete_details.reason`."""

_REJECTED: Final = frozenset(
    {
        "bio_policy",
        "context_length_exceeded",
        "cyber_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
        "image_file_too_large",
        "invalid_image_mode",
        "misalignment_policy_violation",
        "unsupported_image_media_type",
    }
)
"""Codes of failures because of the request, beside those that all protocols have. A retry of the same request is useless."""

_OVERTIME: Final = "vector_store_timeout"

_OTHER_ENDS: Final = frozenset({"failed", "cancelled", "incomplete"})
"""The statuses that overrule an event which says that the reply is complete."""

_STRUCTURE: Final = frozenset({"type", "sequence_number", "output_index", "item_id", "obfuscation"})
"""The fields of an event that say nothing about the content."""

_NO_OUTPUT: Final = (Started, BlockFinished, ExtraFields, Usage)
_OUTPUT_BLOCKS: Final = (ToolCall, ServerToolCall, ServerToolResult, Image, Opaque)
"""Blocks that are output of the model as soon as they start: a tool of the provider may have had an effect."""


class ResponsesReader(MarkedReader):
    """Reads the answer to one request."""

    protocol = PROTOCOL

    def __init__(self, request: ChatRequest, provider: str) -> None:
        super().__init__(request, provider)
        self._id: str | None = None  # None before the start
        self._fields: JsonObject = {}
        custom = custom_tools([tool.fields for tool in request.tools if isinstance(tool, NativeTool)])
        self._blocks = ResponsesBlockReader(ToolNames(NAMES, tool_names(request)), custom)
        self._usage: Usage | None = None

    @staticmethod
    def _is_output(event: Event) -> bool:
        if isinstance(event, BlockStarted):
            return isinstance(event.value, _OUTPUT_BLOCKS)
        return not isinstance(event, _NO_OUTPUT)

    def _used(self) -> Usage | None:
        return self._usage

    def _read_event(self, event: Any, name: bytes, payload: bytes) -> None:
        """Read one server-sent event. Its type is in the JSON; a name is only read if it is `error`."""
        kind = event.get("type")
        if kind == "response.output_text.delta":  # nearly every event
            self._start_if_needed()
            self._blocks.add_text(event, self._batch)
            return
        if kind == "error" or name == b"error" or (kind is None and ("error" in event or "message" in event)):
            self._fail(as_object(event.get("error")) or {key: value for key, value in event.items() if key != "type"}, payload)
        match kind:
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                self._end(event["response"], kind.removeprefix("response."), payload)
            case "response.created":
                response = as_object(event.get("response"))
                if self._id is not None and text(response.get("id")) != self._id:
                    raise self._protocol_error("started another reply within the first")
                self._start(response)
            case "response.in_progress" | "response.queued":
                self._start(as_object(event.get("response")))
            case str() if kind.startswith("response."):
                self._start_if_needed()
                self._read_block(kind.removeprefix("response."), event)
            case _:
                pass

    def _read_block(self, kind: str, event: JsonObject) -> None:  # noqa: C901  # a match over the kinds of event
        """Read an event of an item. `kind` is its type without the prefix that all have."""
        blocks, batch = self._blocks, self._batch
        match kind:
            case "output_item.added":
                blocks.start_item(event, batch)
            case "output_item.done":
                blocks.end_item(event, batch)
            case "content_part.added":
                blocks.start_part(event, "content", batch)
            case "content_part.done":
                blocks.end_part(event, "content", event["part"], batch)
            case "output_text.done":
                blocks.end_part(event, "content", {"type": "output_text", "text": event["text"]}, batch)
            case "output_text.annotation.added":
                blocks.add_citation(event, batch)
            case "refusal.delta":
                blocks.add_part(event, "content", {"type": "refusal"}, batch)
            case "refusal.done":
                blocks.end_part(event, "content", {"type": "refusal", "refusal": event["refusal"]}, batch)
            case "reasoning_summary_part.added":
                blocks.start_part(event, "summary", batch)
            case "reasoning_summary_part.done":
                blocks.end_part(event, "summary", event["part"], batch)
            case "reasoning_summary_text.delta":
                blocks.add_part(event, "summary", {"type": PART_TYPES["summary"]}, batch)
            case "reasoning_text.delta":
                blocks.add_part(event, "content", {"type": PART_TYPES["content"]}, batch)
            case "reasoning_summary_text.done":
                blocks.end_part(event, "summary", {"type": PART_TYPES["summary"], "text": event["text"]}, batch)
            case "reasoning_text.done":
                blocks.end_part(event, "content", {"type": PART_TYPES["content"], "text": event["text"]}, batch)
            case "function_call_arguments.delta" | "mcp_call_arguments.delta":
                blocks.add_input(event, batch)
            case "custom_tool_call_input.delta" | "code_interpreter_call_code.delta":
                blocks.add_input(event, batch)
            case "function_call_arguments.done" | "mcp_call_arguments.done":
                blocks.end_input(event, event["arguments"], batch)
            case "custom_tool_call_input.done":
                blocks.end_input(event, event["input"], batch)
            case "code_interpreter_call_code.done":
                blocks.end_input(event, event["code"], batch)
            case _:
                self._read_progress(kind, event)

    def _read_progress(self, kind: str, event: JsonObject) -> None:
        """Read an event of a tool that the provider runs, such as `web_search_call.searching`."""
        fields = {name: value for name, value in event.items() if name not in _STRUCTURE}
        _, _, status = kind.rpartition(".")
        self._blocks.add_progress(event, kind if fields else status, fields, self._batch)

    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object."""
        response = json.read(body)
        if not isinstance(response.get("output"), list):
            self._fail(error_of(response) or response, body)
        self._start(response)
        self._end(response, text(response.get("status")) or "completed", body)

    def _start_if_needed(self) -> None:
        if self._id is None:
            self._start({})

    def _start(self, response: JsonObject) -> None:
        """Append `Started`. A repeated start is ignored, whatever its id: one host changes it from event to event."""
        if self._id is not None:
            return
        self._id = text(response.get("id")) or uuid4().hex
        self._add_tools(response)
        self._fields = passed_fields(response)
        self._batch.append(
            Started(
                id=self._id,
                model=text(response.get("model")) or self._request.model,
                origin=self._origin(),
                created=seconds(response.get("created_at")) or int(time.time()),
                fields=self._fields,
            )
        )

    def _add_tools(self, response: JsonObject) -> None:
        """Add the tools that the response repeats: the request may have sent some in `extra`."""
        tools = response.get("tools")
        self._blocks.tools |= custom_tools(tools if isinstance(tools, list) else [])

    def _end(self, response: JsonObject, event: str, payload: bytes) -> None:
        """Read the end of the reply: its reason, and usage. Raises subclasses of `ProviderError` if it is a failure."""
        if self._id is None:
            self._start(response)
        status = text(response.get("status"))
        status = status if status in _OTHER_ENDS else event  # an event of the end is one, whatever status a host repeats in it
        raw = as_object(response.get("usage"))
        error = error_of(response)
        if error is not None or "failed" in (event, status) or status not in ("completed", "incomplete"):
            if raw:
                self._batch.append(usage_of(raw, {}))
            self._fail(error or {"message": f"status {status}"}, payload)
        blocks, batch = self._blocks, self._batch
        blocks.read_output(response.get("output") or (), batch)
        blocks.end(batch)
        changed = {name: value for name, value in passed_fields(response).items() if self._fields.get(name) != value}
        if changed:
            batch.append(ExtraFields(None, changed, Place.REPLY))
        if raw:
            tier = service_tier(response.get("service_tier"))
            self._usage = replace(usage_of(raw, blocks.server_tools), service_tier=tier)
        details = as_object(response.get("incomplete_details"))
        word = text(details.get("reason")) or status
        rest = {name: value for name, value in details.items() if name != "reason"}
        self._end_with(Finished(0, self._reason(word, status), word, rest))

    def _reason(self, word: str, status: str) -> FinishReason:
        """Return why the reply ended."""
        if status == "incomplete":
            return _REASONS.get(word, FinishReason.OTHER)
        if self._blocks.has_calls:
            return FinishReason.TOOL_CALLS
        return FinishReason.PAUSE if self._blocks.needs_approval else FinishReason.STOP

    def _fail(self, error: JsonObject, payload: bytes) -> NoReturn:
        """Raise the failure that an error object describes."""
        self.error_body = payload
        code = error.get("code")
        if code == _OVERTIME:
            error = {**error, "type": "timeout"}
        elif code in _REJECTED:
            error = {**error, "type": "invalid_request_error"}
        raise error_of_payload(self._provider, error)
