"""Reads rows that versions before content blocks wrote. Nothing writes them any more.

They have no `v`. Each part becomes one block, with two exceptions. A thought with both a signature and an encrypted form becomes
two blocks. And some fields of replies in the OpenAI format have a block now: tool calls of types other than function, and the
function call of 2023. Fields of a provider, which were stored among the callers' fields, become state and fields of the reply's
origin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from antiphon.domain import content
from antiphon.domain.content import CUSTOM, FUNCTION, FUNCTION_CALL, NOTHING, Block, JsonObject, Media, Message, Origin, Role, State

PROTOCOL: Final = "openai-chat"
"""The only provider protocol of those versions."""


class _Text(Struct, frozen=True, tag="text"):
    text: str
    extra: JsonObject = NOTHING


class _Image(Struct, frozen=True, tag="image"):
    media: Media
    detail: str | None = None
    extra: JsonObject = NOTHING


class _Audio(Struct, frozen=True, tag="audio"):
    media: Media
    extra: JsonObject = NOTHING


class _Video(Struct, frozen=True, tag="video"):
    media: Media
    extra: JsonObject = NOTHING


class _File(Struct, frozen=True, tag="file"):
    media: Media
    filename: str | None = None
    extra: JsonObject = NOTHING


class _Thinking(Struct, frozen=True, tag="thinking"):
    text: str
    signature: str | None = None
    redacted: str | None = None


class _ToolCall(Struct, frozen=True, tag="tool_call"):
    id: str
    name: str
    arguments: str
    signature: str | None = None
    extra: JsonObject = NOTHING


class _ToolResult(Struct, frozen=True, tag="tool_result"):
    tool_call_id: str
    parts: tuple[_Part, ...]
    is_error: bool = False


class _Refusal(Struct, frozen=True, tag="refusal"):
    text: str


class _Other(Struct, frozen=True, tag="other"):
    fields: JsonObject


_Part: TypeAlias = _Text | _Image | _Audio | _Video | _File | _Thinking | _ToolCall | _ToolResult | _Refusal | _Other


class _Message(Struct, frozen=True):
    role: Role
    parts: tuple[_Part, ...]
    name: str | None = None
    extra: JsonObject = NOTHING
    listed: bool = False


_decoder: Final = msgspec.json.Decoder(_Message)


def read(body: str, provider: str, model: str) -> Message:
    """Return the message in `body`, the JSON of a row. `provider` and `model` are the row's, empty if no model wrote the message.

    Raises `msgspec.MsgspecError`.
    """
    old = _decoder.decode(body)
    origin = Origin(PROTOCOL, provider, model, provider) if provider else None
    extra = dict(old.extra)
    blocks = [block for part in old.parts for block in _blocks(part, origin)]
    if old.role is Role.ASSISTANT:
        blocks += _calls(extra, origin)
    elif old.role is Role.USER and extra.get("role") == "function":
        del extra["role"]
        result = content.ToolResult("", tuple(blocks), type=FUNCTION_CALL)
        return Message(Role.TOOL, (result,), old.name, extra, old.listed)
    if origin is not None:
        return Message(old.role, tuple(blocks), old.name, NOTHING, old.listed, origin, extra)
    return Message(old.role, tuple(blocks), old.name, extra, old.listed)


def _blocks(part: _Part, origin: Origin | None) -> Iterator[Block]:  # noqa: C901  # a match over the kinds of part
    """Yield the blocks of one part of a message."""
    match part:
        case _Text():
            yield content.Text(part.text, extra=part.extra)
        case _Image():
            yield content.Image(part.media, part.detail, extra=part.extra)
        case _Audio():
            yield content.Audio(part.media, extra=part.extra)
        case _Video():
            yield content.Video(part.media, extra=part.extra)
        case _File():
            yield content.Document(part.media, part.filename, extra=part.extra)
        case _Thinking():
            state = None if part.signature is None else State(part.signature)
            if part.text or state is not None or part.redacted is None:
                yield content.Thinking(part.text, state=state)
            if part.redacted is not None:
                yield content.RedactedThinking(state=State(part.redacted))
        case _ToolCall():
            yield _call(part.id, part.name, part.arguments, dict(part.extra), part.signature, origin)
        case _ToolResult():
            inner = tuple(block for each in part.parts for block in _blocks(each, origin))
            yield content.ToolResult(part.tool_call_id, inner, part.is_error)
        case _Refusal():
            yield content.Refusal(part.text)
        case _Other():
            yield content.Opaque(part.fields) if origin is None else content.Opaque(state=State(fields=part.fields))


def _call(
    call_id: str, name: str, arguments: str, extra: dict[str, Any], signature: str | None, origin: Origin | None, kind: str = ""
) -> content.ToolCall:
    """Return a tool call. The fields in `extra` are a caller's if `origin` is None, else the provider's."""
    kind = kind or str(extra.pop("type", FUNCTION))
    if origin is None:
        state = None if signature is None else State(signature)
        return content.ToolCall(call_id, name, arguments, kind, extra=extra, state=state)
    match extra:
        case {"extra_content": {"google": {"thought_signature": str(signature)} as google}} if len(google) == 1:
            del extra["extra_content"]
        case _:
            pass
    state = State(signature, extra) if signature is not None or extra else None
    return content.ToolCall(call_id, name, arguments, kind, state=state)


def _calls(extra: dict[str, Any], origin: Origin | None) -> Iterator[Block]:
    """Yield the tool calls stored among the fields of a message, and remove them from `extra`."""
    calls = extra.get("tool_calls")
    if isinstance(calls, list) and calls and all(isinstance(call, dict) for call in calls):
        del extra["tool_calls"]
        for call in calls:
            yield _other_call(dict(call), origin)
    called = extra.get("function_call")
    if isinstance(called, dict) and isinstance(called.get("name"), str) and isinstance(called.get("arguments"), str):
        del extra["function_call"]
        more = {key: value for key, value in called.items() if key not in ("name", "arguments")}
        yield _call("", called["name"], called["arguments"], more, None, origin, FUNCTION_CALL)


def _other_call(call: dict[str, Any], origin: Origin | None) -> content.ToolCall:
    """Return a tool call of any type, from its JSON object in the OpenAI format."""
    call_id, kind = str(call.pop("id", "")), str(call.pop("type", FUNCTION))
    for place, given in (("function", "arguments"), (CUSTOM, "input")):
        body = call.get(place)
        if isinstance(body, dict) and isinstance(body.get("name"), str) and isinstance(body.get(given, ""), str):
            rest = {key: value for key, value in body.items() if key not in ("name", given)}
            del call[place]
            if rest:
                call[place] = rest
            return _call(call_id, body["name"], body.get(given, ""), call, None, origin, kind)
    action = call.pop(kind, None) if isinstance(call.get(kind), dict) else None
    arguments = "" if action is None else msgspec.json.encode(action).decode()
    return _call(call_id, "", arguments, call, None, origin, kind)
