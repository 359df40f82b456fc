"""One call, from its arrival to its end, and the observers that follow it. Plain values; no I/O.

A `Call` is made when a call arrives. A servicer gets it from `current`, and passes it on as an argument from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Protocol
from weakref import ref

from msgspec import Struct, field

from antiphon.domain.errors import AntiphonError, DeadlineExceeded, ShuttingDown
from antiphon.domain.events import AttemptReport, Usage
from antiphon.domain.principal import ANONYMOUS, Principal
from antiphon.domain.trace import TraceContext
from antiphon.domain.warnings import Warnings, ignore

CANCELLATIONS: Final = (asyncio.CancelledError, GeneratorExit, DeadlineExceeded, ShuttingDown)
"""The exceptions that end a call although the provider would have continued: the caller left, the deadline passed, or the server
stops."""


class Attempt(Struct, frozen=True):
    """One attempt at a provider. `model` is the provider's name for it; `started_at` is in seconds of the monotonic clock."""

    provider: str
    model: str
    started_at: float
    streamed: bool = False
    """Whether the provider is asked to stream its reply."""
    deployment: str = ""
    """The name of the deployment: that of its provider, or "<provider>/<deployment>"."""
    number: int = 1
    """The number of the attempt in its call, from 1."""
    waited: float = 0.0
    """Seconds for which the call waited before it: for a place at a deployment, or until it could be tried again."""


class FailedUse(Struct, frozen=True):
    """What an attempt used that failed after its provider had accepted the request. `cost_usd` is None if the price is unknown."""

    provider: str
    model: str
    deployment: str
    usage: Usage
    cost_usd: float | None = None


def total_cost(cost: float | None, failed_uses: Iterable[FailedUse]) -> float | None:
    """Return the cost of a reply and of failed attempts, as far as prices are known; None if none is."""
    known = [each for each in (cost, *(failed.cost_usd for failed in failed_uses)) if each is not None]
    return sum(known) if known else None


class Observer:
    """Base class of everything that follows calls: the log, the ledger, metrics, traces. The methods here do nothing.

    A subclass overrides the events that it needs. Its methods must return quickly and raise nothing, as an observer may not affect
    a call. Three kinds of call are not reported: health checks, reflection, and calls of unknown methods.
    """

    def started(self, call: Call) -> None:
        """Handle the arrival of a call. Only `method`, `timeout`, `request_id` and `trace` are set yet."""

    def admitted(self, call: Call) -> None:
        """Handle the admission of a call: it is within its caller's limits."""

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        """Handle the start of an attempt, right before the provider is called."""

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        """Handle the end of an attempt. `error` is the exception that ended it; None if it completed."""

    def first_token(self, call: Call) -> None:
        """Handle the first delta of the reply. `call.first_token` is set."""

    def settled(self, call: Call) -> None:
        """Handle the charge for an admitted call, once per call. `call.usage` and `call.cost_usd` are set if they are known.

        What failed attempts used is in `call.failed_uses`, with the provider, model and deployment that used it.
        """

    def cancelled_upstream(self, call: Call, attempt: Attempt, seconds: float) -> None:
        """Handle the cancellation of an attempt, because the caller left or its deadline passed. Closing it took `seconds`."""

    def turn_ended(self, call: Call, outcome: str) -> None:
        """Handle the end of a recorded turn. `outcome` is "complete", "failed", "cancelled" or "replayed".

        A complete turn is stored already. A replayed one was complete before, so the stored reply was sent again.
        """

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """Handle the end of a call. `code` is the name of its gRPC status.

        The caller is `ANONYMOUS` if the call had no valid credential.
        """

    def stopped(self) -> None:
        """Handle the stop of the server. All calls have ended, and no more will come."""


NO_OBSERVER: Final = Observer()
"""The observer that ignores everything."""


class Heartbeat(Struct):
    """The message to send after each interval of silence. None: only the response headers are sent, and only once."""

    message: Any = None
    sent: bool = False
    """True once a heartbeat was sent. The headers have left with it, so a later failure can only be reported inside the stream."""


class HeartbeatSender(Protocol):
    """Sends the heartbeats of one call."""

    def keep(self, heartbeat: Heartbeat) -> None:
        """Send `heartbeat` after each interval in which the stream was silent, until the call ends."""
        ...


