"""Writes how much a Claude model thinks. No I/O.

https://platform.claude.com/docs/en/build-with-claude/extended-thinking, .../adaptive-thinking and .../effort.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from antiphon.domain.content import JsonObject
from antiphon.domain.request import ChatRequest, ToolChoice, ToolChoiceMode
from antiphon.providers.anthropic.capabilities import ModelCapabilities, ThinkingControl, ThinkingOff
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import EFFORT

_NONE: Final = "none"
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
"""Efforts of other APIs, and the API's."""

_LOWER: Final = {"max": "xhigh", "xhigh": "high"}
"""The next lower effort, for models that do not have the highest ones."""

_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_000, "max": 32_000}
"""Tokens of thinking by effort, for models that are told a number."""

_LOWEST_BUDGET: Final = 1024

_BUDGET: Final = "thinking.budget_tokens"
_THINKING: Final = "thinking"
_CONFIG: Final = "output_config"


class ThinkingFields(Struct, frozen=True):
    """What a model is told about thinking; None is not sent."""

    effort: str | None = None
    """The effort in the configuration of the output."""
    thinking: JsonObject | None = None


_NOTHING: Final = ThinkingFields()


def add_thinking(
    body: dict[str, Any], request: ChatRequest, model: ModelCapabilities, parameters: Parameters, *, is_possible: bool
) -> None:
    """Add how much the model thinks. `is_possible`: the messages allow a budget.

    The caller's own fields, in `extra`, count instead.
    """
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None:
        return
    if _THINKING in request.extra:
        parameters.dropped(EFFORT.path, "the request has the API's own parameter for it")
        return
    told = thinking_fields(
        effort,
        model,
        int(body["max_tokens"]),
        parameters,
        config=_CONFIG,
        is_forced=_is_forced(request.tool_choice),
        is_possible=is_possible,
    )
    if told.effort is not None:
        body[_CONFIG] = {"effort": told.effort}
    if told.thinking is not None:
        body[_THINKING] = told.thinking


def thinking_fields(
    effort: str,
    model: ModelCapabilities,
    limit: int,
    parameters: Parameters,
    *,
    config: str,
    is_forced: bool,
    is_possible: bool,
) -> ThinkingFields:
    """Return the fields for an effort. `limit` is that of the output, `config` the name of its configuration in the API.

    `is_forced`: a tool call is demanded, which excludes a budget and is more than a hint. `is_possible`: the messages allow one.
    """
    if effort == _NONE:
        return _no_thinking(model, parameters, config)
    if effort not in _EFFORTS:
        parameters.dropped(EFFORT.path, "the API does not know this effort")
    elif model.thinking is ThinkingControl.NONE and not model.efforts:
        parameters.dropped(EFFORT.path, "the model cannot think")
    elif model.thinking is ThinkingControl.BUDGET and not model.efforts:
        return ThinkingFields(thinking=_budget_alone(effort, limit, parameters, is_forced=is_forced, is_possible=is_possible))
    else:
        wanted = _EFFORTS[effort]
        while wanted not in model.efforts:
            wanted = _LOWER[wanted]
        if wanted == effort or parameters.mapped(EFFORT.path, f"{config}.effort", "the model has fewer degrees of effort"):
            if model.thinking is ThinkingControl.ADAPTIVE:
                return ThinkingFields(wanted, {"type": "adaptive", "display": "summarized"})
            return ThinkingFields(wanted, _budget(effort, limit) if is_possible and not is_forced else None)
    return _NOTHING


def _budget_alone(effort: str, limit: int, parameters: Parameters, *, is_forced: bool, is_possible: bool) -> JsonObject | None:
    """Return the budget for a model that has no efforts."""
    budget = _budget(effort, limit)
    if not is_possible:
        parameters.dropped(EFFORT.path, "the last reply has no thinking before what the model is to continue")
    elif is_forced:
        parameters.dropped(EFFORT.path, "the model cannot think if it must call a tool")
    elif budget is None:
        parameters.dropped(EFFORT.path, "the limit of the output leaves no room to think")
    elif parameters.mapped(EFFORT.path, _BUDGET, "the model is told a number of tokens"):
        return budget
    return None


def _budget(effort: str, limit: int) -> JsonObject | None:
    """Return a number of tokens, which is part of the limit: a quarter is left for the answer. None if that leaves too few."""
    budget = min(_BUDGETS[effort], limit * 3 // 4)
    return {"type": "enabled", "budget_tokens": budget} if budget >= _LOWEST_BUDGET else None


def _no_thinking(model: ModelCapabilities, parameters: Parameters, config: str) -> ThinkingFields:
    if model.thinking is not ThinkingControl.ADAPTIVE:
        return _NOTHING  # the others think only if they are told to
    reason = "the model cannot do without thinking"
    match model.off:
        case ThinkingOff.DISABLED:
            return ThinkingFields(thinking={"type": "disabled"})
        case ThinkingOff.BETWEEN_TOOLS:
            if parameters.mapped(EFFORT.path, "thinking.type between_tools", reason):
                return ThinkingFields(thinking={"type": "between_tools"})
        case ThinkingOff.LOW_EFFORT:
            if parameters.mapped(EFFORT.path, f"{config}.effort low", reason):
                return ThinkingFields("low")
    return _NOTHING


def _is_forced(choice: ToolChoice | None) -> bool:
    if choice is None:
        return False
    if choice.native is not None:
        return choice.native.get("type") in ("any", "tool")
    return choice.mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.TOOL)
