"""Tools, tool choices and formats of a request that have the form of another API, for protocols with forms of their own. No I/O.

What chat completions has beside functions is in a request as its JSON object. These protocols would refuse it: what has an equal is
replaced by that, and all else is left out and reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from antiphon.domain.content import JsonObject
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, NativeFormat, NativeTool, Tool, ToolChoice, ToolChoiceMode
from antiphon.providers.codec.values import as_object
from antiphon.providers.parameters import Parameters

_CHOICE: Final = ("tool_choice",)
_TOOLS: Final = ("tools",)

_ALLOWED: Final = "allowed_tools"
_CHAT_CHOICES: Final = ("function", "custom", _ALLOWED)
"""The types of choices that chat completions has."""

_NAME: Final = "reply"
"""The name of a schema without one."""


def without_foreign_tools(
    request: ChatRequest,
    parameters: Parameters,
    *,
    is_tool: Callable[[JsonObject], bool],
    is_choice: Callable[[JsonObject], bool],
) -> ChatRequest:
    """Return the request with only those native tools and that native choice that are of the protocol, as the functions say.

    A function that is named together with other fields stays named. `allowed_tools` is a choice among the tools that it lists.
    Raises `Unsupported` if the policy is to refuse.
    """
    choice = request.tool_choice
    if choice is not None and choice.native is not None and not is_choice(choice.native):
        if choice.name is not None:
            request = replace(request, tool_choice=ToolChoice(choice.mode, choice.name))
        elif choice.native.get("type") == _ALLOWED and isinstance(choice.native.get(_ALLOWED), dict):
            request = _with_allowed_tools(request, choice.native[_ALLOWED], parameters)
        else:
            parameters.dropped(_CHOICE, "the choice is of another API")
            request = replace(request, tool_choice=None)
    kept = tuple(tool for tool in request.tools if isinstance(tool, Tool) or is_tool(tool.fields))
    if len(kept) < len(request.tools):
        parameters.dropped(_TOOLS, "a tool is of another API")
        request = replace(request, tools=kept)
    return request


def is_no_chat_choice(form: JsonObject) -> bool:
    """Return whether a choice has none of the types of chat completions: an `is_choice` of `without_foreign_tools`."""
    return form.get("type") not in _CHAT_CHOICES


def _with_allowed_tools(request: ChatRequest, allowed: JsonObject, parameters: Parameters) -> ChatRequest:
    """Return the request with the allowed tools alone, of which one must be called if the mode is "required"."""
    if not parameters.mapped(_CHOICE, "tools", "the API has no choice of several tools, so that only these are offered"):
        return replace(request, tool_choice=None)
    listed = [as_object(one) for one in allowed.get("tools") or ()]
    names = {as_object(one.get("function")).get("name") for one in listed} | {one.get("name") for one in listed}
    kinds = {one.get("type") for one in listed}
    mode = ToolChoiceMode.REQUIRED if allowed.get("mode") == "required" else ToolChoiceMode.AUTO
    tools = (tool for tool in request.tools if _is_allowed(tool, names, kinds))
    return replace(request, tools=tuple(tools), tool_choice=ToolChoice(mode))


def _is_allowed(tool: Tool | NativeTool, names: set[Any], kinds: set[Any]) -> bool:
    return tool.name in names if isinstance(tool, Tool) else tool.fields.get("type") in kinds


def with_known_format(request: ChatRequest) -> ChatRequest:
    """Return the request with a schema as the domain has it. Some hosts have it without a name, or beside the type."""
    form = request.response_format
    if not isinstance(form, NativeFormat) or form.fields.get("type") != "json_schema":
        return request
    inner = as_object(form.fields.get("json_schema")) or form.fields
    schema, name, description = inner.get("schema"), inner.get("name"), inner.get("description")
    if not isinstance(schema, dict):
        return request
    return replace(
        request,
        response_format=JsonSchemaFormat(
            name if isinstance(name, str) and name else _NAME, schema, description if isinstance(description, str) else None
        ),
    )
