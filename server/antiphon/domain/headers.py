"""Headers of the response to the call that is going on: whoever knows one adds it, and `rpc.interceptor` sends them.

They leave right before the first message, so what is added later is lost. Only REST callers get them. Nothing here knows a header's
meaning.
"""

from __future__ import annotations

from contextvars import ContextVar

_HEADERS: ContextVar[dict[str, str] | None] = ContextVar("response_headers", default=None)


def begin() -> dict[str, str]:
    """No headers yet, for a new call; what is added to them is in the mapping that this returns."""
    headers: dict[str, str] = {}
    _HEADERS.set(headers)
    return headers


def drop(prefix: str) -> None:
    """Takes back the headers whose names begin so."""
    headers = _HEADERS.get() or {}
    for name in [name for name in headers if name.startswith(prefix)]:
        del headers[name]


def add(name: str, value: str) -> None:
    """Adds a header, in place of one of the same name. Outside a call it does nothing."""
    headers = _HEADERS.get()
    if headers is not None:
        headers[name] = value
