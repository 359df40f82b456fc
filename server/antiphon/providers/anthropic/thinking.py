"""Writes how much a Claude model thinks. No I/O.

https://platform.claude.com/docs/en/build-with-claude/extended-thinking, .../adaptive-thinking and .../effort.
"""

from __future__ import annotations

from typing import Any, Final

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
_EFFORT: Final = "output_config.effort"
_THINKING: Final = "thinking"


def add_thinking(
    body: dict[str, Any], request: ChatRequest, model: ModelCapabilities, parameters: Parameters, *, is_possible: bool
) -> None:
    """Add how much the model thinks. `is_possible`: the messages allow a budget.

    The caller's own fields, in `extra`, count instead. A forced tool call, which excludes a budget, is more than a hint.
    """
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None:
        return
    if _THINKING in request.extra:
        parameters.dropped(EFFORT.path, "the request has the API's own parameter for it")
    elif effort == _NONE:
        _add_no_thinking(body, model, parameters)
    elif effort not in _EFFORTS:
        parameters.dropped(EFFORT.path, "the API does not know this effort")
    elif model.thinking is ThinkingControl.NONE and not model.efforts:
        parameters.dropped(EFFORT.path, "the model cannot think")
    elif model.thinking is ThinkingControl.BUDGET and not model.efforts:
        _add_budget(body, request, effort, parameters, is_possible=is_possible)
    else:
        _add_effort(body, request, model, effort, parameters, is_possible=is_possible)


def _add_effort(
    body: dict[str, Any], request: ChatRequest, model: ModelCapabilities, asked: str, parameters: Parameters, *, is_possible: bool
) -> None:
    """Add an effort, and what the model needs beside it to think."""
    wanted = _EFFORTS[asked]
    while wanted not in model.efforts:
        wanted = _LOWER[wanted]
    if wanted != asked and not parameters.mapped(EFFORT.path, _EFFORT, "the model has fewer degrees of effort"):
        return
    body["output_config"] = {"effort": wanted}
    if model.thinking is ThinkingControl.ADAPTIVE:
        body[_THINKING] = {"type": "adaptive", "display": "summarized"}
    elif is_possible and not _is_forced(request.tool_choice):
        _set_budget(body, asked)


def _add_budget(body: dict[str, Any], request: ChatRequest, effort: str, parameters: Parameters, *, is_possible: bool) -> None:
    """Add a number of tokens, for a model that has no efforts."""
    if not is_possible:
        parameters.dropped(EFFORT.path, "the last reply calls tools without the thinking that led to them")
    elif _is_forced(request.tool_choice):
        parameters.dropped(EFFORT.path, "the model cannot think if it must call a tool")
    elif _budget(body, effort) < _LOWEST_BUDGET:
        parameters.dropped(EFFORT.path, "the limit of the output leaves no room to think")
    elif parameters.mapped(EFFORT.path, _BUDGET, "the model is told a number of tokens"):
        _set_budget(body, effort)


def _budget(body: dict[str, Any], effort: str) -> int:
    """Return the tokens of thinking. They are part of the limit, a quarter of which is left for the answer."""
    return min(_BUDGETS[effort], int(body["max_tokens"]) * 3 // 4)


def _set_budget(body: dict[str, Any], effort: str) -> None:
    budget = _budget(body, effort)
    if budget >= _LOWEST_BUDGET:
        body[_THINKING] = {"type": "enabled", "budget_tokens": budget}


def _add_no_thinking(body: dict[str, Any], model: ModelCapabilities, parameters: Parameters) -> None:
    if model.thinking is not ThinkingControl.ADAPTIVE:
        return  # the others think only if they are told to
    reason = "the model cannot do without thinking"
    match model.off:
        case ThinkingOff.DISABLED:
            body[_THINKING] = {"type": "disabled"}
        case ThinkingOff.BETWEEN_TOOLS:
            if parameters.mapped(EFFORT.path, "thinking.type between_tools", reason):
                body[_THINKING] = {"type": "between_tools"}
        case ThinkingOff.LOW_EFFORT:
            if parameters.mapped(EFFORT.path, "output_config.effort low", reason):
                body["output_config"] = {"effort": "low"}


def _is_forced(choice: ToolChoice | None) -> bool:
    if choice is None:
        return False
    if choice.native is not None:
        return choice.native.get("type") in ("any", "tool")
    return choice.mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.TOOL)
