"""What providers do wrong, and what callers get then: the rows of a test, and of docs/reference/faults.md.

Each fault is scripted for `tests.odd_upstream.OddUpstream`, or is one of the connection.
"""

import gzip
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from tests.odd_upstream import CUT, HANG, LAST, RESET, STALE, Pause, Step, answer, chunk, delta, head, sse

ERROR: Final = {"error": {"message": "x", "type": "server_error"}}
BUSY: Final = {"error": {"message": "x", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}


def refusing(status: str, *headers: str, **error: str) -> list[Step]:
    return [answer({"error": {"message": "x", **error}}, status, "application/json", *headers)]


ROLE: Final = chunk(sse(delta(role="assistant")))
HI: Final = chunk(sse(delta("Hi")))
STOP: Final = delta(finish="stop")
PART: Final = b"HTTP/1.1 200 OK\r\nx-part: "
HINTS: Final = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
"""Informational answers, which precede the one that counts."""


GOOD: Final = (head(), chunk(sse(delta("Well"))), chunk(sse(delta(finish="stop"), "[DONE]")), LAST)
"""A reply that is as it should be."""

DRIP: Final = (chunk(b":"), Pause(0.3)) * 40
"""A byte at a time, which is a comment without end: something always comes, and no token."""


class Verdict(StrEnum):
    """What a fault says about the deployment. The values are for people."""

    NOTHING = "-"
    COUNTS = "counts"
    """It counts as a failure; so many in a row open the breaker."""
    TRIPS = "open 60 s, or counts if alone"
    COOLS = "left alone"
    """The breaker stays closed, and no call is made until the time that was named, or for a second."""


class Fault(NamedTuple):
    """One thing that a provider does wrong. `status` and `tries` are for a route with one deployment and at most two attempts."""

    name: str
    outcome: str
    """The class of the attempt."""
    status: int
    reason: str
    """That of the error, in lower case; empty if the caller gets its reply."""
    tries: int
    breaker: Verdict
    """What follows for the deployment."""
    steps: Sequence[Step] = ()
    address: str = ""
    """Instead of a script: "refused", "dns" or "tls". "pooled": the connection was used before."""
    before: Sequence[Step] = ()
    """The script of a call that is made before, on the same connection."""
    moves_on: bool = True
    """With a second deployment, that one answers."""
    own_code: str = ""
    """A code that the provider sends, which chat completions pass on in place of the reason."""
    after_output: bool = False
    """A streamed reply has begun, so the stream ends with an error, and nothing is tried again."""


UNAVAILABLE: Final = "provider_unavailable"
REJECTED: Final = "provider_rejected"
CREDENTIALS: Final = "provider_credentials"
TIMEOUT: Final = "provider_timeout"
RATE_LIMITED: Final = "provider_rate_limited"
PROTOCOL: Final = "provider_protocol"

NOTHING, COUNTS, TRIPS, COOLS = Verdict

FAULTS: Final = (
    Fault("connection refused", "connect", 502, UNAVAILABLE, 2, COUNTS, address="refused"),
    Fault("unknown host name", "connect", 502, UNAVAILABLE, 2, COUNTS, address="dns"),
    Fault("certificate that is not trusted", "connect", 502, UNAVAILABLE, 1, COUNTS, address="tls"),
    Fault("connection reset before an answer", "connect", 502, UNAVAILABLE, 2, COUNTS, [RESET]),
    Fault("connection closed before an answer", "connect", 502, UNAVAILABLE, 2, COUNTS, [CUT]),
    Fault("connection reset within the head", "connect", 502, UNAVAILABLE, 2, COUNTS, [PART, Pause(0.05), RESET]),
    Fault("a byte of the head at a time", "late", 504, TIMEOUT, 1, COUNTS, [PART, *(b"x", Pause(0.3)) * 40]),
    Fault("head of a mebibyte", "overloaded", 502, PROTOCOL, 2, COUNTS, [head("200 OK", "text/event-stream", f"x: {'y' * 2**20}")]),
    Fault("what is not HTTP", "overloaded", 502, PROTOCOL, 2, COUNTS, [b"SSH-2.0-OpenSSH\r\n", HANG]),
    Fault("idle connection that was closed", "ok", 200, "", 1, NOTHING, GOOD, "pooled", [*GOOD, CUT], moves_on=False),
    Fault(
        "idle connection closed while the request is sent",
        "ok",
        200,
        "",
        1,
        NOTHING,
        GOOD,
        "pooled",
        [*GOOD, STALE],
        moves_on=False,
    ),
    Fault("400", "invalid", 400, REJECTED, 1, NOTHING, refusing("400 Bad Request"), moves_on=False),
    Fault(
        "400 too long",
        "too_long",
        400,
        REJECTED,
        1,
        NOTHING,
        refusing("400 Bad Request", code="context_length_exceeded"),
        moves_on=False,
        own_code="context_length_exceeded",
    ),
    Fault(
        "400 content filter",
        "refused",
        400,
        REJECTED,
        1,
        NOTHING,
        refusing("400 Bad Request", code="content_filter"),
        moves_on=False,
        own_code="content_filter",
    ),
    Fault("401", "credentials", 502, CREDENTIALS, 1, TRIPS, refusing("401 Unauthorized")),
    Fault("402", "credentials", 502, CREDENTIALS, 1, TRIPS, refusing("402 Payment Required")),
    Fault("403", "credentials", 502, CREDENTIALS, 1, COUNTS, refusing("403 Forbidden")),
    Fault("404", "credentials", 502, CREDENTIALS, 1, TRIPS, refusing("404 Not Found")),
    Fault("408", "late", 504, TIMEOUT, 1, COUNTS, refusing("408 Request Timeout")),
    Fault("413", "invalid", 400, REJECTED, 1, NOTHING, refusing("413 Content Too Large"), moves_on=False),
    Fault("422", "invalid", 400, REJECTED, 1, NOTHING, refusing("422 Unprocessable Content"), moves_on=False),
    Fault(
        "429 with Retry-After 1", "rate_limited", 429, RATE_LIMITED, 2, COOLS, refusing("429 Too Many Requests", "retry-after: 1")
    ),
    Fault(
        "429 with Retry-After 300",
        "rate_limited",
        429,
        RATE_LIMITED,
        1,
        COOLS,
        refusing("429 Too Many Requests", "retry-after: 300"),
    ),
    Fault("429 without Retry-After", "rate_limited", 429, RATE_LIMITED, 2, COOLS, refusing("429 Too Many Requests")),
    Fault(
        "429 quota used up",
        "credentials",
        429,
        RATE_LIMITED,
        1,
        TRIPS,
        refusing("429 Too Many Requests", code="insufficient_quota"),
        own_code="insufficient_quota",
    ),
    Fault("500", "overloaded", 502, UNAVAILABLE, 2, COUNTS, refusing("500 Internal Server Error")),
    Fault("501", "overloaded", 502, UNAVAILABLE, 1, COUNTS, refusing("501 Not Implemented")),
    Fault("502 HTML", "overloaded", 502, UNAVAILABLE, 2, COUNTS, [answer(b"<html>x</html>", "502 Bad Gateway", "text/html")]),
    Fault("503", "overloaded", 502, UNAVAILABLE, 2, COUNTS, refusing("503 Service Unavailable")),
    Fault("529", "overloaded", 502, UNAVAILABLE, 2, COUNTS, refusing("529 Overloaded")),
    Fault("200 with nothing", "overloaded", 502, PROTOCOL, 2, COUNTS, [answer(b"")]),
    Fault("200 with an HTML page", "overloaded", 502, PROTOCOL, 2, COUNTS, [answer(b"<html>x</html>", "200 OK", "text/html")]),
    Fault("200 with an error", "overloaded", 502, UNAVAILABLE, 2, COUNTS, [answer(ERROR)]),
    Fault("200 with truncated JSON", "overloaded", 502, PROTOCOL, 2, COUNTS, [answer(b'{"choices": [{"mess')]),
    Fault("200 with less than its length", "overloaded", 502, PROTOCOL, 2, COUNTS, [answer(ERROR)[:-9], CUT]),
    Fault(
        "HTTP/1.0 with truncated JSON",
        "overloaded",
        502,
        PROTOCOL,
        2,
        COUNTS,
        [b"HTTP/1.0 200 OK\r\n\r\n", b'{"choices": [{"me', CUT],
    ),
    Fault(
        "200 with truncated gzip",
        "overloaded",
        502,
        PROTOCOL,
        2,
        COUNTS,
        [answer(gzip.compress(sse(delta("Well")))[:12], "200 OK", "text/event-stream", "content-encoding: gzip")],
    ),
    Fault("chunks of no size", "overloaded", 502, PROTOCOL, 2, COUNTS, [head(), b"zz\r\nxx\r\n", LAST]),
    Fault("informational answers first", "ok", 200, "", 1, NOTHING, [*HINTS, *GOOD], moves_on=False),
    Fault(
        "an error behind the end", "ok", 200, "", 1, NOTHING, [*GOOD[:-2], chunk(sse(STOP, "[DONE]", ERROR)), LAST], moves_on=False
    ),
    Fault("role chunk, then an error", "overloaded", 502, UNAVAILABLE, 2, COUNTS, [head(), ROLE, chunk(sse(ERROR)), LAST]),
    Fault(
        "role chunk, then a rate limit",
        "rate_limited",
        429,
        RATE_LIMITED,
        2,
        COOLS,
        [head(), ROLE, chunk(sse(BUSY)), LAST],
        own_code="rate_limit_exceeded",
    ),
    Fault("stream of no JSON", "overloaded", 502, PROTOCOL, 2, COUNTS, [head(), chunk(b"data: {no\n\n"), LAST]),
    Fault("cut before the first token", "overloaded", 502, PROTOCOL, 2, COUNTS, [head(), ROLE, CUT]),
    Fault("silent before the first token", "late", 504, TIMEOUT, 1, COUNTS, [head(), ROLE, HANG]),
    Fault("a byte at a time, and no token", "late", 504, TIMEOUT, 1, COUNTS, [head(), ROLE, *DRIP]),
    Fault("cut after the first token", "cut", 502, PROTOCOL, 2, COUNTS, [head(), HI, CUT], after_output=True),
    Fault(
        "error after the first token", "cut", 502, UNAVAILABLE, 2, COUNTS, [head(), HI, chunk(sse(ERROR)), LAST], after_output=True
    ),
    Fault(
        "rate limit after the first token",
        "cut",
        429,
        RATE_LIMITED,
        2,
        COOLS,
        [head(), HI, chunk(sse(BUSY)), LAST],
        after_output=True,
        own_code="rate_limit_exceeded",
    ),
    Fault("silent after the first token", "cut", 504, TIMEOUT, 1, COUNTS, [head(), HI, HANG], after_output=True),
)
