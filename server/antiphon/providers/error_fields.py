"""Reads the error objects of providers: explanation, invalid field, quota. No I/O.

Providers put these in different places, but mean the same by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from antiphon.domain.errors import field_path

_EXPLANATION_LEVELS: Final = 4
"""The most levels of an error object that are searched for an explanation."""


def error_fields(body: bytes) -> Mapping[str, Any]:
    """Return the error object of a body, or the whole object if it has none; empty if the body is not a JSON object.

    AWS names the error in `__type`, with a name space before it.
    """
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(payload, list) and payload:  # Google's hosts put it in an array
        payload = payload[0]
    if not isinstance(payload, dict):
        return {}
    inner = payload.get("error")
    if isinstance(inner, dict):
        return inner
    kind = payload.get("__type")
    return {**payload, "type": kind.rpartition("#")[2]} if isinstance(kind, str) and "type" not in payload else payload


def explanation(value: object, level: int = 0) -> str:
    """Return the message in an error value: a text, an object that contains one, or a list of such. Empty if there is none.

    The lists are those of FastAPI: `{"loc": [...], "msg": "..."}` for each invalid field.
    """
    if isinstance(value, str) or level == _EXPLANATION_LEVELS:
        return value if isinstance(value, str) else ""
    if isinstance(value, dict):
        found = (explanation(value.get(name), level + 1) for name in ("message", "msg", "detail", "error", "errors"))
        text = next(filter(None, found), "")
        path = _location(value)
        return f"{path}: {text}" if path and text else text
    if isinstance(value, list):
        return "; ".join(filter(None, (explanation(entry, level + 1) for entry in value[:10])))
    return ""


def invalid_field(fields: Mapping[str, Any]) -> str:
    """Return the name of the invalid field; empty if none is named."""
    param = fields.get("param")
    return param if isinstance(param, str) and param else _first_location(fields)


def _first_location(value: object, level: int = 0) -> str:
    """Return the path of the first field in FastAPI's list; empty if there is none."""
    if level == _EXPLANATION_LEVELS:
        return ""
    if isinstance(value, dict):
        return _location(value) or next(filter(None, (_first_location(value.get(n), level + 1) for n in ("detail", "message"))), "")
    return _first_location(value[0], level + 1) if isinstance(value, list) and value else ""


def _location(entry: Mapping[str, Any]) -> str:
    """Return the `loc` of an entry of a `detail` list as text; empty if it has none.

    `["body", "messages", 0, "role"]` becomes "messages[0].role".
    """
    steps = entry.get("loc")
    if not isinstance(steps, list):
        return ""
    path = tuple(step for step in steps if isinstance(step, str | int))
    return field_path(path[1:] if path[:1] == ("body",) else path)


def details_of(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of Google's `details`: each may have a reason, a delay or violations."""
    details = fields.get("details")
    return [entry for entry in details if isinstance(entry, dict)] if isinstance(details, list) else []


def is_daily_quota(fields: Mapping[str, Any]) -> bool:
    """Return whether Google's quota of a day is used up. The delay beside it is that of another quota."""
    found = (entry.get("violations") for entry in details_of(fields))
    violations = [one for several in found if isinstance(several, list) for one in several]
    return any(isinstance(one, dict) and "PerDay" in str(one.get("quotaId")) for one in violations)


def error_status(value: object) -> int | None:
    """Return the HTTP status that a field holds; None if it is none."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:4])
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600 else None
