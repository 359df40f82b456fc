"""Writes the blocks of an item as the item that they came from, and results of calls that only the Responses API has. No I/O."""

from __future__ import annotations

import hashlib
import mimetypes
from typing import Any, Final

import msgspec

from antiphon.domain.content import (
    Block,
    Compaction,
    Document,
    Image,
    JsonObject,
    Opaque,
    Refusal,
    ServerToolCall,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.providers.responses.items import ENCRYPTED, ITEM, NAMES, PART_TYPES, PARTS, action_json, citation_json, input_field

_CALL_ID_LENGTH: Final = 64
"""The most characters of a call id."""


def item_of(blocks: list[Block]) -> dict[str, Any] | None:
    """Return the item that blocks came from; None if their state does not hold it."""
    first = blocks[0]
    fields: JsonObject = {} if first.state is None else first.state.fields
    if isinstance(first, Opaque) and ITEM not in fields:
        return dict(fields)
    own = fields.get(ITEM)
    if not isinstance(own, dict) or not isinstance(own.get("type"), str):
        return None
    item = dict(own)
    match first:
        case ToolCall(type="function" | "custom" as kind, name=name):
            named = {"call_id": short_call_id(first.id), "name": NAMES.sent(name) if kind == "function" else name}
            return {**item, **named, input_field(item["type"]): first.arguments}
        case ToolCall():
            return {**item, **action_json(item["type"], decoded_json(first.arguments))}
        case ServerToolCall(input=str() as text):
            return {**item, input_field(item["type"]): text}
        case Compaction() if first.state is not None:
            return {**item, ENCRYPTED: first.state.opaque}
        case Image():
            return {**item, "result": (first.media.url or "").rpartition(",")[2]}
        case _ if item["type"] in PARTS:
            return _with_parts(item, blocks)
        case _:
            return item


def _with_parts(item: dict[str, Any], blocks: list[Block]) -> dict[str, Any]:
    """Return a message or a reasoning item with its parts."""
    state = blocks[0].state
    if state is not None and state.opaque is not None:
        item[ENCRYPTED] = state.opaque
    for block in blocks:
        fields = {} if block.state is None else {name: value for name, value in block.state.fields.items() if name != ITEM}
        place = "summary" if isinstance(block, Thinking) and block.field == PART_TYPES["summary"] else "content"
        match block:
            case Text(text=text) if text or "content" not in item:
                annotations = {"annotations": list(map(citation_json, block.citations))} if block.citations else {}
                part = {"type": "output_text", "text": text, **fields, **annotations}
            case Refusal(text=text):
                part = {"type": "refusal", "refusal": text, **fields}
            case Thinking(text=text) if text or place not in item:
                part = {"type": block.field or PART_TYPES["summary"], "text": text, **fields}
            case Opaque():
                part = fields
            case _:
                continue
        item[place] = [*item.get(place, ()), part]
    return item


def native_result(kind: str, call_id: str, block: ToolResult) -> JsonObject:
    """Return the result of a call of a type that only this API has. The text of a result may be JSON of its `output`."""
    written = "".join(one.text for one in block.blocks if isinstance(one, Text))
    decoded = decoded_json(written)
    made: dict[str, Any] = {"type": f"{kind}_output", "call_id": call_id}
    for one in block.blocks:
        if isinstance(one, Opaque):
            return {**made, "output": one.form}
    match kind:
        case "computer_call":
            for image in block.blocks:
                if isinstance(image, Image):
                    made["output"] = {**media_json(image, "image_url"), "type": "computer_screenshot"}
        case "shell_call":
            outcome = {"type": "exit", "exit_code": int(block.is_error)}
            made["output"] = decoded if isinstance(decoded, list) else [{"stdout": written, "stderr": "", "outcome": outcome}]
        case "apply_patch_call":
            made |= {"status": "failed" if block.is_error else "completed", "output": written}
        case "tool_search_call":
            tools = decoded.get("tools") if isinstance(decoded, dict) else decoded
            made |= {"type": "tool_search_output", "execution": "client", "status": "completed"}
            made["tools"] = tools if isinstance(tools, list) else []
        case "local_shell_call":
            made = {"type": made["type"], "id": call_id, "output": written}
        case _:
            made["output"] = written
    return made


def media_json(block: Image, name: str) -> JsonObject:
    """Return the location of an image; `name` is the field of an address."""
    return {"file_id": block.media.file_id} if block.media.url is None else {name: block.media.url}


def file_json(block: Document) -> JsonObject:
    """Return the location of a document. One that is sent as data must have a name."""
    url = block.media.url
    if url is None:
        return {"file_id": block.media.file_id}
    if not url.startswith("data:"):
        return {"file_url": url}
    kind = url.removeprefix("data:").partition(",")[0].partition(";")[0]
    name = block.filename or block.title or f"document{mimetypes.guess_extension(kind) or '.pdf'}"
    return {"filename": name, "file_data": url}


def short_call_id(given: str) -> str:
    """Return the id of a call in the length that the API accepts: a longer one is replaced by the start of its SHA-256."""
    if len(given) <= _CALL_ID_LENGTH:
        return given
    return f"call_{hashlib.sha256(given.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def decoded_json(written: str) -> Any:
    """Return decoded JSON; None if the text is none."""
    try:
        return msgspec.json.decode(written)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None
