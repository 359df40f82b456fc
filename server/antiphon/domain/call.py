"""One call, from its arrival to its end, and who is told what happens in it. Plain values; no I/O.

A `Call` is made when a call arrives; who answers it asks for it with `current`, and hands it down to everybody else.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import Any, Final, Protocol
from weakref import ref

from msgspec import Struct, field

from antiphon.domain.errors import AntiphonError, DeadlineExceeded, ShuttingDown
from antiphon.domain.events import Usage
from antiphon.domain.principal import ANONYMOUS, Principal
from antiphon.domain.trace import TraceContext

LEFT: Final = (asyncio.CancelledError, GeneratorExit, DeadlineExceeded, ShuttingDown)
"""What ends a call while its provider would go on."""


class Attempt(Struct, frozen=True):
    """One try at a provider. `model` is the provider's own name of it; `begun` is of the monotonic clock, in seconds."""

    provider: str
    model: str
    begun: float
    streamed: bool = False
    """Whether the provider is asked to answer piecemeal."""


class Observer:
    """What happens in a call, told once to whoever listens: a log, a ledger, metrics, traces.

    A listener overrides what it wants to hear. It returns soon and raises nothing: no listener changes a call. Calls without a key,
    to health and reflection, and of methods that there are not, are not told.
    """

    def begun(self, call: Call) -> None:
        """The call has arrived; nothing of it is known but `method`, `timeout`, `request_id` and `trace`."""

    def admitted(self, call: Call) -> None:
        """The call has its place within its caller's limits."""

    def attempt_begun(self, call: Call, attempt: Attempt) -> None:
        """A provider is about to be asked."""

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        """The provider's call is over; `error` is what ended it before its time."""

    def first_token(self, call: Call) -> None:
        """The first delta of the reply has come; `call.first_token` is set."""

    def settled(self, call: Call) -> None:
        """What the call used is charged: `call.usage` and `call.cost_usd`, where they are known. Once for each admitted call."""

    def cancelled_upstream(self, call: Call, attempt: Attempt, seconds: float) -> None:
        """The caller is gone or out of time, and the provider's call, which would have gone on, is closed: that took `seconds`."""

    def turn_ended(self, call: Call, outcome: str) -> None:
        """A recorded turn is over: "complete", and then stored; "failed"; "cancelled"; or "replayed", as it was made before."""

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """The call is over. `code` is the name of its gRPC status. Without a good key its caller is `ANONYMOUS`."""

    def stopped(self) -> None:
        """The server has stopped: every call has ended, and none comes any more."""


SILENT: Final = Observer()
"""Nobody listens."""


class Heartbeat(Struct):
    """What to write after each interval of silence. None: the response's headers alone, once."""

    message: Any = None
    sent: bool = False
    """True once it went out: the headers are gone, so a later failure can only be told within the stream."""


class Pulse(Protocol):
    """Writes heartbeats."""

    def keep(self, heartbeat: Heartbeat) -> None:
        """Write `heartbeat` whenever the stream was silent for long, until the call ends."""
        ...


class Call(Struct, eq=False, kw_only=True, weakref=True):
    """Who calls, for how long, and what is known of the call so far: the stages fill it in before they tell the observer."""

    caller: Principal = ANONYMOUS
    method: str = ""
    """Service and method, as in "ChatService/Generate"."""
    request_id: str = ""
    peer: str = ""
    """The caller's address as the edge saw it; empty but for calls of admins, which are audited."""
    trace: TraceContext | None = None
    """The trace context: that of the caller, until an observer that records the call as a span replaces it."""
    timeout: float | None = None
    """Seconds that the caller waits, from `begun`; None where it set no deadline."""
    begun: float = field(default_factory=time.monotonic)
    headers: dict[str, str] = {}
    """Headers of the response: for REST callers. They leave right before the first message; what is added later is lost."""
    observer: Observer = SILENT
    pulse: Pulse | None = None

    route: str = ""
    """The model that the caller asked for; `provider` and `model` are what it led to. A proxied call has a `provider` alone."""
    provider: str = ""
    model: str = ""
    first_token: float | None = None
    """Seconds from when the provider was asked to the first delta."""
    tags: dict[str, str] = {}
    """The tags of the caller's key and of the call itself; see `antiphon.domain.tags`."""
    usage: Usage | None = None
    cost_usd: float | None = None

    @property
    def time_left(self) -> float | None:
        """Seconds that are left to the caller's deadline, never below 0; None where there is none."""
        return None if self.timeout is None else max(0.0, self.timeout - (time.monotonic() - self.begun))

    def heartbeat(self, message: Any = None) -> Heartbeat:
        """Give the call a heartbeat, from now until it ends. Without a pulse nothing is sent."""
        heartbeat = Heartbeat(message)
        if self.pulse is not None:
            self.pulse.keep(heartbeat)
        return heartbeat


_CURRENT: ContextVar[ref[Call]] = ContextVar("call")
"""Weak, as the loop keeps the context of timers that were cancelled for minutes: the call must not stay with it."""


def make_current(call: Call) -> None:
    """Let `current` return this call, as long as somebody holds it."""
    _CURRENT.set(ref(call))


def current() -> Call:
    """Return the call that is going on. Only for servicers, as gRPC hands them no more than its own context."""
    call = _CURRENT.get()()
    assert call is not None, "whoever handles a call holds it"
    return call
