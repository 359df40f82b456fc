"""What the callers saw: every call with its end, and every recorded turn that they were told is whole."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import count

from tests.cluster.causes import FAILURES, NotWholeError, cause_of

WINDOW = 60.0
"""Seconds that a limit of requests a minute is about."""


class Outcome(Enum):
    """How a call ended."""

    GOING = "going"
    DONE = "done"
    REFUSED = "refused"
    """For a limit, by a caller that has one."""
    FAILED = "failed"
    CUT = "cut"
    """Failed in the middle of a stream, and the caller was told."""
    CUT_SILENTLY = "cut silently"
    """A stream that ended well for all its caller could see, and was not whole."""


@dataclass
class Call:
    """One call of one client. Times are those of `time.monotonic`."""

    kind: str
    name: str
    began: float
    ended: float = 0.0
    outcome: Outcome = Outcome.GOING
    cause: str = ""
    pieces: int = 0
    """How many pieces of a stream have come."""
    since: float = 0.0
    """When the first try of the same turn began."""


@dataclass(frozen=True)
class Turn:
    """A recorded turn that its caller was told is whole."""

    request: str
    conversation: str
    message: str
    said: str
    replied: str


@dataclass
class Journal:
    """All of it."""

    calls: list[Call] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    """Request ids of turns that broke off, and that their caller was never told are whole."""
    sent: dict[str, int] = field(default_factory=dict)
    """How often a caller sent each call: recorded turns are tried again under the same name."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def name(self, kind: str) -> str:
        """Return a name that no call had yet."""
        return f"{kind}.{next(self._numbers)}"

    async def attempt(
        self, kind: str, name: str, ask: Callable[[Call], Awaitable[None]], *, limited: bool = False, since: float | None = None
    ) -> Call:
        """Make one call, and note how it ended.

        `limited` is for a caller that may be refused for its limit, `since` tells when the first try of the same turn began.
        """
        call = Call(kind, name, time.monotonic())
        call.since = call.began if since is None else since
        self.calls.append(call)
        self.sent[name] = self.sent.get(name, 0) + 1
        try:
            await ask(call)
            call.outcome = Outcome.DONE
        except NotWholeError as error:
            call.outcome, call.cause = Outcome.CUT_SILENTLY, str(error)
        except FAILURES as error:
            call.cause = cause_of(error)
            refused = limited and call.cause.upper().endswith("RATE_LIMIT_EXCEEDED")
            call.outcome = Outcome.REFUSED if refused else Outcome.CUT if call.pieces else Outcome.FAILED
        call.ended = time.monotonic()
        return call

    def going_since_before(self, moment: float) -> bool:
        """Whether a call goes on that began before this moment."""
        return any(call.outcome is Outcome.GOING and call.began <= moment for call in self.calls)


def most_in_window(calls: Iterable[Call], seconds: float = WINDOW) -> tuple[int, float]:
    """Return the most calls that were let through in any window of so many seconds, and when that window began.

    A caller does not know when in its call a server counted it. So only calls that lie wholly in the window are counted: what is
    found was surely let through.
    """
    spans = sorted((call.ended, call.began) for call in calls)
    most, when = 0, 0.0
    for end, _ in spans:
        begin = end - seconds
        inside = sum(1 for ended, began in spans if began >= begin and ended <= end)
        if inside > most:
            most, when = inside, begin
    return most, when
