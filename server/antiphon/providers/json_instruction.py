"""The instruction to reply in JSON, for APIs and models that cannot be held to it. No I/O."""

from __future__ import annotations

from typing import Final

import orjson

from antiphon.domain.request import JsonObjectFormat, JsonSchemaFormat

_ALONE: Final = "and nothing else: no other text before or after it, and no code fence around it."


def json_instruction(form: JsonObjectFormat | JsonSchemaFormat) -> str:
    """Return the instruction, with the schema if there is one."""
    if isinstance(form, JsonObjectFormat):
        return f"Reply with one JSON object {_ALONE}"
    pieces = [f"Reply with JSON that follows the schema below {_ALONE}"]
    if form.description:
        pieces.append(form.description)
    return "\n\n".join((*pieces, orjson.dumps(form.schema).decode()))
