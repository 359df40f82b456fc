"""The methods of the OpenAI dialect: what each needs, and what it answers."""

from __future__ import annotations

from typing import Any, Final, Literal

from antiphon.domain.principal import Scope
from antiphon.rest.openai.request import Body
from antiphon.rest.shared.dialect import KEYED, RECORDED, Answer, Method, TokenCounts
from antiphon.rest.shared.json import EVENT_STREAM


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


METHODS: Final = {
    "CreateChatCompletion": Method(Scope.CHAT, (*RECORDED, 422), ChatCompletion, streams=(EVENT_STREAM,), body=Body),
    "ListModels": Method(Scope.CHAT, (*KEYED, 422), Models),
    "GetModel": Method(Scope.CHAT, (*KEYED, 404, 422), Model),
}
