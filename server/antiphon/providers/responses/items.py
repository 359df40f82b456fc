"""The output items of the Responses API: which block each becomes, and how it is written back. No I/O.

https://platform.openai.com/docs/api-reference/responses/object. An item of an unknown type is an `Opaque` block. The rules:

- The parts of a message and of a reasoning item are a block each. Blocks of one item have the same `State.item`.
- `State.fields["item"]` of the first block holds the item's fields that no block holds itself, nulls and empty lists included.
- A call is the client's if the item's type, or a field, says so. All other calls are the provider's, and hold their result.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any, Final

from antiphon.domain.content import (
    Block,
    Citation,
    Compaction,
    Image,
    JsonObject,
    Media,
    Opaque,
    RedactedThinking,
    State,
    Text,
    Thinking,
)
from antiphon.providers.codec.names import NameRule
from antiphon.providers.codec.values import MAX_INDEX, as_object, is_shallow, text

PROTOCOL: Final = "responses"
"""The protocol's name in the origin of a reply."""

NAMES: Final = NameRule(re.compile(r"[a-zA-Z0-9_-]+"), re.compile(r"[^a-zA-Z0-9_-]"), 64)
"""The names of functions: https://platform.openai.com/docs/api-reference/responses/create#responses-create-tools."""

ITEM: Final = "item"
"""The name in `State.fields` of the item's own fields."""

ENCRYPTED: Final = "encrypted_content"
MESSAGE: Final = "message"
REASONING: Final = "reasoning"
FUNCTION_ITEM: Final = "function_call"
CUSTOM_ITEM: Final = "custom_tool_call"
APPROVAL: Final = "mcp_approval_request"
COMPACTION: Final = "compaction"
IMAGE: Final = "image_generation_call"

PARTS: Final[dict[str, tuple[str, ...]]] = {MESSAGE: ("content",), REASONING: ("summary", "content")}
"""The fields of an item that hold its parts, by type of item."""

PART_TYPES: Final = {"summary": "summary_text", "content": "reasoning_text"}
"""The types of the parts of a reasoning item, by field."""

_COMPUTER: Final = "computer_call"
_BATCH: Final = "actions"
"""The field for several actions at once, which newer models write in place of `action`."""

_ACTIONS: Final = {
    "apply_patch_call": "operation",
    _COMPUTER: "action",
    "local_shell_call": "action",
    "shell_call": "action",
    "tool_search_call": "arguments",
}
"""The field that says what the client is to do, by type of call."""

_SERVER_CALLS: Final = frozenset(
    {APPROVAL, "code_interpreter_call", "file_search_call", "mcp_call", "mcp_list_tools", "program", "web_search_call"}
)

_RESULTS: Final = frozenset({"mcp_approval_response", "tool_search_output"})

_CITATION: Final = (("url", "url"), ("file_id", "source_id"), ("start_index", "start"), ("end_index", "end"))
"""Fields of an annotation, and those of `Citation`. The title is named by `_title`."""


class ItemKind(Enum):
    """What an item becomes."""

    PARTS = auto()
    CALL = auto()
    """A function, or a tool that takes plain text."""
    NATIVE_CALL = auto()
    """A call of the client's that only this API has."""
    SERVER_CALL = auto()
    RESULT = auto()
    IMAGE = auto()
    COMPACTION = auto()
    UNKNOWN = auto()


def kind_of(item: JsonObject) -> ItemKind:
    """Return what an item becomes."""
    name = item["type"]
    if name in PARTS:
        return ItemKind.PARTS
    if name in (FUNCTION_ITEM, CUSTOM_ITEM):
        return ItemKind.CALL
    if name in _ACTIONS:
        return ItemKind.SERVER_CALL if _is_run_by_provider(item) else ItemKind.NATIVE_CALL
    if name == IMAGE:
        return ItemKind.IMAGE
    if name == COMPACTION:
        return ItemKind.COMPACTION
    if name in _RESULTS or (name.endswith("_call_output") or name == "program_output"):
        return ItemKind.RESULT
    if name in _SERVER_CALLS or name.endswith("_call"):
        return ItemKind.SERVER_CALL
    return ItemKind.UNKNOWN


