"""Stored conversations and messages as typed messages. Nothing else; the way back is in `convert_request`."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, assert_never

from google.protobuf import struct_pb2

from antiphon import domain
from antiphon.history.base import Conversation, MessageState, StoredMessage
from antiphon.rpc.convert.json_struct import struct_of
from antiphon.rpc.convert.reply import REASONS, time_to_proto, usage_to_proto
from antiphon.rpc.convert.request import ROLES
from antiphon.v1 import chat_pb2, history_pb2, message_pb2

_ROLES: Final = {role: proto for proto, role in ROLES.items()}
_STATES: Final = {
    MessageState.IN_PROGRESS: history_pb2.MESSAGE_STATE_IN_PROGRESS,
    MessageState.COMPLETE: history_pb2.MESSAGE_STATE_COMPLETE,
    MessageState.INCOMPLETE: history_pb2.MESSAGE_STATE_INCOMPLETE,
    MessageState.CANCELLED: history_pb2.MESSAGE_STATE_CANCELLED,
    MessageState.FAILED: history_pb2.MESSAGE_STATE_FAILED,
}
_LEVELS: Final = 24
"""The most levels of JSON that are told; what is deeper is null. Each is three levels of protobuf, and clients read a hundred."""

_DATA_URL: Final = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL)


def conversation_to_proto(conversation: Conversation) -> history_pb2.Conversation:
    """A conversation; its owner is not told, as it is the caller."""
    return history_pb2.Conversation(
        id=conversation.id,
        title=conversation.title,
        pinned=conversation.pinned,
        source=conversation.source,
        create_time=time_to_proto(conversation.created),
        update_time=time_to_proto(conversation.updated),
        message_count=conversation.message_count,
        head_message_id=conversation.head_id or "",
        forked_from=conversation.forked_from or "",
    )


def stored_to_proto(stored: StoredMessage) -> history_pb2.StoredMessage:
    """A message as it is stored."""
    return history_pb2.StoredMessage(
        id=stored.id,
        parent_message_id=stored.parent_id or "",
        message=message_to_proto(stored.message),
        state=_STATES[stored.state],
        create_time=time_to_proto(stored.created),
        model=stored.model,
        provider=stored.provider,
        usage=usage_to_proto(stored.usage) if stored.usage else None,
        finish_reason=REASONS[stored.finish_reason] if stored.finish_reason else chat_pb2.FINISH_REASON_UNSPECIFIED,
        request_id=stored.request_id,
        error_reason=stored.error_reason,
    )


def message_to_proto(message: domain.Message) -> message_pb2.Message:
    """A message: what `convert.messages_from_proto` makes the domain's message of again."""
    return message_pb2.Message(
        role=_ROLES[message.role],
        parts=[_part(part) for part in message.parts],
        name=message.name or "",
        extra=_struct(message.extra),
    )


def _part(part: domain.Part) -> message_pb2.Part:
    match part:
        case domain.Text():
            return message_pb2.Part(text=part.text, extra=_struct(part.extra))
        case domain.Image():
            image = message_pb2.Image(media=_media(part.media), detail=part.detail or "")
            return message_pb2.Part(image=image, extra=_struct(part.extra))
        case domain.Audio():
            return message_pb2.Part(audio=message_pb2.Audio(media=_media(part.media)), extra=_struct(part.extra))
        case domain.Video():
            return message_pb2.Part(video=message_pb2.Video(media=_media(part.media)), extra=_struct(part.extra))
        case domain.File():
            file = message_pb2.File(media=_media(part.media), filename=part.filename or "")
            return message_pb2.Part(file=file, extra=_struct(part.extra))
        case domain.Thinking():
            thinking = message_pb2.Thinking(text=part.text, signature=part.signature or "", redacted=part.redacted or "")
            return message_pb2.Part(thinking=thinking)
        case domain.ToolCall():
            call = message_pb2.ToolCall(id=part.id, name=part.name, arguments=part.arguments, signature=part.signature or "")
            return message_pb2.Part(tool_call=call, extra=_struct(part.extra))
        case domain.ToolResult():
            parts = [_part(inner) for inner in part.parts]
            result = message_pb2.ToolResult(tool_call_id=part.tool_call_id, parts=parts, is_error=part.is_error)
            return message_pb2.Part(tool_result=result)
        case domain.Refusal():
            return message_pb2.Part(refusal=part.text)
        case domain.Other():
            made = message_pb2.Part()
            made.other.update(_shallow(part.fields))
            return made
        case _:
            assert_never(part)


def _struct(fields: domain.JsonObject) -> struct_pb2.Struct | None:
    return struct_of(_shallow(fields))


def _shallow(value: Any, levels: int = _LEVELS) -> Any:
    match value:
        case dict():
            return {name: _shallow(inner, levels - 1) for name, inner in value.items()} if levels else None
        case list():
            return [_shallow(inner, levels - 1) for inner in value] if levels else None
        case _:
            return value


def _media(media: domain.Media) -> message_pb2.Media:
    """Bytes again, of a data URL that is no more than those and their type; any other URL as it is."""
    if media.file_id is not None:
        return message_pb2.Media(file_id=media.file_id)
    url = media.url or ""
    found = _DATA_URL.fullmatch(url)
    if found is not None:
        try:
            data = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            return message_pb2.Media(url=url)
        if base64.b64encode(data).decode() == found[2]:
            return message_pb2.Media(data=data, media_type=found[1])
    return message_pb2.Media(url=url)
