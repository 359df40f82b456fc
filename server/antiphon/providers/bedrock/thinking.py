"""Writes how much a model is to think, in the form of its maker. No I/O.

https://docs.aws.amazon.com/bedrock/latest/userguide/inference-reasoning.html,
https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html for Nova.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.capabilities import capabilities
from antiphon.providers.anthropic.thinking import thinking_fields
from antiphon.providers.bedrock.capabilities import Effort
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import EFFORT

_NONE: Final = "none"

_UP_TO_HIGH: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""Efforts of other APIs, and the nearest of three."""

_LOW_OR_HIGH: Final = {**dict.fromkeys(_UP_TO_HIGH, "high"), "minimal": "low", "low": "low"}

_THINKING: Final = "thinking"
_NOVA: Final = "reasoningConfig"
_OPENAI: Final = "reasoning_effort"
_QWEN: Final = "reasoning_config"
_OWN_FIELDS: Final = frozenset({_THINKING, _NOVA, _OPENAI, _QWEN})
"""The fields of the makers' APIs in which a caller may say it."""

_OUTPUT: Final = "outputConfig"
INFERENCE: Final = "inferenceConfig"


def add_thinking(
    body: dict[str, Any],
    additional: dict[str, Any],
    request: ChatRequest,
    control: Effort,
    parameters: Parameters,
    *,
    is_forced: bool,
    is_possible: bool,
) -> None:
    """Add how much the model thinks to the body, and to the `additional` fields of the model's own API.

    `is_forced`: a tool call is demanded, which excludes a budget. `is_possible`: the messages allow a budget. The caller's own
    fields, in `extra`, count instead.
    """
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None:
        return
    own = request.extra.get("additionalModelRequestFields")
    if isinstance(own, dict) and not _OWN_FIELDS.isdisjoint(own):
        parameters.dropped(EFFORT.path, "the request has the API's own parameter for it")
        return
    match control:
        case Effort.CLAUDE:
            _add_claude(body, additional, request, effort, parameters, is_forced=is_forced, is_possible=is_possible)
        case Effort.NONE:
            if effort != _NONE:
                parameters.dropped(EFFORT.path, "the model cannot be told how much to think")
        case _ if effort != _NONE and effort not in _UP_TO_HIGH:
            parameters.dropped(EFFORT.path, "the API does not know this effort")
        case Effort.NOVA:
            _add_nova(additional, request, effort, parameters)
        case Effort.OPENAI:
            _add_level(additional, _OPENAI, effort, {**_UP_TO_HIGH, _NONE: "low"}, parameters)
        case Effort.QWEN:
            if effort != _NONE:  # it thinks only if it is told to
                _add_level(additional, _QWEN, effort, _LOW_OR_HIGH, parameters)


def _add_claude(
    body: dict[str, Any],
    additional: dict[str, Any],
    request: ChatRequest,
    effort: str,
    parameters: Parameters,
    *,
    is_forced: bool,
    is_possible: bool,
) -> None:
    model = capabilities(request.model)
    limit = body.get(INFERENCE, {}).get("maxTokens", model.max_output)
    told = thinking_fields(effort, model, limit, parameters, config=_OUTPUT, is_forced=is_forced, is_possible=is_possible)
    if told.effort is not None:
        body.setdefault(_OUTPUT, {})["effort"] = told.effort
    if told.thinking is not None:
        additional[_THINKING] = told.thinking
        if "budget_tokens" in told.thinking:
            body.setdefault(INFERENCE, {})["maxTokens"] = limit  # of which the budget is a part


def _add_nova(additional: dict[str, Any], request: ChatRequest, effort: str, parameters: Parameters) -> None:
    if effort == _NONE:
        additional[_NOVA] = {"type": "disabled"}
        return
    level, reason = _UP_TO_HIGH[effort], _nearest(effort)
    sampling = request.sampling
    excluded = (sampling.max_tokens, sampling.max_completion_tokens, sampling.temperature, sampling.top_p)
    if level == "high" and any(value is not None for value in excluded):
        level, reason = "medium", "the model accepts neither sampling nor a limit of the output with the effort high"
    if level == effort or parameters.mapped(EFFORT.path, f"{_NOVA}.maxReasoningEffort {level}", reason):
        additional[_NOVA] = {"type": "enabled", "maxReasoningEffort": level}


def _add_level(additional: dict[str, Any], name: str, effort: str, levels: dict[str, str], parameters: Parameters) -> None:
    """Add one of a few levels under a name of the maker's API."""
    level = levels[effort]
    if level == effort or parameters.mapped(EFFORT.path, f"{name} {level}", _nearest(effort)):
        additional[name] = level


def _nearest(effort: str) -> str:
    """Return why the effort that the model is told is another one."""
    return "the model cannot do without thinking" if effort == _NONE else "the model has fewer degrees of effort"