def input_field(kind: str) -> str:
    """Return the name of the field with the input of a call, by type of item."""
    if kind == CUSTOM_ITEM:
        return "input"
    return _ACTIONS.get(kind) or ("code" if kind in ("code_interpreter_call", "program") else "arguments")


def action_of(item: JsonObject) -> tuple[str, JsonObject]:
    """Return the name of the field that says what the client is to do, and what a call has as its arguments for it.

    `item` is one that only this API has. A batch of actions is in an object, as a single one is.
    """
    if item["type"] == _COMPUTER and isinstance(item.get(_BATCH), list) and item.get("action") is None:
        return _BATCH, {_BATCH: item[_BATCH]}
    name = input_field(item["type"])
    return name, as_object(item.get(name))


def action_json(kind: str, action: object) -> JsonObject:
    """Return the field for what the client is to do, from the arguments of a call; nothing if they are no object."""
    if not isinstance(action, dict):
        return {}
    return action if kind == _COMPUTER and action.keys() == {_BATCH} else {input_field(kind): action}


def empty_block(kind: str, opaque: str | None) -> Block:
    """Return the block of an item without parts."""
    if kind == MESSAGE:
        return Text("")
    return Thinking("", field=PART_TYPES["summary"]) if opaque is None else RedactedThinking()


def whole_block(kind: ItemKind, raw: JsonObject, index: int) -> Block:
    """Return the block of an item that is read as a whole."""
    if kind is ItemKind.COMPACTION and isinstance(opaque := raw.get(ENCRYPTED), str):
        return Compaction(state=State(opaque, {ITEM: without(raw, ENCRYPTED)}, index))
    if kind is ItemKind.IMAGE and isinstance(data := raw.get("result"), str):
        form = raw.get("output_format")
        url = f"data:image/{form if form in ('jpeg', 'webp') else 'png'};base64,{data}"
        return Image(Media(url), state=State(None, {ITEM: without(raw, "result")}, index))
    return Opaque(state=State(fields=raw, item=index))


def without(fields: JsonObject, *names: str) -> dict[str, Any]:
    """Return the fields without those of the names that have a value: empty lists and nulls stay, as they were sent."""
    return {name: value for name, value in fields.items() if name not in names or value is None or value == []}


def check_depth(value: object) -> None:
    """Raise `ValueError` for a value that is nested too deeply to be passed on."""
    if not is_shallow(value):
        raise ValueError("depth")


def read_citation(annotation: JsonObject) -> Citation:
    """Return an annotation of a text. Files are cited by `source_id` and their name."""
    check_depth(annotation)
    taken: dict[str, Any] = {}
    for theirs, ours in (*_CITATION, (_title(annotation), "title")):
        value = annotation.get(theirs)
        if _is_offset(value) if ours in ("start", "end") else isinstance(value, str) and value:
            taken[ours] = value
    used = {theirs for theirs, ours in (*_CITATION, (_title(annotation), "title")) if ours in taken}
    return Citation(**taken, fields={name: value for name, value in annotation.items() if name not in used})


def citation_json(citation: Citation) -> JsonObject:
    """Return a citation as the annotation that it was."""
    made = dict(citation.fields)
    for theirs, ours in (*_CITATION, (_title(citation.fields), "title")):
        value = getattr(citation, ours)
        if value not in (None, ""):
            made[theirs] = value
    return made


def error_of(response: JsonObject) -> JsonObject | None:
    """Return the error of a response; None if it has none."""
    error = response.get("error")
    return as_object(error) or {"message": text(error) if isinstance(error, str) else ""} if error else None


def _is_run_by_provider(item: JsonObject) -> bool:
    """Return whether the provider runs a call whose type can be the client's as well."""
    if item["type"] == "tool_search_call":
        return item.get("execution") != "client"
    environment = as_object(item.get("environment")).get("type")
    return item["type"] == "shell_call" and environment not in (None, "local")


def _title(annotation: JsonObject) -> str:
    return "title" if annotation.get("type") in (None, "url_citation") else "filename"


def _is_offset(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_INDEX
