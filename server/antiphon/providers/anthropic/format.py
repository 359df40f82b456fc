"""Divides the formats of replies into those that Anthropic's structured output enforces and those that a model is told. No I/O."""

from __future__ import annotations

from antiphon.domain.request import JsonObjectFormat, JsonSchemaFormat, ResponseFormat
from antiphon.providers.anthropic.enforceable import NOT_ENFORCEABLE, is_enforceable
from antiphon.providers.json_instruction import json_instruction
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import JSON_SCHEMA


def told_and_enforced(
    form: ResponseFormat | None, parameters: Parameters, *, structured_output: bool
) -> tuple[str, ResponseFormat | None]:
    """Return the instruction for a format, empty if there is none, and the format that is to be sent.

    `structured_output`: the model has it. The format of one that does not was reported already, by what the model lacks. Raises
    `Unsupported` if the policy is to refuse.
    """
    match form:
        case JsonObjectFormat():
            return json_instruction(form), None
        case JsonSchemaFormat() if not structured_output:
            return json_instruction(form), None
        case JsonSchemaFormat() if not is_enforceable(form.schema):
            return (json_instruction(form) if parameters.mapped(JSON_SCHEMA.path, "system", NOT_ENFORCEABLE) else ""), None
        case _:
            return "", form
