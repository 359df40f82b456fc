"""Divides schemas into those that Anthropic's structured output enforces, and those that a model is only told. No I/O."""

from __future__ import annotations

from antiphon.domain.content import JsonObject
from antiphon.domain.request import JsonObjectFormat, JsonSchemaFormat, ResponseFormat
from antiphon.providers.anthropic.budget import TOO_MANY, SchemaBudget
from antiphon.providers.anthropic.enforceable import NOT_ENFORCEABLE, is_enforceable
from antiphon.providers.json_instruction import json_instruction
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import JSON_SCHEMA, STRICT_TOOLS


def told_and_enforced(
    form: ResponseFormat | None, parameters: Parameters, budget: SchemaBudget | None, *, structured_output: bool
) -> tuple[str, ResponseFormat | None]:
    """Return the instruction for a format, empty if there is none, and the format that is to be sent.

    `budget` is what Claude can be held to, None for models of other makers. `structured_output`: the model has it. The format of
    one that does not was reported already, by what the model lacks. Raises `Unsupported` if the policy is to refuse.
    """
    match form:
        case JsonObjectFormat():
            return json_instruction(form), None
        case JsonSchemaFormat() if not structured_output:
            return json_instruction(form), None
        case JsonSchemaFormat() if not is_enforceable(form.schema):
            return (json_instruction(form) if parameters.mapped(JSON_SCHEMA.path, "system", NOT_ENFORCEABLE) else ""), None
        case JsonSchemaFormat() if budget is not None and not budget.admits_format(form.schema):
            return (json_instruction(form) if parameters.mapped(JSON_SCHEMA.path, "system", TOO_MANY) else ""), None
        case _:
            return "", form


def is_held_to(schema: JsonObject, budget: SchemaBudget | None, parameters: Parameters) -> bool:
    """Return whether the arguments of a strict tool can be held to their schema. What cannot is reported.

    Raises `Unsupported` if the policy is to refuse.
    """
    if not is_enforceable(schema):
        parameters.dropped(STRICT_TOOLS.path, NOT_ENFORCEABLE)
        return False
    if budget is not None and not budget.admits_tool(schema):
        parameters.dropped(STRICT_TOOLS.path, TOO_MANY)
        return False
    return True
