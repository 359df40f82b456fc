"""The method of the analytics dialect: what it needs, and what it answers."""

from __future__ import annotations

from typing import Any, Final, Literal

from antiphon.domain.principal import Scope
from antiphon.rest.analytics.servicer import Body
from antiphon.rest.shared.dialect import ASKING, Answer, Method, TokenCounts
from antiphon.rest.shared.json import EVENT_STREAM


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


METHODS: Final = {
    "CreateAnalyticsChat": Method(Scope.ADMIN, ASKING, AnalyticsReply, streams=(EVENT_STREAM,), body=Body),
}
