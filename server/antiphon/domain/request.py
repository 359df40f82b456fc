"""What a caller asks of a model."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct
from pydantic import SecretStr

from antiphon.domain.content import NOTHING, JsonObject, Message

MAX_ENTRIES: Final = 10_000
"""The most messages, or tools, of a request: each costs time before anybody else is served."""


class Sampling(Struct, frozen=True):
    """How tokens are chosen; what is None is left to the provider."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    """The older name, which most hosts know: here goes the limit of a dialect that has one, whatever it is called there."""
    max_completion_tokens: int | None = None
    """OpenAI's later name, which its reasoning models insist on; set where the caller used it. Each goes out under its own name."""
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
    """How much a model thinks first."""

    effort: str | None = None


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
