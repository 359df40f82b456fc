"""The words of an error in a dialect whose errors have one message, and no place for each field at fault."""

from __future__ import annotations

from antiphon.domain.errors import AntiphonError, InvalidRequest, Violation


def message_of_error(error: AntiphonError) -> str:
    """Return the message of an error; of a request at fault, every field with what is wrong with it."""
    if isinstance(error, InvalidRequest) and error.violations:
        return "; ".join(map(_violation, error.violations))
    return error.message


def _violation(violation: Violation) -> str:
    if not violation.path or violation.kind == "json_invalid":
        return violation.message
    return f"{'.'.join(map(str, violation.path))}: {violation.message}"
