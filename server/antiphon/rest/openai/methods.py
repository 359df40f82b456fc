"""The methods of the OpenAI dialect: what each needs, and what it returns."""

from __future__ import annotations

from typing import Any, Final, Literal

from antiphon.domain.principal import Scope
from antiphon.rest.openai.request import ChatCompletionBody
from antiphon.rest.shared.dialect import KEY_STATUSES, RECORD_STATUSES, AnswerSchema, Method, TokenCounts
from antiphon.rest.shared.json import EVENT_STREAM


class ChatCompletionMessage(AnswerSchema):
    """The message of a choice."""

    role: Literal["assistant"]
    content: str | list[dict[str, Any]] | None
    refusal: str | None
    tool_calls: list[dict[str, Any]] = []


class Choice(AnswerSchema):
    """One of the choices of a reply."""

    index: int
    message: ChatCompletionMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatCompletion(AnswerSchema):
    """A whole reply. In a session it has a `session_id`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: TokenCounts | None
    session_id: str = ""


class Model(AnswerSchema):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(AnswerSchema):
    """The models that the caller may use."""

    object: Literal["list"]
    data: list[Model]


METHODS: Final = {
    "CreateChatCompletion": Method(
        Scope.CHAT, (*RECORD_STATUSES, 422), ChatCompletion, streams=(EVENT_STREAM,), body=ChatCompletionBody
    ),
    "ListModels": Method(Scope.CHAT, (*KEY_STATUSES, 422), Models),
    "GetModel": Method(Scope.CHAT, (*KEY_STATUSES, 404, 422), Model),
}
