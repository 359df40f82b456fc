"""Tests of the observers of calls."""

import inspect

from structlog.testing import capture_logs

from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import Internal
from antiphon.telemetry.observer import Observers
from tests.unit.listener import Listener

EVENTS = [name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if not name.startswith("_")]


def fail(*_: object) -> None:
    raise ValueError("at every event")


Failing = type("Failing", (Observer,), dict.fromkeys(EVENTS, fail))


def test_every_observer_gets_every_event_if_another_fails() -> None:
    """Every observer gets every event even if another one fails, and the failure is logged."""
    last = Listener()
    observers = Observers([Failing(), last])
    call, attempt = Call(first_token=0.1), Attempt("p", "m", 0.0)
    with capture_logs() as lines:
        observers.started(call)
        observers.admitted(call)
        observers.attempt_started(call, attempt)
        observers.first_token(call)
        observers.cancelled_upstream(call, attempt, 0.1)
        observers.attempt_ended(call, attempt, None)
        observers.settled(call)
        observers.turn_ended(call, "complete")
        observers.ended(call, "INTERNAL", Internal())
        observers.stopped()
    assert sorted(last.events) == sorted(EVENTS)
    assert [line["call_event"] for line in lines] == last.events
