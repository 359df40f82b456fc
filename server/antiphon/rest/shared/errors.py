"""The message of an error, for dialects whose errors have one text and no list of wrong fields."""

from __future__ import annotations

from antiphon.domain.errors import AntiphonError, InvalidRequest, Violation


def message_of_error(error: AntiphonError) -> str:
    """Return the message of an error. For an invalid request it lists every wrong field."""
    if isinstance(error, InvalidRequest) and error.violations:
        return "; ".join(map(_violation, error.violations))
    return error.message


def _violation(violation: Violation) -> str:
    if not violation.path or violation.kind == "json_invalid":
        return violation.message
    return f"{'.'.join(map(str, violation.path))}: {violation.message}"
