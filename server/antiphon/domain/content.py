"""The content of messages: roles, and ordered lists of blocks.

Every dialect and every provider converts to and from these values, never directly to each other (hub and spoke). The values are
frozen and independent of any wire format. No I/O here, and no import of grpc, an HTTP client or a provider.

Blocks carry two kinds of additional data, which are never mixed. `extra` holds the caller's provider-specific fields, which are
passed on unread. If such a field was inside an object that the block itself describes, such as the `function` of a tool, it is in
`extra` inside an object of that name. `state` holds data of a provider, and is sent back to that provider only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

from msgspec import Struct, field

JsonObject: TypeAlias = Mapping[str, Any]

NOTHING: JsonObject = {}


def with_extra(known: Mapping[str, Any], extra: JsonObject) -> dict[str, Any]:
    """Return `known` with the fields of `extra` added.

    If both have a field, that of `known` wins; if both values are objects, they are merged by the same rule.
    """
    joined = dict(known)
    for name, value in extra.items():
        ours = joined.get(name)
        if name not in joined:
            joined[name] = value
        elif isinstance(ours, Mapping) and isinstance(value, Mapping):
            joined[name] = with_extra(ours, value)
    return joined


class Role(StrEnum):
    """The role of a message. The values are those of the OpenAI API."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Origin(Struct, frozen=True, omit_defaults=True):
    """The source of a reply. An empty field matches any value.

    If the provider has several deployments, `provider` and `deployment` are both the name of one: `<provider>/<label>`.
    """

    protocol: str = ""
    provider: str = ""
    model: str = ""
    deployment: str = ""

    @property
    def provider_name(self) -> str:
        """Return the name of the provider in the configuration."""
        return self.provider.partition("/")[0]

    def is_from(self, other: Origin) -> bool:
        """Return whether both have the same protocol and provider. A field that is empty on either side is not compared."""
        if self.protocol and other.protocol and self.protocol != other.protocol:
            return False
        ours, theirs = self.provider_name, other.provider_name
        return not ours or not theirs or ours == theirs

    def is_at(self, other: Origin) -> bool:
        """Return whether both are of one deployment as well: another may belong to another organisation or region."""
        ours, theirs = self.deployment or self.provider, other.deployment or other.provider
        return self.is_from(other) and (not ours or not theirs or ours == theirs)


class State(Struct, frozen=True, omit_defaults=True):
    """Data of a block that only its provider understands."""

    opaque: str | None = None
    """A signature, or encrypted or redacted content. It is sent back byte for byte."""
    fields: JsonObject = NOTHING
    """The provider's other fields of the block: those that the block's own attributes do not hold."""
    item: int | None = None
    """Blocks with the same number belong to one item of the provider."""
    origin: Origin | None = None
    """The provider that the state is from. None: that of the message."""


class Citation(Struct, frozen=True, omit_defaults=True):
    """A source of a text. `start` and `end` are character offsets in the text."""

    url: str = ""
    title: str = ""
    text: str = ""
    source_id: str = ""
    start: int | None = None
    end: int | None = None
    fields: JsonObject = NOTHING


