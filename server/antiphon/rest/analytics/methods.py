"""The method of the analytics dialect: what it needs, and what it returns."""

from __future__ import annotations

from typing import Any, Final, Literal

from antiphon.domain.principal import Scope
from antiphon.rest.analytics.servicer import AnalyticsChatBody
from antiphon.rest.shared.dialect import MODEL_STATUSES, AnswerSchema, Method, TokenCounts
from antiphon.rest.shared.json import EVENT_STREAM


class AnalyticsMessage(AnswerSchema):
    """The message of a reply."""

    role: Literal["assistant"]
    content: str | list[dict[str, Any]] | None
    tool_calls: list[dict[str, Any]] = []


class AnalyticsData(AnswerSchema):
    """A reply, and the tokens that it used."""

    message: AnalyticsMessage
    usage: TokenCounts


class AnalyticsReply(AnswerSchema):
    """A whole reply, as the response."""

    success: Literal[True]
    data: AnalyticsData


METHODS: Final = {
    "CreateAnalyticsChat": Method(Scope.ADMIN, MODEL_STATUSES, AnalyticsReply, streams=(EVENT_STREAM,), body=AnalyticsChatBody),
}
