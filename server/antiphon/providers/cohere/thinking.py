"""Writes how much a model of Cohere thinks. No I/O.

https://docs.cohere.com/docs/reasoning: a model that can think does so unless it is told not to. There are no efforts, but a most of
tokens, which is part of the limit of the output.
"""

from __future__ import annotations

from typing import Final

from antiphon.domain.content import JsonObject
from antiphon.domain.request import ChatRequest
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import EFFORT

_NONE: Final = "none"
_REASONING: Final = "reasoning"
"""The part of a name that models have which think."""

_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192}
"""Tokens of thinking by effort. Higher efforts have no limit of their own."""

_UNLIMITED: Final = ("high", "xhigh", "max")
_OWN: Final = "thinking"


def thinking(request: ChatRequest, limit: int | None, parameters: Parameters) -> JsonObject | None:
    """Return the field for an effort, of which `limit` is that of the output; None if nothing is to be sent."""
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None:
        return None
    if effort == _NONE:
        return {"type": "disabled"}
    if _OWN in request.extra:
        parameters.dropped(EFFORT.path, "the request has the API's own parameter for it")
    elif _REASONING not in request.model or effort not in (*_BUDGETS, *_UNLIMITED):
        parameters.dropped(EFFORT.path, "the API has no degrees of effort; models that think do so by themselves")
    elif effort in _UNLIMITED:
        return {"type": "enabled"}
    elif parameters.mapped(EFFORT.path, "thinking.token_budget", "the model is told a number of tokens"):
        budget = _BUDGETS[effort] if limit is None else min(_BUDGETS[effort], max(1, limit * 3 // 4))
        return {"type": "enabled", "token_budget": budget}
    return None
