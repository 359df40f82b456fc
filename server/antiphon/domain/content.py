"""The content of messages: who says what, in which parts.

Every dialect and every provider converts to and from the values of this room, and to nothing else (hub and spoke). They are frozen
and know no wire format. No I/O here, and no import of grpc, an HTTP client or a provider.

`extra` holds what only one provider's API knows: JSON values that pass through unread. A field that stood within an object which
the value itself tells of, such as the `function` of a tool, stands in `extra` within an object of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

JsonObject: TypeAlias = Mapping[str, Any]

NOTHING: JsonObject = {}


def with_extra(known: Mapping[str, Any], extra: JsonObject) -> dict[str, Any]:
    """An object with what `extra` has more. What both have is as it is known; objects that both have are joined the same way."""
    joined = dict(known)
    for name, value in extra.items():
        ours = joined.get(name)
        if name not in joined:
            joined[name] = value
        elif isinstance(ours, Mapping) and isinstance(value, Mapping):
            joined[name] = with_extra(ours, value)
    return joined


class Role(StrEnum):
    """Who a message is from. The values are the OpenAI API's words."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


# Parts of a message. Their tags are how history stores them: a tag never changes its meaning.


class Text(Struct, frozen=True, tag="text", omit_defaults=True):
    """Text."""

    text: str
    extra: JsonObject = NOTHING


class Media(Struct, frozen=True):
    """Where the bytes of a picture, recording or document are: exactly one of `url` and `file_id`.

    Bytes that the caller sent are a `data:` URL, so that they cross the gateway without being decoded.
    """

    url: str | None = None
    file_id: str | None = None


class Image(Struct, frozen=True, tag="image", omit_defaults=True):
    """A picture. `detail` is "low", "high", "auto" or unset."""

    media: Media
    detail: str | None = None
    extra: JsonObject = NOTHING


class Audio(Struct, frozen=True, tag="audio", omit_defaults=True):
    """A recording."""

    media: Media
    extra: JsonObject = NOTHING


class Video(Struct, frozen=True, tag="video", omit_defaults=True):
    """A moving picture."""

    media: Media
    extra: JsonObject = NOTHING


class File(Struct, frozen=True, tag="file", omit_defaults=True):
    """A document."""

    media: Media
    filename: str | None = None
    extra: JsonObject = NOTHING


class Thinking(Struct, frozen=True, tag="thinking", omit_defaults=True):
    """What a model thought. `signature` and `redacted` are the provider's, and opaque."""

    text: str
    signature: str | None = None
    redacted: str | None = None


class ToolCall(Struct, frozen=True, tag="tool_call", omit_defaults=True):
    """A model asks for a tool. `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str
    signature: str | None = None
    extra: JsonObject = NOTHING


class ToolResult(Struct, frozen=True, tag="tool_result", omit_defaults=True):
    """What a tool answered to the call `tool_call_id`."""

    tool_call_id: str
    parts: tuple[Part, ...]
    is_error: bool = False


class Refusal(Struct, frozen=True, tag="refusal", omit_defaults=True):
    """The model declines."""

    text: str


class Other(Struct, frozen=True, tag="other", omit_defaults=True):
    """A part of a kind that only its provider knows, as its JSON object."""

    fields: JsonObject


Part: TypeAlias = Text | Image | Audio | Video | File | Thinking | ToolCall | ToolResult | Refusal | Other


class Message(Struct, frozen=True, omit_defaults=True):
    """One message of a conversation."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    extra: JsonObject = NOTHING
    listed: bool = False
    """The content came as a list of parts, where a text alone could have been a string: what is stored is given back as it came."""
