"""What the REST paths answer, as models: for the OpenAPI document, and for those who test answers against it.

Nothing is written through them, as they would cost time with every call; the dialects' modules write, and tests hold both together.
A field without a default is always there. Objects may hold more than is named: what only a provider knows is handed on.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """A JSON object."""

    model_config = ConfigDict(extra="allow")


class TokenCounts(Answer):
    """What a call used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


# OpenAI.


class Said(Answer):
    """What the model said."""

    role: Literal["assistant"]
    content: str | list[dict[str, Any]] | None
    refusal: str | None
    tool_calls: list[dict[str, Any]] = []


class Choice(Answer):
    """One of the replies that were asked for."""

    index: int
    message: Said
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatCompletion(Answer):
    """A whole reply. `session_id` is there in a session."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: TokenCounts | None
    session_id: str = ""


class Model(Answer):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(Answer):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class FieldAtFault(Answer):
    """What is wrong with a field: where it stands, from the body or the query on, why, and that in a word."""

    loc: list[str | int]
    msg: str
    type: str


class FieldsAtFault(Answer):
    """What is wrong with a request."""

    detail: list[FieldAtFault]


class Detail(Answer):
    """What went wrong."""

    detail: str


class ErrorObject(Answer):
    """An error as the SDKs of the OpenAI API read it."""

    message: str
    type: str
    param: str | None
    code: str | None


class DetailAndError(Answer):
    """What went wrong, in both forms."""

    detail: str
    error: ErrorObject


class FieldsAtFaultAndError(Answer):
    """What is wrong with a request, in both forms."""

    detail: list[FieldAtFault]
    error: ErrorObject


# Chats.


class Chat(Answer):
    """A chat without its messages. Times are RFC 3339."""

    chatId: str
    title: str
    pinned: bool
    source: str
    createdAt: str
    updatedAt: str
    messageCount: int
    forkedFrom: str | None


class Chats(Answer):
    """A page of chats."""

    chats: list[Chat]
    nextPageToken: str | None


class ChatMessage(Answer):
    """A message as it was sent, and where and when it is."""

    messageId: str
    role: str
    content: str | list[dict[str, Any]] | None
    createdAt: str
    status: Literal["complete", "in_progress", "incomplete", "cancelled", "failed"]
    model: str | None


class ChatBranch(Answer):
    """Messages that are not on the chat's path, oldest first, and the message after which they leave it, or another branch."""

    messageId: str | None
    messages: list[ChatMessage]


class WholeChat(Chat):
    """A chat with its messages, oldest first, and with its branches, the newest first."""

    messages: list[ChatMessage]
    branches: list[ChatBranch]
    nextBranchToken: str | None


class DeletedChat(Answer):
    """That a chat is gone."""

    chatId: str
    deleted: Literal[True]


class Response(Answer):
    """The reply as a message."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[dict[str, Any]] = []


class GeneratedResult(Answer):
    """A reply, as a message and as text."""

    response: Response
    message: str
    persona: str


class GeneratedMetadata(Answer):
    """What a reply took, in milliseconds and tokens."""

    timeTaken: int
    model: str
    usage: TokenCounts | None


class Generated(Answer):
    """A reply that is kept."""

    result: GeneratedResult
    chatId: str
    title: str
    researchMode: Literal[False]
    stream: Literal[False]
    messageId: str
    metadata: GeneratedMetadata


class PassingResult(Answer):
    """A reply as text."""

    message: str
    persona: str


class Milliseconds(Answer):
    """What a reply took."""

    timeTaken: int


class PassingReply(Answer):
    """A reply that is not kept."""

    result: PassingResult
    metadata: Milliseconds


class Message(Answer):
    """What went wrong."""

    message: str


# Analytics.


class AnalyticsMessage(Answer):
    """What the model said."""

    role: Literal["assistant"]
    content: str | list[dict[str, Any]] | None
    tool_calls: list[dict[str, Any]] = []


class AnalyticsData(Answer):
    """The reply, and what it used."""

    message: AnalyticsMessage
    usage: TokenCounts


class AnalyticsReply(Answer):
    """A whole reply."""

    success: Literal[True]
    data: AnalyticsData


class AnalyticsDetail(Answer):
    """What is wrong with a field."""

    field: str
    message: str


class AnalyticsError(Answer):
    """What went wrong: the status in words, ours, and the status. `details` is there with 400, `retryAfter` in seconds with 429."""

    error: str
    message: str
    code: int
    details: list[AnalyticsDetail] = []
    retryAfter: int = 0


# Engine.


class EngineMessage(Answer):
    """What the model said."""

    content: str | list[dict[str, Any]] | None
    role: Literal["assistant"]
    function_call: dict[str, Any] | None
    tool_calls: list[dict[str, Any]] | None


class EngineChoice(Answer):
    """One of the replies that were asked for."""

    finish_reason: str
    index: int
    logprobs: dict[str, Any] | None
    message: EngineMessage


class EngineMetrics(Answer):
    """What a call took: tokens, USD, seconds. A cost or a time that is not known is null."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_usd: float | None
    latency_s: float
    time_to_first_token_s: float | None
    inter_token_latency_s: float | None
    tokens_per_second: float | None


class EngineReply(Answer):
    """A whole reply, with what it repeats of its request."""

    id: str
    choices: list[EngineChoice]
    created: int
    model: str
    object: Literal["chat.completion"]
    system_fingerprint: None
    usage: None
    session_id: str | None
    chat_input: str | list[dict[str, Any]] | None
    chat_output: str | list[dict[str, Any]]
    context: list[dict[str, Any]]
    provider: str
    timestamp: float
    parameters: dict[str, Any]
    metrics: EngineMetrics


class EngineProvider(Answer):
    """The models of a provider that can be asked for by name."""

    name: str
    models: list[str]


class EngineParameter(Answer):
    """What a chat's `parameters` may hold."""

    id: str
    name: str
    type: Literal["float", "int"]
    default: float
    min: float
    max: float
    step: float


class Health(Answer):
    """That the gateway is well."""

    status: Literal["healthy"]
    message: str
