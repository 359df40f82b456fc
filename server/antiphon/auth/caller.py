"""Who makes the call that is going on: set where the key is checked, read where something belongs to somebody."""

from __future__ import annotations

from contextvars import ContextVar

from antiphon.errors import PermissionDenied
from antiphon.principal import Principal

CALLER: ContextVar[Principal] = ContextVar("caller")


ANONYMOUS = Principal("", owner="", scopes=frozenset())
"""Who calls without a key, where that is not refused at once: nothing is theirs."""


def caller() -> Principal:
    """Who is calling. Only inside a call."""
    return CALLER.get()


def require_admin() -> None:
    """Raises `PermissionDenied` unless the caller is an admin."""
    if not CALLER.get().admin:
        raise PermissionDenied("This needs an admin key.")
