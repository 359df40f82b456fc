"""The methods of the engine dialect: what each needs, and what it answers."""

from __future__ import annotations

from typing import Any, Final, Literal

from antiphon.domain.principal import Scope
from antiphon.rest.engine.request import Body
from antiphon.rest.shared.dialect import ASKING, KEYED, OPEN, Answer, Method


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


METHODS: Final = {
    "CreateEngineChat": Method(Scope.ENGINE, (*ASKING, 422), EngineReply, streams=("text/plain",), body=Body, key_in_body=True),
    "ListEngineProviders": Method(Scope.ENGINE, (*KEYED, 422), list[str]),
    "ListEngineModels": Method(Scope.ENGINE, (*KEYED, 404, 422), dict[str, EngineProvider] | EngineProvider),
    "ListEngineParameters": Method(Scope.ENGINE, (*KEYED, 404, 422), list[EngineParameter]),
    "GetHealth": Method(None, OPEN, Health),
}
