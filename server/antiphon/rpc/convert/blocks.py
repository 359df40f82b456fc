"""Converts messages and blocks to typed messages. `convert.request` converts the other way."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, assert_never

import msgspec
from google.protobuf import struct_pb2

from antiphon import domain
from antiphon.rpc.convert.json_struct import struct_of
from antiphon.rpc.convert.request import ROLES
from antiphon.v1 import message_pb2

_ROLES: Final = {role: proto for proto, role in ROLES.items()}

_LEVELS: Final = 24
"""The most levels of JSON in a message; deeper values become null.

A level of JSON takes three levels of protobuf, and clients parse at most 100.
"""

_DATA_URL: Final = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL)


def message_to_proto(message: domain.Message) -> message_pb2.Message:
    """Return a message as a typed message. `request.messages_from_proto` converts it back."""
    return message_pb2.Message(
        role=_ROLES[message.role],
        blocks=map(block_to_proto, message.blocks),
        name=message.name or "",
        extra=_struct(message.extra),
        origin=None if message.origin is None else origin_to_proto(message.origin),
        fields=json_bytes(message.fields),
    )


def origin_to_proto(origin: domain.Origin) -> message_pb2.Origin:
    """Return the origin of a reply as a typed message. `Origin.is_at` finds the typed one and this one to be the same."""
    made = message_pb2.Origin()
    fill_origin(made, origin)
    return made


def fill_origin(made: message_pb2.Origin, origin: domain.Origin) -> None:
    """Set the origin of a reply in a typed message, as `origin_to_proto`."""
    provider, is_deployment, _ = origin.provider.partition("/")
    made.protocol, made.provider, made.model = origin.protocol, provider, origin.model
    made.deployment = origin.deployment or (origin.provider if is_deployment else "")


def state_to_proto(state: domain.State) -> message_pb2.ProviderState:
    """Return the provider's own state of a block as a typed message."""
    return message_pb2.ProviderState(
        opaque=state.opaque or "",
        fields=json_bytes(state.fields),
        item=state.item,
        origin=None if state.origin is None else origin_to_proto(state.origin),
    )


def json_bytes(fields: domain.JsonObject) -> bytes:
    """Return the text of a JSON object, in which integers are exact; empty for an empty object."""
    return msgspec.json.encode(fields) if fields else b""


def block_to_proto(block: domain.Block) -> message_pb2.Block:
    """Return a block as a typed message."""
    made = _kind(block)
    if block.state is not None:
        made.state.CopyFrom(state_to_proto(block.state))
    if (extra := _struct(block.extra)) is not None:
        made.extra.CopyFrom(extra)
    return made


def _kind(block: domain.Block) -> message_pb2.Block:  # noqa: C901  # a match over the kinds of block
    make = message_pb2.Block
    match block:
        case domain.Text():
            return make(text=message_pb2.Text(text=block.text, citations=map(citation_to_proto, block.citations)))
        case domain.Image():
            return make(image=message_pb2.Image(media=_media(block.media), detail=block.detail or ""))
        case domain.Audio():
            audio = message_pb2.Audio(media=_media(block.media), id=block.id, transcript=block.transcript, expires=block.expires)
            return make(audio=audio)
        case domain.Video():
            return make(video=message_pb2.Video(media=_media(block.media)))
        case domain.Document():
            document = message_pb2.Document(media=_media(block.media), filename=block.filename or "", title=block.title or "")
            return make(document=document)
        case domain.Thinking():
            return make(thinking=message_pb2.Thinking(text=block.text, field=block.field))
        case domain.RedactedThinking():
            return make(redacted_thinking=message_pb2.RedactedThinking())
        case domain.ToolCall():
            call = message_pb2.ToolCall(id=block.id, name=block.name, arguments=block.arguments, type=block.type)
            return make(tool_call=call)
        case domain.ToolResult():
            result = message_pb2.ToolResult(
                tool_call_id=block.tool_call_id,
                blocks=map(block_to_proto, block.blocks),
                is_error=block.is_error,
                type=block.type,
            )
            return make(tool_result=result)
        case domain.ServerToolCall():
            tool = message_pb2.ServerToolCall(id=block.id, type=block.type, name=block.name, input=block.input)
            return make(server_tool_call=tool)
        case domain.ServerToolResult():
            answer = message_pb2.ServerToolResult(call_id=block.call_id, type=block.type, is_error=block.is_error)
            return make(server_tool_result=answer)
        case domain.Refusal():
            return make(refusal=message_pb2.Refusal(text=block.text))
        case domain.Compaction():
            return make(compaction=message_pb2.Compaction(text=block.text))
        case domain.Opaque():
            return make(opaque=message_pb2.Opaque(fields=json_bytes(block.fields)))
        case _:
            assert_never(block)


def citation_to_proto(citation: domain.Citation) -> message_pb2.Citation:
    """Return a citation as a typed message."""
    return message_pb2.Citation(
        url=citation.url,
        title=citation.title,
        text=citation.text,
        source_id=citation.source_id,
        start=citation.start,
        end=citation.end,
        fields=json_bytes(citation.fields),
    )


def _struct(fields: domain.JsonObject) -> struct_pb2.Struct | None:
    return struct_of(_shallow(fields)) if fields else None


def _shallow(value: Any, levels: int = _LEVELS) -> Any:
    """Return a JSON value without what is deeper than `levels` levels of objects and lists: those become None."""
    match value:
        case dict():
            return {name: _shallow(inner, levels - 1) for name, inner in value.items()} if levels else None
        case list():
            return [_shallow(inner, levels - 1) for inner in value] if levels else None
        case _:
            return value


def _media(media: domain.Media) -> message_pb2.Media | None:
    """Return where media are, as a typed message.

    A data URL that holds only a type and base64 becomes bytes again; any other URL stays as it is.
    """
    if media.file_id is not None:
        return message_pb2.Media(file_id=media.file_id)
    if media.url is None:
        return None
    found = _DATA_URL.fullmatch(media.url)
    if found is not None:
        try:
            data = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            return message_pb2.Media(url=media.url)
        if base64.b64encode(data).decode() == found[2]:
            return message_pb2.Media(data=data, media_type=found[1])
    return message_pb2.Media(url=media.url)
