"""A provider without a model, which repeats the user's text. It is deterministic and makes no connection.

It lets a new installation answer, and gives tests and demonstrations predictable replies, including streams, several choices, tool
calls and JSON.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final
from uuid import uuid4

import orjson

from antiphon.config import ProviderConfig
from antiphon.domain.content import Block, JsonObject, Origin, Role, Text, ToolCall
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    Event,
    Finished,
    FinishReason,
    InputDelta,
    Started,
    TextDelta,
    Usage,
)
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, NativeFormat, Tool, ToolChoiceMode
from antiphon.domain.warnings import Warnings, ignore

_WORDS: Final = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+")
"""A word with the white space before it. The matches concatenated are the whole text."""

_PROTOCOL: Final = "echo"

_WORDS_AT_ONCE: Final = 1000
"""Words that are read or written without a break. Other calls get their turn after them."""

_DEEPEST: Final = 32
"""Levels of a schema that are followed, because a recursive schema has no end."""


class EchoProvider:
    """Replies with "You said: " and the text of the last user message."""

    def __init__(self, name: str, config: ProviderConfig, *_: object) -> None:
        """Others need a key and a transport as well."""
        self.name = name
        self._delay = config.token_delay

    async def probe(self) -> int | None:
        """Return None (see `Provider.probe`): there is no upstream."""
        return None

    async def list_models(self) -> None:
        """Return None (see `Provider.list_models`): there is no upstream."""
        return

    async def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        """Yield the reply (see `Provider.stream`): one batch per word.

        A request that does not stream gets one per `_WORDS_AT_ONCE` words.
        """
        text = _last_user_text(request)
        words = await _split(text)
        tool = _chosen_tool(request)
        reason = FinishReason.STOP if tool is None else FinishReason.TOOL_CALLS
        reply = _reply(request, text) if tool is None else orjson.dumps(example(tool.parameters or {}, text)).decode()
        pieces = await _split(reply)
        limit = request.sampling.max_completion_tokens or request.sampling.max_tokens
        if limit is not None and limit < len(pieces):
            pieces = pieces[:limit]
            reason = FinishReason.LENGTH

        choices = range(request.sampling.choices or 1)
        origin = Origin(_PROTOCOL, self.name, request.model, self.name)
        batch: Batch = [Started(f"chatcmpl-{uuid4().hex}", request.model, origin, created=int(time.time()))]
        batch += [BlockStarted(choice, choice, _block(tool)) for choice in choices]
        for number, piece in enumerate(pieces, 1):
            if request.stream or number % _WORDS_AT_ONCE == 0:
                yield batch
                batch = []
                await asyncio.sleep(self._delay if request.stream else 0)
            batch += [_delta(choice, piece, is_tool=tool is not None) for choice in choices]
        if request.stream:
            yield batch
            batch = []
        batch += map(BlockFinished, choices)
        completion = len(pieces) * len(choices)
        batch.append(Usage(len(words), completion, len(words) + completion))
        batch += [Finished(choice, reason, reason.value) for choice in choices]
        yield batch

    @property
    def buffered(self) -> int:
        """Return 0 (see `Provider.buffered`): nothing is received."""
        return 0

    async def close(self) -> None:
        """Do nothing: there is no connection."""


def example(schema: JsonObject, text: str) -> Any:
    """Return the smallest value that satisfies the common keywords of a JSON schema; its strings are `text`.

    `$ref` within the schema is followed. Patterns, formats and minimal lengths are ignored.
    """
    return _example(schema, text, schema, 0)


def _example(schema: object, text: str, root: JsonObject, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return {} if depth == 0 else None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if isinstance(schema.get("$ref"), str):
        return _example(_resolve(root, schema["$ref"]), text, root, depth + 1)
    for combined in ("anyOf", "oneOf", "allOf"):
        if schema.get(combined):
            return _example(schema[combined][0], text, root, depth + 1)
    return _example_of_type(schema, text, root, depth)


def _example_of_type(schema: JsonObject, text: str, root: JsonObject, depth: int) -> Any:
    """Return the smallest value of the schema's `type`."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    match kind:
        case "string":
            return text
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
        case "array":
            return [_example(schema.get("items", {}), text, root, depth + 1)] * int(schema.get("minItems", 0))
        case _:
            properties = schema.get("properties", {})
            required = schema.get("required", ())
            return {name: _example(properties.get(name, {}), text, root, depth + 1) for name in required}


def _resolve(root: JsonObject, reference: str) -> object:
    """Return the part of the schema that a `$ref` such as "#/$defs/item" names; None if there is none."""
    found: object = root
    for step in reference.removeprefix("#").split("/")[1:]:
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _reply(request: ChatRequest, text: str) -> str:
    """Return the reply: text, or JSON if the request asks for it."""
    match request.response_format:
        case None | NativeFormat():
            return f"You said: {text}"
        case JsonSchemaFormat() as response_format:
            return orjson.dumps(example(response_format.schema, text)).decode()
        case _:
            return orjson.dumps({"echo": text}).decode()


def _last_user_text(request: ChatRequest) -> str:
    for message in reversed(request.messages):
        if message.role is Role.USER:
            return "".join(block.text for block in message.blocks if isinstance(block, Text))
    return ""


def _chosen_tool(request: ChatRequest) -> Tool | None:
    """Return the tool that the request requires; None if it requires none. This provider never calls a tool on its own."""
    tools = [tool for tool in request.tools if isinstance(tool, Tool)]
    choice = request.tool_choice
    if choice is None or not tools:
        return None
    if choice.mode is ToolChoiceMode.TOOL:
        return next((tool for tool in tools if tool.name == choice.name), tools[0])
    return tools[0] if choice.mode is ToolChoiceMode.REQUIRED else None


async def _split(text: str) -> list[str]:
    """Return the words of a text, each with the white space before it."""
    words = []
    for match in _WORDS.finditer(text):
        words.append(match.group())
        if len(words) % _WORDS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return words


def _block(tool: Tool | None) -> Block:
    return Text("") if tool is None else ToolCall(f"call_{uuid4().hex[:24]}", tool.name, "")


def _delta(block: int, piece: str, *, is_tool: bool) -> Event:
    return InputDelta(block, piece) if is_tool else TextDelta(block, piece)
