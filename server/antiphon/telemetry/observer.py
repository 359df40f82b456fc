"""Several listeners to what happens in calls, told one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import structlog

from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import AntiphonError

log = structlog.get_logger(__name__)


class Observers(Observer):
    """Tells each of `listeners`. One that fails is logged, and neither the call nor the others notice."""

    def __init__(self, listeners: Sequence[Observer]) -> None:
        self._handlers: dict[str, list[Callable[..., None]]] = {
            event: [getattr(listener, event) for listener in listeners if getattr(type(listener), event) is not silent]
            for event, silent in inspect.getmembers(Observer, inspect.isfunction)
        }
        """By event, those who override it: a call costs what is listened to."""

    def started(self, call: Call) -> None:
        self._tell("started", call)

    def admitted(self, call: Call) -> None:
        self._tell("admitted", call)

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        self._tell("attempt_started", call, attempt)

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        self._tell("attempt_ended", call, attempt, error)

    def first_token(self, call: Call) -> None:
        self._tell("first_token", call)

    def settled(self, call: Call) -> None:
        self._tell("settled", call)

    def cancelled_upstream(self, call: Call, attempt: Attempt, seconds: float) -> None:
        self._tell("cancelled_upstream", call, attempt, seconds)

    def turn_ended(self, call: Call, outcome: str) -> None:
        self._tell("turn_ended", call, outcome)

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        self._tell("ended", call, code, error)

    def stopped(self) -> None:
        self._tell("stopped")

    def _tell(self, event: str, *arguments: object) -> None:
        for handler in self._handlers[event]:
            try:
                handler(*arguments)
            except Exception:
                log.exception("a listener failed", call_event=event)
