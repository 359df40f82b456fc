"""What providers do wrong, and what callers get then: the rows of a test, and of docs/reference/faults.md.

Each fault is scripted for `tests.odd_upstream.OddUpstream`, or is one of the connection.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.odd_upstream import CUT, HANG, LAST, RESET, Step, answer, chunk, delta, head, sse

ERROR: Final = {"error": {"message": "x", "type": "server_error"}}
BUSY: Final = {"error": {"message": "x", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}


def refusing(status: str, *headers: str, **error: str) -> list[Step]:
    return [answer({"error": {"message": "x", **error}}, status, "application/json", *headers)]


ROLE: Final = chunk(sse(delta(role="assistant")))
HI: Final = chunk(sse(delta("Hi")))


class Fault(NamedTuple):
    """One thing that a provider does wrong. `status` and `tries` are for a route with one deployment and at most two attempts."""

    name: str
    outcome: str
    """The class of the attempt."""
    status: int
    tries: int
    steps: Sequence[Step] = ()
    address: str = ""
    """Instead of a script: "refused", "dns" or "tls"."""
    moves_on: bool = True
    """With a second deployment, that one answers."""
    after_output: bool = False
    """A streamed reply has begun, so the stream ends with an error, and nothing is tried again."""


FAULTS: Final = (
    Fault("connection refused", "connect", 502, 2, address="refused"),
    Fault("unknown host name", "connect", 502, 2, address="dns"),
    Fault("certificate that is not trusted", "connect", 502, 1, address="tls"),
    Fault("connection reset before an answer", "connect", 502, 2, [RESET]),
    Fault("connection closed before an answer", "connect", 502, 2, [CUT]),
    Fault("400", "invalid", 400, 1, refusing("400 Bad Request"), moves_on=False),
    Fault("400 too long", "too_long", 400, 1, refusing("400 Bad Request", code="context_length_exceeded"), moves_on=False),
    Fault("400 content filter", "refused", 400, 1, refusing("400 Bad Request", code="content_filter"), moves_on=False),
    Fault("401", "credentials", 502, 1, refusing("401 Unauthorized")),
    Fault("402", "credentials", 502, 1, refusing("402 Payment Required")),
    Fault("403", "credentials", 502, 1, refusing("403 Forbidden")),
    Fault("404", "credentials", 502, 1, refusing("404 Not Found")),
    Fault("408", "late", 504, 1, refusing("408 Request Timeout")),
    Fault("413", "invalid", 400, 1, refusing("413 Content Too Large"), moves_on=False),
    Fault("422", "invalid", 400, 1, refusing("422 Unprocessable Content"), moves_on=False),
    Fault("429 with Retry-After 1", "rate_limited", 429, 2, refusing("429 Too Many Requests", "retry-after: 1")),
    Fault("429 with Retry-After 300", "rate_limited", 429, 1, refusing("429 Too Many Requests", "retry-after: 300")),
    Fault("429 without Retry-After", "rate_limited", 429, 2, refusing("429 Too Many Requests")),
    Fault("429 quota used up", "credentials", 429, 1, refusing("429 Too Many Requests", code="insufficient_quota")),
    Fault("500", "overloaded", 502, 2, refusing("500 Internal Server Error")),
    Fault("501", "overloaded", 502, 1, refusing("501 Not Implemented")),
    Fault("502 HTML", "overloaded", 502, 2, [answer(b"<html>x</html>", "502 Bad Gateway", "text/html")]),
    Fault("503", "overloaded", 502, 2, refusing("503 Service Unavailable")),
    Fault("529", "overloaded", 502, 2, refusing("529 Overloaded")),
    Fault("200 with nothing", "overloaded", 502, 2, [answer(b"")]),
    Fault("200 with an HTML page", "overloaded", 502, 2, [answer(b"<html>x</html>", "200 OK", "text/html")]),
    Fault("200 with an error", "overloaded", 502, 2, [answer(ERROR)]),
    Fault("200 with truncated JSON", "overloaded", 502, 2, [answer(b'{"choices": [{"mess')]),
    Fault("role chunk, then an error", "overloaded", 502, 2, [head(), ROLE, chunk(sse(ERROR)), LAST]),
    Fault("role chunk, then a rate limit", "rate_limited", 429, 2, [head(), ROLE, chunk(sse(BUSY)), LAST]),
    Fault("stream of no JSON", "overloaded", 502, 2, [head(), chunk(b"data: {no\n\n"), LAST]),
    Fault("cut before the first token", "overloaded", 502, 2, [head(), ROLE, CUT]),
    Fault("silent before the first token", "late", 504, 1, [head(), ROLE, HANG]),
    Fault("cut after the first token", "cut", 502, 2, [head(), HI, CUT], after_output=True),
    Fault("error after the first token", "cut", 502, 2, [head(), HI, chunk(sse(ERROR)), LAST], after_output=True),
    Fault("rate limit after the first token", "cut", 429, 2, [head(), HI, chunk(sse(BUSY)), LAST], after_output=True),
    Fault("silent after the first token", "cut", 504, 1, [head(), HI, HANG], after_output=True),
)