class _Block(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind"):
    """Fields of all blocks. The tags of the kinds are stored in the database, so a tag must never change its meaning."""

    extra: JsonObject = NOTHING
    state: State | None = None


class Text(_Block, frozen=True, tag="text"):
    """Text. It may be empty and still have a state."""

    text: str
    citations: tuple[Citation, ...] = ()


class Media(Struct, frozen=True):
    """The location of the bytes of an image, recording or document: exactly one of `url` and `file_id`.

    Bytes sent by the caller are kept as a `data:` URL, so they cross the gateway without being decoded. Both are None if the bytes
    were not stored: the sound of a recording is not.
    """

    url: str | None = None
    file_id: str | None = None


class Image(_Block, frozen=True, tag="image"):
    """An image. `detail` is "low", "high", "auto" or None."""

    media: Media
    detail: str | None = None


class Audio(_Block, frozen=True, tag="audio"):
    """A recording. One that a model made has an `id`, by which it can be sent back until `expires` (Unix seconds)."""

    media: Media
    id: str = ""
    transcript: str = ""
    expires: int | None = None


class Video(_Block, frozen=True, tag="video"):
    """A video."""

    media: Media


class Document(_Block, frozen=True, tag="document"):
    """A document."""

    media: Media
    filename: str | None = None
    title: str | None = None


class Thinking(_Block, frozen=True, tag="thinking"):
    """A model's reasoning text. It may be empty and have only a signature, in `state.opaque`.

    `field` is the provider's field name if it is not `reasoning_content`: `reasoning`, `tool_plan`, `summary_text` or
    `reasoning_text`.
    """

    text: str
    field: str = ""


class RedactedThinking(_Block, frozen=True, tag="redacted_thinking"):
    """Reasoning that the provider returned only in encrypted form, in `state.opaque`."""


FUNCTION: Final = "function"
CUSTOM: Final = "custom"
FUNCTION_CALL: Final = "function_call"
"""The types of tool calls: a function, a tool that takes plain text, and the single `function_call` of the API of 2023. Any
other type belongs to one provider."""


class ToolCall(_Block, frozen=True, tag="tool_call"):
    """A model's request to the client to run a tool.

    `arguments` is the text that the model wrote: plain text if the type is "custom", otherwise JSON. For a provider's own type it
    is the JSON of that call's action.
    """

    id: str
    name: str
    arguments: str
    type: str = field(default=FUNCTION, name="tool_type")


class ToolResult(_Block, frozen=True, tag="tool_result"):
    """The result of the tool call `tool_call_id`."""

    tool_call_id: str
    blocks: tuple[Block, ...] = field(name="parts")
    is_error: bool = False
    type: str = field(default=FUNCTION, name="tool_type")


class ServerToolCall(_Block, frozen=True, tag="server_tool_call"):
    """A call of a tool that the provider runs itself, such as a web search. `input` is None if the call has no such field."""

    id: str
    type: str = field(name="tool_type")
    name: str = ""
    input: str | None = None


class ServerToolResult(_Block, frozen=True, tag="server_tool_result"):
    """The result of a tool that the provider ran. The content of the result is in `state.fields`."""

    call_id: str
    type: str = field(name="tool_type")
    is_error: bool = False


class Refusal(_Block, frozen=True, tag="refusal"):
    """The text with which a model declines a request."""

    text: str


class Compaction(_Block, frozen=True, tag="compaction"):
    """A provider's summary of the earlier conversation, as text, or encrypted in `state.opaque`."""

    text: str | None = field(default=None, name="summary")


class Opaque(_Block, frozen=True, tag="opaque"):
    """A block of an unknown kind, as its JSON object: in `fields` if a caller sent it, in `state.fields` if a provider did."""

    fields: JsonObject = NOTHING

    @property
    def form(self) -> JsonObject:
        """Return the block's JSON object, from either side."""
        return self.fields or (NOTHING if self.state is None else self.state.fields)


Block: TypeAlias = (
    Text
    | Image
    | Audio
    | Video
    | Document
    | Thinking
    | RedactedThinking
    | ToolCall
    | ToolResult
    | ServerToolCall
    | ServerToolResult
    | Refusal
    | Compaction
    | Opaque
)

THOUGHTS: Final = (Thinking, RedactedThinking)


class Message(Struct, frozen=True, omit_defaults=True):
    """One message of a conversation."""

    role: Role
    blocks: tuple[Block, ...] = field(name="parts")
    name: str | None = None
    extra: JsonObject = NOTHING
    listed: bool = False
    """The content arrived as a list of parts although a string would have done. Stored messages are returned in the form they
    came in."""
    origin: Origin | None = None
    """The provider that made the message. None: the caller sent it without saying who made it."""
    fields: JsonObject = NOTHING
    """The provider's fields of the message beside its blocks. They are sent back to the origin only."""

    def origin_of(self, block: Block) -> Origin | None:
        """Return who made a block of this message; None: the caller sent it without saying who made it."""
        return self.origin if block.state is None else block.state.origin or self.origin
