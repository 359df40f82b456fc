"""Several observers of calls behind one: each event is passed to all of them, in order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from antiphon.domain.call import Observer

log = structlog.get_logger(__name__)


class Observers(Observer):
    """Passes each event to all `listeners`. An exception of one is logged, and affects neither the call nor the others."""

    def __init__(self, listeners: Sequence[Observer]) -> None:
        for event, default in inspect.getmembers(Observer, inspect.isfunction):
            # Only overridden methods are called, so an event that nobody observes costs nothing.
            handlers = [getattr(listener, event) for listener in listeners if getattr(type(listener), event) is not default]
            setattr(self, event, partial(_notify, event, handlers) if handlers else _ignore)


def _notify(event: str, handlers: Sequence[Callable[..., None]], *arguments: object) -> None:
    for handler in handlers:
        try:
            handler(*arguments)
        except Exception:
            log.exception("a listener failed", call_event=event)


def _ignore(*arguments: object) -> None:
    pass
