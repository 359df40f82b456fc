"""The clients' observations: every call and how it ended, and every recorded turn whose complete reply a client received."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import count

from tests.cluster.causes import FAILURES, NotWholeError, cause_of

WINDOW = 60.0
"""The length in seconds of the window for limits of requests per minute."""


class Outcome(Enum):
    """How a call ended."""

    GOING = "going"
    DONE = "done"
    REFUSED = "refused"
    """Refused because of the caller's limit."""
    FAILED = "failed"
    CUT = "cut"
    """Failed in the middle of a stream, with an error."""
    CUT_SILENTLY = "cut silently"
    """A stream that ended without an error, but was not complete."""


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
    """How many pieces of a stream were received."""
    since: float = 0.0
    """When the first try of the same turn began."""


@dataclass(frozen=True)
class Turn:
    """A recorded turn whose complete reply its client received."""

    request: str
    conversation: str
    message: str
    prompt: str
    reply: str


@dataclass
class Journal:
    """All calls and turns of a run."""

    calls: list[Call] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    """Request ids of turns that broke off and have no complete reply."""
    sent: dict[str, int] = field(default_factory=dict)
    """How often each call was sent, by name; a recorded turn is retried under the same name."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def name(self, kind: str) -> str:
        """Return a name that no call has had yet."""
        return f"{kind}.{next(self._numbers)}"

    async def attempt(
        self, kind: str, name: str, ask: Callable[[Call], Awaitable[None]], *, limited: bool = False, since: float | None = None
    ) -> Call:
        """Make one call, and record how it ended.

        `limited` is true if the caller may be refused for its limit. `since` is when the first try of the same turn began.
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

    def has_calls_from_before(self, moment: float) -> bool:
        """Return whether a call that began before this moment is still in progress."""
        return any(call.outcome is Outcome.GOING and call.began <= moment for call in self.calls)


def most_in_window(calls: Iterable[Call], seconds: float = WINDOW) -> tuple[int, float]:
    """Return the most calls that were granted in any window of `seconds`, and when that window began.

    A client does not know when during its call a server counted it. So only calls that lie completely in the window are counted:
    all of them were certainly granted in it.
    """
    spans = sorted((call.ended, call.began) for call in calls)
    most, when = 0, 0.0
    for end, _ in spans:
        begin = end - seconds
        inside = sum(1 for ended, began in spans if began >= begin and ended <= end)
        if inside > most:
            most, when = inside, begin
    return most, when
