"""Who makes the call that is going on, and which call it is.

Set where the credential is judged; read where something belongs to somebody, or is written down.
"""

from __future__ import annotations

from contextvars import ContextVar

from msgspec import Struct

from antiphon.domain.errors import PermissionDenied
from antiphon.domain.principal import Principal, Scope


class Origin(Struct, frozen=True):
    """Who makes a call, as the id of a credential, which call it is, as its `x-request-id`, and the address that the edge saw."""

    actor: str
    request_id: str
    peer: str


CALLER: ContextVar[Principal] = ContextVar("caller")
ORIGIN: ContextVar[Origin] = ContextVar("origin")

ANONYMOUS = Principal("", owner="", scopes=frozenset())
"""Who calls without a key, where that is not refused at once: nothing is theirs."""


def caller() -> Principal:
    """Who is calling. Only inside a call."""
    return CALLER.get()


def require(scope: Scope) -> None:
    """Raises `PermissionDenied` unless the caller has the scope."""
    if scope not in CALLER.get().scopes:
        raise PermissionDenied("This needs an admin key." if scope is Scope.ADMIN else f"This needs a key with the scope {scope}.")
