"""The exceptions of the HTTP client. `antiphon.net.http_errors` translates them, with those of the libraries below it.

- HttpFailure
    - InvalidTarget: a URL that is not of HTTP, or has no host
    - NotConnected: no connection could be made; `host` and the cause say more
        - NameNotResolved, CertificateNotTrusted, TlsFailed, ProxyUnreachable
    - ProxyRefused: the outbound proxy answered a request itself
    - ConnectionLost: the host closed the connection before it answered
    - ConnectionDropped: the reader of an answer did
    - BadAnswer: what came is not HTTP, or too much of it is no body
    - BodyCut: the connection was closed in the middle of a body
"""

from __future__ import annotations


class HttpFailure(Exception):
    """The base of all exceptions that the HTTP client itself raises."""


class InvalidTarget(HttpFailure):
    """The URL is not of HTTP, or has no host."""


class NotConnected(HttpFailure):
    """No connection to `host` could be made. The cause is the `OSError` of the last address that was tried."""

    def __init__(self, host: str) -> None:
        super().__init__(f"no connection to {host}")
        self.host = host


class NameNotResolved(NotConnected):
    """The name `host` has no address."""


class CertificateNotTrusted(NotConnected):
    """The certificate of `host` is not signed by a trusted authority, has another name, or is out of date."""


class TlsFailed(NotConnected):
    """TLS with `host` failed for another reason."""


class ProxyUnreachable(NotConnected):
    """No connection to the outbound proxy `host` could be made."""


class ProxyRefused(HttpFailure):
    """The outbound proxy answered a request itself, with this status. Contains nothing of the request that it was sent."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the outbound proxy answered {status}")
        self.status = status


class ConnectionLost(HttpFailure):
    """The connection was closed or reset before an answer began."""


class ConnectionDropped(HttpFailure):
    """The reader of an answer has dropped its connection."""


class BadAnswer(HttpFailure):
    """The answer is not HTTP, or too much of it is no body."""


class BodyCut(HttpFailure):
    """The connection was closed before the end of a body."""
