"""Writes how much a model is to think, in the form of its maker. No I/O.

https://docs.aws.amazon.com/bedrock/latest/userguide/inference-reasoning.html. An effort is a hint: models that cannot be told are
not.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.capabilities import ModelCapabilities, ThinkingControl, ThinkingOff, capabilities
from antiphon.providers.bedrock.capabilities import Effort

_NONE: Final = "none"
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
"""Efforts of other APIs, and the API's."""

_LOWER: Final = {"max": "xhigh", "xhigh": "high"}
"""The next lower effort, for models that do not have the highest ones."""

_UP_TO_HIGH: Final = {**_EFFORTS, "xhigh": "high", "max": "high"}
_LOW_OR_HIGH: Final = {**dict.fromkeys(_EFFORTS, "high"), "minimal": "low", "low": "low"}

_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_000, "max": 32_000}
"""Tokens of thinking by effort, for Claude models that are told a number."""

_LOWEST_BUDGET: Final = 1024

_THINKING: Final = "thinking"


def add_thinking(
    body: dict[str, Any],
    additional: dict[str, Any],
    request: ChatRequest,
    control: Effort,
    *,
    is_forced: bool,
    is_possible: bool,
) -> None:
    """Add how much the model thinks to the body, and to the `additional` fields of the model's own API.

    `is_forced`: a tool call is demanded, which excludes a budget and is more than a hint. `is_possible`: the messages allow a
    budget. The caller's own fields, in `extra`, count instead.
    """
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None or (effort != _NONE and effort not in _EFFORTS) or _is_set(request):
        return
    match control:
        case Effort.CLAUDE if effort == _NONE:
            _add_no_thinking(body, additional, capabilities(request.model))
        case Effort.CLAUDE:
            _add_claude(body, additional, effort, capabilities(request.model), has_budget=is_possible and not is_forced)
        case Effort.NOVA:
            on = {"type": "enabled", "maxReasoningEffort": _UP_TO_HIGH.get(effort)}
            additional["reasoningConfig"] = {"type": "disabled"} if effort == _NONE else on
        case Effort.OPENAI if effort != _NONE:
            additional["reasoning_effort"] = _UP_TO_HIGH[effort]
        case Effort.QWEN if effort != _NONE:
            additional["reasoning_config"] = _LOW_OR_HIGH[effort]
        case _:
            pass


def _is_set(request: ChatRequest) -> bool:
    own = request.extra.get("additionalModelRequestFields")
    return isinstance(own, dict) and _THINKING in own


def _add_claude(
    body: dict[str, Any], additional: dict[str, Any], effort: str, model: ModelCapabilities, *, has_budget: bool
) -> None:
    if model.efforts:
        wanted = _EFFORTS[effort]
        while wanted not in model.efforts:
            wanted = _LOWER[wanted]
        body.setdefault("outputConfig", {})["effort"] = wanted
    if model.thinking is ThinkingControl.ADAPTIVE:
        additional[_THINKING] = {"type": "adaptive", "display": "summarized"}
    elif model.thinking is ThinkingControl.BUDGET and has_budget:
        # The budget is part of the limit, a quarter of which is left for the answer.
        config = body.setdefault("inferenceConfig", {})
        budget = min(_BUDGETS[effort], config.setdefault("maxTokens", model.max_output) * 3 // 4)
        if budget >= _LOWEST_BUDGET:
            additional[_THINKING] = {"type": "enabled", "budget_tokens": budget}


def _add_no_thinking(body: dict[str, Any], additional: dict[str, Any], model: ModelCapabilities) -> None:
    if model.thinking is not ThinkingControl.ADAPTIVE:
        return  # the others think only if they are told to
    match model.off:
        case ThinkingOff.DISABLED:
            additional[_THINKING] = {"type": "disabled"}
        case ThinkingOff.BETWEEN_TOOLS:
            additional[_THINKING] = {"type": "between_tools"}
        case ThinkingOff.LOW_EFFORT:
            body.setdefault("outputConfig", {})["effort"] = "low"