class Call(Struct, eq=False, kw_only=True, weakref=True):
    """One call: its caller, its deadline, and its results so far. Each stage sets its fields before it notifies the observer."""

    caller: Principal = ANONYMOUS
    method: str = ""
    """Service and method, such as "ChatService/Generate"."""
    request_id: str = ""
    peer: str = ""
    """The caller's address as the edge saw it. Set only for calls of admins, which are audited."""
    accept: str = ""
    """The media types that the caller accepts: the header `accept`, its values joined if there are several."""
    trace: TraceContext | None = None
    """The caller's trace context; an observer that records the call as a span replaces it by that span's."""
    timeout: float | None = None
    """Seconds from `started_at` to the caller's deadline; None if it set none."""
    started_at: float = field(default_factory=time.monotonic)
    headers: dict[str, str] = {}
    """Response headers for REST callers. They are sent right before the first message; headers added later are lost."""
    takes_headers: bool = True
    """Whether the caller gets `headers`."""
    is_last: bool = False
    """Whether the next message of the response is the last one. A servicer sets it before it yields that message."""
    observer: Observer = NO_OBSERVER
    pulse: HeartbeatSender | None = None

    route: str = ""
    """The model that the caller requested; `provider` and `model` are the ones that answer. A proxied call has only a
    `provider`."""
    provider: str = ""
    model: str = ""
    deployment: str = ""
    """The name of the deployment that answers."""
    first_token: float | None = None
    """Seconds from the request to the provider until its first delta."""
    attempts: tuple[AttemptReport, ...] = ()
    """The attempts that have ended."""
    tags: dict[str, str] = {}
    """The tags of the caller's key and of the call itself; see `antiphon.domain.tags`."""
    usage: Usage | None = None
    """What the reply used, or what the last attempt did; `cost_usd` is its cost."""
    cost_usd: float | None = None
    failed_uses: tuple[FailedUse, ...] = ()
    """What the attempts before used."""
    log_fields: dict[str, str] = {}
    """What every log line that is written during the call says of it."""
    warnings: Warnings = ()
    """What the provider does not get of the request as the caller set it. Known before the provider is called."""
    on_warnings: Callable[[Warnings], None] = ignore
    """Called with the warnings, before any response header is sent."""

    def warn(self, warnings: Warnings) -> None:
        """Set the warnings of the latest attempt, and pass them on."""
        if warnings or self.warnings:
            self.warnings = warnings
            self.on_warnings(warnings)

    @property
    def time_left(self) -> float | None:
        """Return the seconds until the caller's deadline, at least 0; None if it set none."""
        return None if self.timeout is None else max(0.0, self.timeout - (time.monotonic() - self.started_at))

    @property
    def total_usage(self) -> Usage | None:
        """Return the tokens of all attempts; None if none are known."""
        total = self.usage
        for each in self.failed_uses:
            total = each.usage if total is None else total.plus(each.usage)
        return total

    @property
    def total_cost_usd(self) -> float | None:
        """Return the cost of all attempts, as far as prices are known; None if none is."""
        return total_cost(self.cost_usd, self.failed_uses) if self.failed_uses else self.cost_usd

    def heartbeat(self, message: Any = None) -> Heartbeat:
        """Start heartbeats with `message` for the rest of the call, and return their state. Nothing is sent if `pulse` is None."""
        heartbeat = Heartbeat(message)
        if self.pulse is not None:
            self.pulse.keep(heartbeat)
        return heartbeat


_CURRENT: ContextVar[ref[Call]] = ContextVar("call")
"""A weak reference, because the event loop keeps the contexts of cancelled timers for minutes, and must not keep the call with
them."""


_LOG_FIELDS: ContextVar[dict[str, str]] = ContextVar("log_fields")
"""The `Call.log_fields` of the call that this code runs for: a task that outlives the call still logs them."""

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


def make_current(call: Call) -> None:
    """Make `current` return this call, and log lines say its fields. The caller must hold a reference to it."""
    _CURRENT.set(ref(call))
    _LOG_FIELDS.set(call.log_fields)


def current() -> Call:
    """Return the call being served. Only for servicers, because gRPC passes them nothing but its own context."""
    call = _CURRENT.get()()
    assert call is not None, "the call is referenced while it is handled"
    return call


def log_fields() -> Mapping[str, str]:
    """Return the log fields of the call that this code runs for; empty outside of calls."""
    return _LOG_FIELDS.get(_NO_FIELDS)
