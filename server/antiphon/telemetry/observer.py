"""Several observers of calls behind one: each event is passed to all of them, in order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import structlog

from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import AntiphonError

log = structlog.get_logger(__name__)


class Observers(Observer):
    """Passes each event to all `listeners`. An exception of one is logged, and affects neither the call nor the others."""

    def __init__(self, listeners: Sequence[Observer]) -> None:
        self._handlers: dict[str, list[Callable[..., None]]] = {
            event: [getattr(listener, event) for listener in listeners if getattr(type(listener), event) is not default]
            for event, default in inspect.getmembers(Observer, inspect.isfunction)
        }
        """The methods to call, by event. Only overridden methods are listed, so an event that nobody observes costs nothing."""

    def started(self, call: Call) -> None:
        self._notify("started", call)

    def admitted(self, call: Call) -> None:
        self._notify("admitted", call)

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        self._notify("attempt_started", call, attempt)

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        self._notify("attempt_ended", call, attempt, error)

    def first_token(self, call: Call) -> None:
        self._notify("first_token", call)

    def settled(self, call: Call) -> None:
        self._notify("settled", call)

    def cancelled_upstream(self, call: Call, attempt: Attempt, seconds: float) -> None:
        self._notify("cancelled_upstream", call, attempt, seconds)

    def turn_ended(self, call: Call, outcome: str) -> None:
        self._notify("turn_ended", call, outcome)

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        self._notify("ended", call, code, error)

    def stopped(self) -> None:
        self._notify("stopped")

    def _notify(self, event: str, *arguments: object) -> None:
        for handler in self._handlers[event]:
            try:
                handler(*arguments)
            except Exception:
                log.exception("a listener failed", call_event=event)
