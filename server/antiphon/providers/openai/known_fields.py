"""Leaves out the fields of callers that the chat-completions API does not document, for hosts that refuse them. No I/O."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from antiphon.domain.content import Block, JsonObject, Message, ToolResult

_MESSAGE_FIELDS: Final = frozenset(
    {
        "role",
        "refusal",
        "audio",
        "function_call",
        "tool_calls",
        "tool_call_id",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "extra_content",
    }
)
"""The `extra` fields of a message that are sent under `known_fields`: the API's, and those in which hosts expect reasoning back."""

_PART_FIELDS: Final = frozenset({"type", "cache_control", "extra_content"})
"""The same for a part or a tool call; `cache_control` tells hosts which prefix to cache."""


def without_unknown(message: Message) -> Message:
    """Return the message without the caller's fields that the API does not document."""
    return replace(
        message, blocks=tuple(map(_block_without_unknown, message.blocks)), extra=_filtered(_MESSAGE_FIELDS, message.extra)
    )


def _block_without_unknown(block: Block) -> Block:
    match block:
        case ToolResult():
            return replace(block, blocks=tuple(map(_block_without_unknown, block.blocks)))
        case _ if block.extra:
            return replace(block, extra=_filtered(_PART_FIELDS, block.extra))
        case _:
            return block


def _filtered(names: frozenset[str], extra: JsonObject) -> JsonObject:
    return {name: value for name, value in extra.items() if name in names} if extra else extra
