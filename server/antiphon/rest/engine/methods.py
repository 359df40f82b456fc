"""The methods of the engine dialect: what each needs, and what it returns."""

from __future__ import annotations

from typing import Any, Final, Literal

from antiphon.domain.principal import Scope
from antiphon.rest.engine.request import EngineChatBody
from antiphon.rest.shared.dialect import KEY_STATUSES, MODEL_STATUSES, PUBLIC_STATUSES, AnswerSchema, Method


class EngineMessage(AnswerSchema):
    """The message of a choice."""

    content: str | list[dict[str, Any]] | None
    role: Literal["assistant"]
    function_call: dict[str, Any] | None
    tool_calls: list[dict[str, Any]] | None


class EngineChoice(AnswerSchema):
    """One of the choices of a reply."""

    finish_reason: str
    index: int
    logprobs: dict[str, Any] | None
    message: EngineMessage


class EngineMetrics(AnswerSchema):
    """The metrics of a call: tokens, USD, seconds. An unknown cost or time is null."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_usd: float | None
    latency_s: float
    time_to_first_token_s: float | None
    inter_token_latency_s: float | None
    tokens_per_second: float | None


class EngineReply(AnswerSchema):
    """A whole reply, with the parts of its request that it repeats."""

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


class EngineProvider(AnswerSchema):
    """The models of a provider that are listed by name."""

    name: str
    models: list[str]


class EngineParameter(AnswerSchema):
    """A field that a chat's `parameters` may have."""

    id: str
    name: str
    type: Literal["float", "int"]
    default: float
    min: float
    max: float
    step: float


class Health(AnswerSchema):
    """The confirmation that the gateway accepts calls."""

    status: Literal["healthy"]
    message: str


METHODS: Final = {
    "CreateEngineChat": Method(
        Scope.ENGINE, (*MODEL_STATUSES, 422), EngineReply, streams=("text/plain",), body=EngineChatBody, key_in_body=True
    ),
    "ListEngineProviders": Method(Scope.ENGINE, (*KEY_STATUSES, 422), list[str]),
    "ListEngineModels": Method(Scope.ENGINE, (*KEY_STATUSES, 404, 422), dict[str, EngineProvider] | EngineProvider),
    "ListEngineParameters": Method(Scope.ENGINE, (*KEY_STATUSES, 404, 422), list[EngineParameter]),
    "GetHealth": Method(None, PUBLIC_STATUSES, Health),
}
