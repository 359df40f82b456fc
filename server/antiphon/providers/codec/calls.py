"""The arguments of earlier tool calls, for APIs that take them as JSON objects. No I/O."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from antiphon.domain.content import CUSTOM, FUNCTION, FUNCTION_CALL, ToolCall

SENT_CALLS: Final = frozenset({FUNCTION, FUNCTION_CALL, CUSTOM})
"""The types of calls that every provider gets. Others are of tools that only one provider knows."""

INPUT: Final = "input"
"""The name of the argument that the text for a custom tool becomes."""


def input_of(call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call. Those that are no JSON object, of a model that made a mistake, are an empty one."""
    return {INPUT: call.arguments} if call.type == CUSTOM else object_of(call.arguments) or {}


def object_of(text: str) -> dict[str, Any] | None:
    """Return a JSON object; None if the text is none. A blank text is an empty object."""
    try:
        value = msgspec.json.decode(text) if text.strip() else {}
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
