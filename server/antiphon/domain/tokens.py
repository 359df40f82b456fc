"""Estimates the tokens of a call whose provider does not report them. No I/O.

One rule serves prompts and replies. Every text counts a quarter of a token per character: content, reasoning, refusals, tool calls,
tool results, descriptions, schemas, and provider-specific fields (as JSON). Each message and each tool adds a few tokens. Images,
recordings, videos and documents count a fixed number each; the characters of their base64 are never counted as text.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never

import msgspec

from antiphon.domain.content import (
    Audio,
    Block,
    Compaction,
    Document,
    Image,
    Media,
    Opaque,
    RedactedThinking,
    Refusal,
    ServerToolCall,
    ServerToolResult,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.request import ChatRequest, JsonObjectFormat, JsonSchemaFormat, NativeFormat, NativeTool, ResponseFormat, Tool

_CHARACTERS_A_TOKEN: Final = 4
"""Characters per token: the rule of thumb that providers give for English text."""

_TOKENS_A_MESSAGE: Final = 4
"""Tokens for the role and separators of a message, and likewise of a tool."""

_LOW_IMAGE: Final = 85
_IMAGE: Final = 765
"""Tokens of an image of low detail, and of one of 1024 x 1024 pixels in high detail, as stated by OpenAI (85, and 170 for each
of four tiles). Gemini counts 258 per tile, Claude up to 1,600 per image."""

AUDIO_TOKENS: Final = 32 * 30
_VIDEO: Final = 263 * 30
"""Tokens of a recording and of a video of half a minute, at the rates per second that Gemini states."""

_PAGE: Final = 2000
_PAGE_BASE64: Final = 65_536
"""Tokens of a page of a PDF (Claude's documentation says 1,500 to 3,000), and the base64 characters counted as one page: 48 KiB
of data."""

_FLAT: Final[Mapping[str, int]] = {
    "image_url": _IMAGE,
    "input_audio": AUDIO_TOKENS,
    "audio_url": AUDIO_TOKENS,
    "video_url": _VIDEO,
}
"""Tokens by `type` of content parts that the domain has no block for."""

_BASE64: Final = f"{string.ascii_letters}{string.digits}+/=".encode()
_LONG_BASE64: Final = 1000
"""Characters of the shortest run that counts as base64. No text has so many letters without a break."""
_STRETCH: Final = _LONG_BASE64 // 2


def prompt_tokens(request: ChatRequest) -> int:
    """Return an estimate of a request's tokens: messages, tools, response format, and provider-specific fields."""
    tokens = 0
    for message in request.messages:
        tokens += _TOKENS_A_MESSAGE + _blocks(message.blocks)
        if message.name:
            tokens += text_tokens(len(message.name))
        if message.extra:
            tokens += _json(message.extra)
        if message.fields:
            tokens += _json(message.fields)
    for tool in request.tools:
        tokens += _tool(tool)
    if request.response_format is not None:
        tokens += _format(request.response_format)
    if request.extra:
        tokens += _json(request.extra)  # such as `functions`, the tools of 2023
    return tokens


def _blocks(blocks: Iterable[Block]) -> int:  # noqa: C901  # a match over the kinds of block
    """Return the tokens of blocks: by the characters of all their texts together, plus the fixed numbers."""
    characters = tokens = 0
    for block in blocks:
        tokens += _json(block.extra) if block.extra else 0
        match block:
            case Text() | Refusal() | Thinking():
                characters += len(block.text)
            case ToolCall():
                characters += len(block.name) + len(block.arguments)
                tokens += _json(block.state.fields) if block.state is not None else 0
            case ServerToolCall():
                characters += len(block.name) + len(block.input or "")
            case ToolResult():
                tokens += _blocks(block.blocks)
            case RedactedThinking():
                characters += len(block.state.opaque or "") if block.state is not None else 0
            case Compaction():
                characters += len(block.text or "")
            case Image():
                tokens += _LOW_IMAGE if block.detail == "low" else _IMAGE
            case Audio():
                characters += len(block.transcript)
                tokens += AUDIO_TOKENS if block.media.url or block.media.file_id or block.id else 0
            case Video():
                tokens += _VIDEO
            case Document():
                characters += len(block.filename or "")
                tokens += _document(block.media)
            case Opaque():
                kind = block.form.get("type")
                flat = _FLAT.get(kind) if isinstance(kind, str) else None
                tokens += _json(block.form) if flat is None else flat + _json(block.form, 0)
            case ServerToolResult():
                tokens += _json(block.state.fields) if block.state is not None else 0
            case _:
                assert_never(block)
    return tokens - (-characters // _CHARACTERS_A_TOKEN)  # as `text_tokens`, without a call for each message


def _document(media: Media) -> int:
    """Return the tokens of a document: by its characters if the media type is text, else by its pages, at least one."""
    head, comma, data = (media.url or "").partition(",")
    if not comma or not head.startswith("data:"):
        return _PAGE
    if head.startswith("data:text/"):
        return text_tokens(len(data) * 3 // 4 if head.endswith(";base64") else len(data))
    return _PAGE * max(1, -(-len(data) // _PAGE_BASE64))


def _tool(tool: Tool | NativeTool) -> int:
    if isinstance(tool, NativeTool):
        return _TOKENS_A_MESSAGE + _json(tool.fields)
    named = text_tokens(len(tool.name) + len(tool.description or ""))
    return _TOKENS_A_MESSAGE + named + _json(tool.parameters) + _json(tool.extra)


def _format(form: ResponseFormat) -> int:
    match form:
        case JsonObjectFormat():
            return 0
        case JsonSchemaFormat():
            return text_tokens(len(form.name) + len(form.description or "")) + _json(form.schema) + _json(form.extra)
        case NativeFormat():
            return _json(form.fields)
        case _:
            assert_never(form)


def _json(fields: Mapping[str, Any] | None, data: int = _PAGE) -> int:
    """Return the tokens of a JSON object. Each long run of base64 in it counts `data` tokens."""
    if not fields:
        return 0
    encoded = msgspec.json.encode(fields)
    found, size = _long_base64(encoded) if len(encoded) >= _LONG_BASE64 else (0, 0)
    return text_tokens(len(encoded.decode()) - size) + data * found


def _long_base64(data: bytes) -> tuple[int, int]:
    """Return the number of base64 runs of at least `_LONG_BASE64` characters, and their total length in characters.

    A regular expression takes up to two seconds for 32 MiB, and blocks all other calls meanwhile; this takes 30 ms. It looks at the
    text in stretches of half the minimal length, because every long run contains at least one of them completely.
    """
    found = size = at = 0
    while at + _STRETCH <= len(data):
        if data[at : at + _STRETCH].translate(None, _BASE64):
            at += _STRETCH
            continue
        before = data[max(0, at - _STRETCH) : at]
        begin = at - len(before) + len(before.rstrip(_BASE64))
        while not data[at : at + _STRETCH].translate(None, _BASE64) and at < len(data):
            at += _STRETCH
        last = data[at : at + _STRETCH]
        at = min(at, len(data)) + len(last) - len(last.lstrip(_BASE64))
        if at - begin >= _LONG_BASE64:
            found += 1
            size += at - begin
    return found, size


def json_characters(value: Any) -> int:
    """Return the number of characters of the texts in a JSON value of a reply.

    Field names are not counted, because they are repeated in every delta. A long run of base64 counts as much as a page.
    """
    match value:
        case str():
            if len(value) < _LONG_BASE64:
                return len(value)
            found, size = _long_base64(value.encode("utf-8", "replace"))
            return len(value) - size + found * _PAGE * _CHARACTERS_A_TOKEN
        case Mapping():
            return sum(map(json_characters, value.values()))
        case list() | tuple():
            return sum(map(json_characters, value))
        case _:
            return 0


def text_tokens(characters: int) -> int:
    """Return an estimate of the tokens of a text of `characters` characters, rounded up."""
    return -(-characters // _CHARACTERS_A_TOKEN)
