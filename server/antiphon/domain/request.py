"""A chat request, independent of any dialect and provider."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct
from pydantic import SecretStr

from antiphon.domain.content import NOTHING, JsonObject, Message

MAX_ENTRIES: Final = 10_000
"""The most messages, and the most tools, of a request: reading each one delays all other calls."""


class Sampling(Struct, frozen=True):
    """How tokens are sampled. None leaves the choice to the provider."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    """The older name, which most hosts accept. The limit of any other dialect is put here, whatever its name there."""
    max_completion_tokens: int | None = None
    """OpenAI's newer name, which its reasoning models require; set if the caller used it. Each field is sent under its own name."""
    stop: tuple[str, ...] | str | None = None
    """One stop text, or several."""
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
    """A provider-specific tool, as its JSON object."""

    fields: JsonObject


class ToolChoiceMode(StrEnum):
    """Whether the model must call a tool. The values are those of the OpenAI API."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    TOOL = "tool"


class ToolChoice(Struct, frozen=True):
    """Whether the model must call a tool, and with the mode TOOL, which one (`name`).

    `native` replaces both: a provider-specific choice, or one with additional fields, as its JSON object.
    """

    mode: ToolChoiceMode
    name: str | None = None
    native: JsonObject | None = None


class JsonObjectFormat(Struct, frozen=True):
    """The reply must be a JSON object."""


class JsonSchemaFormat(Struct, frozen=True):
    """The reply must be JSON that follows `schema`."""

    name: str
    schema: JsonObject
    description: str | None = None
    strict: bool | None = None
    extra: JsonObject = NOTHING


class NativeFormat(Struct, frozen=True):
    """A provider-specific response format, as its JSON object."""

    fields: JsonObject


ResponseFormat: TypeAlias = JsonObjectFormat | JsonSchemaFormat | NativeFormat


class Reasoning(Struct, frozen=True):
    """How much a model reasons before it answers."""

    effort: str | None = None


class AudioOutput(Struct, frozen=True):
    """The voice and the file format of an audio reply."""

    voice: str
    format: str


class ChatRequest(Struct, frozen=True):
    """A request to a model. An empty `model` means the configured default; `stream` asks the provider to stream its reply.

    `provider`, if set, is the only one that may answer, even if others have the model. `api_key` is the caller's own key for it,
    used instead of the gateway's.
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
    """The number of leading messages that the operator wrote; guards skip them. All others are the caller's."""
    known_fields: bool = False
    """Send only those `extra` fields of messages that the provider's API documents, because the caller's dialect is another API
    with fields of its own."""
