"""Leaves out fields of callers that the chat-completions API or a host does not have. No I/O."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from antiphon.domain.content import Block, JsonObject, Message, ToolResult

CACHE_MARK: Final = "cache_control"
"""The field that tells Anthropic, and hosts that follow it, which prefix to cache."""

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

_PART_FIELDS: Final = frozenset({"type", CACHE_MARK, "extra_content"})
"""The same for a part or a tool call."""


def without_cache_marks(message: Message) -> Message:
    """Return the message without marks for a cache, which OpenAI and others refuse; they cache by themselves."""
    if not message.extra and not any(block.extra or isinstance(block, ToolResult) for block in message.blocks):
        return message
    blocks = tuple(map(_block_without_mark, message.blocks))
    return replace(message, blocks=blocks, extra=_without_mark(message.extra))


def _block_without_mark(block: Block) -> Block:
    if isinstance(block, ToolResult):
        block = replace(block, blocks=tuple(map(_block_without_mark, block.blocks)))
    return replace(block, extra=_without_mark(block.extra)) if CACHE_MARK in block.extra else block


def _without_mark(extra: JsonObject) -> JsonObject:
    return {name: value for name, value in extra.items() if name != CACHE_MARK} if CACHE_MARK in extra else extra


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
