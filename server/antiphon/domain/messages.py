"""The domain: what a caller asks of a model, and what happens while it answers.

Every dialect and every provider converts to and from these values, and to nothing else (hub and spoke). They are frozen and
know no wire format. No I/O here, and no import of grpc, an HTTP client or a provider. Requests, events and replies are in one file,
as they share their parts.

`extra` holds what only one provider's API knows: JSON values that pass through unread. A field that stood within an object which
the value itself tells of, such as the `function` of a tool, stands in `extra` within an object of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

from msgspec import Struct
from pydantic import SecretStr

JsonObject: TypeAlias = Mapping[str, Any]

MAX_ENTRIES: Final = 10_000
"""The most messages, or tools, of a request: each costs time before anybody else is served."""

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


class FinishReason(StrEnum):
    """Why a choice ended. The values are the OpenAI API's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    FUNCTION_CALL = "function_call"
    """As TOOL_CALLS, of the one function that a model of 2023 asks for."""
    CONTENT_FILTER = "content_filter"
    OTHER = "other"
    """A reason that only the provider knows; `Finished.provider_reason` has it."""


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


# What to ask of a model.


class Sampling(Struct, frozen=True):
    """How tokens are chosen; what is None is left to the provider."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: tuple[str, ...] | str | None = None
    """One text, or any of several."""
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    choices: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: Mapping[str, float] | None = None


class Tool(Struct, frozen=True):
    """A function that the application can run for the model. `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None
    extra: JsonObject = NOTHING


class NativeTool(Struct, frozen=True):
    """A tool of the provider's own, as its JSON object."""

    fields: JsonObject


class ToolChoiceMode(StrEnum):
    """Whether the model asks for a tool. The values are the OpenAI API's words."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    TOOL = "tool"


class ToolChoice(Struct, frozen=True):
    """Whether the model asks for a tool; `name` with TOOL.

    `native` replaces both: a choice, or one with fields, that only the provider knows.
    """

    mode: ToolChoiceMode
    name: str | None = None
    native: JsonObject | None = None


class JsonObjectFormat(Struct, frozen=True):
    """The reply is any JSON object."""


class JsonSchemaFormat(Struct, frozen=True):
    """The reply is JSON that follows `schema`."""

    name: str
    schema: JsonObject
    description: str | None = None
    strict: bool | None = None
    extra: JsonObject = NOTHING


class NativeFormat(Struct, frozen=True):
    """A form of reply that only the provider knows, as its JSON object."""

    fields: JsonObject


ResponseFormat: TypeAlias = JsonObjectFormat | JsonSchemaFormat | NativeFormat


class Reasoning(Struct, frozen=True):
    """How much a model thinks first. `max_tokens` where the provider takes a number."""

    effort: str | None = None
    max_tokens: int | None = None


class AudioOutput(Struct, frozen=True):
    """How an audio reply sounds."""

    voice: str
    format: str


class ChatRequest(Struct, frozen=True):
    """What to ask of a model. An empty `model` means the configured default; `stream` asks the provider to answer piecemeal.

    With `provider` that one answers, whoever else has the model. `api_key` is the caller's own key for it, not the gateway's.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool
    sampling: Sampling = Sampling()
    tools: tuple[Tool | NativeTool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    modalities: tuple[str, ...] = ()
    audio_output: AudioOutput | None = None
    end_user: str | None = None
    extra: JsonObject = NOTHING
    provider: str = ""
    api_key: SecretStr | None = None
    trusted: int = 0
    """So many of the messages, the first ones, are the operator's own words: no guard reads them. All else is the caller's."""
    known_fields: bool = False
    """Of what is `extra` in messages only what the provider's API knows is sent: the caller's is another, with its own fields."""


# What happens while it answers. `choice` counts the replies from 0.


class Started(Struct, frozen=True):
    """The provider took the request. The first event, once. `created` is in Unix seconds."""

    id: str
    model: str
    provider: str
    created: int
    extra: JsonObject = NOTHING
    conversation_id: str = ""
    """Where the turn is recorded, if it is; `message_id` is the reply's."""
    conversation_title: str = ""
    message_id: str = ""


class TextDelta(Struct, frozen=True):
    """More text; an empty one where the provider said just that, and not nothing.

    `logprobs` are JSON objects as the OpenAI API documents them.
    """

    choice: int
    text: str
    logprobs: tuple[JsonObject, ...] = ()


class ThinkingDelta(Struct, frozen=True):
    """More thought; `signature` once it is whole. `field` is what its provider calls it, if that is not `reasoning_content`."""

    choice: int
    text: str
    signature: str | None = None
    redacted: str | None = None
    field: str = ""


class ToolCallDelta(Struct, frozen=True):
    """More of the tool call `index`: `id` with its first delta, `name` and `arguments` further pieces of text.

    `extra` are fields that only this provider has, where they stand in a call of the OpenAI API, those of `function` included; they
    add up like those of a message.
    """

    choice: int
    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = None
    extra: JsonObject = NOTHING


class RefusalDelta(Struct, frozen=True):
    """More of a refusal."""

    choice: int
    text: str


class AudioDelta(Struct, frozen=True):
    """More sound: `data` is base64. `expires` is in Unix seconds."""

    choice: int
    id: str | None = None
    data: str = ""
    transcript: str = ""
    expires: int | None = None


class ExtraDelta(Struct, frozen=True):
    """Fields that only this provider has: of the message, such as annotations, and of the choice, such as what a filter found.

    How the deltas of a field add up is told in `antiphon.domain.reply`.
    """

    choice: int
    fields: JsonObject
    choice_fields: JsonObject = NOTHING


class DeltaGroup(Struct, frozen=True):
    """The next `count` events, all of one choice, came in one delta of the provider: a dialect that has deltas writes them as one.

    A delta that became a single event has no group. Whoever does not write deltas may drop it.
    """

    choice: int
    count: int


class ReplyExtra(Struct, frozen=True):
    """Fields of the reply as a whole, as those of `Started.extra`, told later: each takes the place of an older one.

    `repeats`: the fields are known already; the provider sends them again with every delta, until the next such event.
    """

    fields: JsonObject
    repeats: bool = False


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens used, as the provider counts them. At most once, before `Finished`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_prompt_tokens: int = 0
    audio_completion_tokens: int = 0
    extra: JsonObject = NOTHING
    estimated: bool = False
    """The provider did not tell: counted here, roughly."""


class Metrics(Struct, frozen=True):
    """What a call took, measured in the chat service. Once, before `Finished`; the chat service adds it. Times are in seconds."""

    latency: float
    """From the request to the end of the reply."""
    time_to_first_token: float | None
    """None where nothing was said."""
    inter_token_latency: float | None
    """The mean time between two chunks; None for fewer than two."""
    chunks: int
    """Deltas that the provider sent."""
    cost_usd: float | None
    """None where the price is not known."""


class Finished(Struct, frozen=True):
    """A choice is whole. Once for each choice, after everything else. `provider_reason` is empty where none was given."""

    choice: int
    reason: FinishReason
    provider_reason: str


Event: TypeAlias = (
    Started
    | TextDelta
    | ThinkingDelta
    | ToolCallDelta
    | RefusalDelta
    | AudioDelta
    | ExtraDelta
    | DeltaGroup
    | ReplyExtra
    | Usage
    | Metrics
    | Finished
)

Batch: TypeAlias = list[Event]
"""Events that arrived together from one read of the provider: what makes a token cheap. Never empty."""
