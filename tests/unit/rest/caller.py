"""Helpers for calling a REST servicer without a socket."""

from contextvars import ContextVar
from typing import Any

from antiphon.domain.call import Call, make_current
from antiphon.domain.principal import DEFAULT_SCOPES, Principal, Scope

ADMIN = Principal("boss", owner="boss", scopes=DEFAULT_SCOPES | {Scope.ADMIN})
USER = Principal("ann", owner="ann")

_HELD: ContextVar[Call] = ContextVar("held")


class Context:
    """The part of a gRPC context that servicers of dialects use."""

    def __init__(self, **metadata: str) -> None:
        self.metadata = tuple(metadata.items())
        self.trailing: tuple[Any, ...] = ()

    def invocation_metadata(self) -> Any:
        return self.metadata

    def time_remaining(self) -> float | None:
        return None

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = metadata


def as_caller(principal: Principal) -> Call:
    """Make `principal` the caller of this task's further calls. Return its call."""
    call = Call(caller=principal)
    _HELD.set(call)
    make_current(call)
    return call
