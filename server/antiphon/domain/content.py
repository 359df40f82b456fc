"""The content of messages: who says what, as an ordered list of blocks.

Every dialect and every provider converts to and from the values of this room, and to nothing else (hub and spoke). They are frozen
and know no wire format. No I/O here, and no import of grpc, an HTTP client or a provider.

Two things stand beside what a block says, and are never mixed. `extra` is the caller's: fields that only one provider's API knows,
which pass through unread; one that stood within an object which the value itself describes, such as the `function` of a tool,
stands in `extra` within an object of that name. `state` is a provider's: it goes back to its origin and to no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

from msgspec import Struct, field

JsonObject: TypeAlias = Mapping[str, Any]

NOTHING: JsonObject = {}


def with_extra(known: Mapping[str, Any], extra: JsonObject) -> dict[str, Any]:
    """Return an object with what `extra` has more. What both have is as it is known; objects that both have are joined likewise."""
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


class Origin(Struct, frozen=True, omit_defaults=True):
    """Who made a reply. An empty field matches any."""

    protocol: str = ""
    provider: str = ""
    model: str = ""
    deployment: str = ""

    def is_from(self, other: Origin) -> bool:
        """Return whether the two have the same protocol and the same provider, as far as both are known."""
        return all(
            not ours or not theirs or ours == theirs
            for ours, theirs in ((self.protocol, other.protocol), (self.provider, other.provider))
        )


class State(Struct, frozen=True, omit_defaults=True):
    """What of a block is its provider's own."""

    opaque: str | None = None
    """A signature, or encrypted or redacted content. It goes back byte for byte."""
    fields: JsonObject = NOTHING
    """The rest of the provider's form, without what the block holds itself."""
    item: int | None = None
    """Blocks with the same number are parts of one item of the provider's."""
    origin: Origin | None = None
    """None: the message's."""


class Citation(Struct, frozen=True, omit_defaults=True):
    """A source of a text. `start` and `end` count characters of it."""

    url: str = ""
    title: str = ""
    text: str = ""
    source_id: str = ""
    start: int | None = None
    end: int | None = None
    fields: JsonObject = NOTHING


class _Block(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind"):
    """What all blocks have. The tags of the kinds are stored: a tag never changes its meaning."""

    extra: JsonObject = NOTHING
    state: State | None = None


class Text(_Block, frozen=True, tag="text"):
    """Text. It may be empty and have a state."""

    text: str
    citations: tuple[Citation, ...] = ()


class Media(Struct, frozen=True):
    """Where the bytes of a picture, recording or document are: exactly one of `url` and `file_id`.

    Bytes that the caller sent are a `data:` URL, so that they cross the gateway without being decoded. Neither is set of what was
    not kept: sound is not stored.
    """

    url: str | None = None
    file_id: str | None = None


class Image(_Block, frozen=True, tag="image"):
    """A picture. `detail` is "low", "high", "auto" or unset."""

    media: Media
    detail: str | None = None


class Audio(_Block, frozen=True, tag="audio"):
    """A recording. A model's own has an `id` by which it can be sent back until `expires`, in Unix seconds."""

    media: Media
    id: str = ""
    transcript: str = ""
    expires: int | None = None


class Video(_Block, frozen=True, tag="video"):
    """A moving picture."""

    media: Media


class Document(_Block, frozen=True, tag="document"):
    """A document."""

    media: Media
    filename: str | None = None
    title: str | None = None


class Thinking(_Block, frozen=True, tag="thinking"):
    """What a model thought. It may be empty and have a signature in `state.opaque`.

    `field` is what its provider calls it, if not `reasoning_content`: `reasoning`, `tool_plan`, `summary_text`, `reasoning_text`.
    """

    text: str
    field: str = ""


class RedactedThinking(_Block, frozen=True, tag="redacted_thinking"):
    """What a model thought, which its provider gives in encrypted form only: `state.opaque`."""


FUNCTION: Final = "function"
CUSTOM: Final = "custom"
FUNCTION_CALL: Final = "function_call"
"""Types of tool calls: a function, a tool that takes plain text, and the one function call of a message that models of 2023 make.
Every other is a provider's own."""


class ToolCall(_Block, frozen=True, tag="tool_call"):
    """A model asks the client for a tool.

    `arguments` is text as the model wrote it: JSON, but of a tool of the type "custom". Of a type of a provider's own it is the
    JSON of its action.
    """

    id: str
    name: str
    arguments: str
    type: str = field(default=FUNCTION, name="tool_type")


class ToolResult(_Block, frozen=True, tag="tool_result"):
    """What a tool answered to the call `tool_call_id`."""

    tool_call_id: str
    blocks: tuple[Block, ...] = field(name="parts")
    is_error: bool = False
    type: str = field(default=FUNCTION, name="tool_type")


class ServerToolCall(_Block, frozen=True, tag="server_tool_call"):
    """A tool that the provider runs itself, such as a web search. `input` is None where it has no such field."""

    id: str
    type: str = field(name="tool_type")
    name: str = ""
    input: str | None = None


class ServerToolResult(_Block, frozen=True, tag="server_tool_result"):
    """What a tool of the provider's answered: the result itself stays in `state.fields`."""

    call_id: str
    type: str = field(name="tool_type")
    is_error: bool = False


class Refusal(_Block, frozen=True, tag="refusal"):
    """The model declines."""

    text: str


class Compaction(_Block, frozen=True, tag="compaction"):
    """A provider's summary of what came before, as text or encrypted in `state.opaque`."""

    text: str | None = field(default=None, name="summary")


class Opaque(_Block, frozen=True, tag="opaque"):
    """A block of a kind that is not known, as its JSON object: a caller's in `fields`, a provider's in `state.fields`."""

    fields: JsonObject = NOTHING

    @property
    def form(self) -> JsonObject:
        """The JSON object, whoever it is from."""
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
    """The content came as a list of parts, where a text alone could have been a string: what is stored is given back as it came."""
    origin: Origin | None = None
    """Who made it. None: a caller, who did not say."""
    fields: JsonObject = NOTHING
    """What the provider's message has beside its blocks; it goes back to the origin alone."""
