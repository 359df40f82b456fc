"""Translates the exceptions of the HTTP client into errors of the domain: `raise_translated`. It is done nowhere else.

    TimeoutError                                              ProviderTimeout
    BadAnswer, BodyCut,
      HttpParserError, HttpParserUpgrade (of httptools),
      zlib.error, EOFError (of an encoded body)               ProviderProtocolError: not HTTP, or cut off
    OSError, all other `HttpFailure`s                         ProviderUnavailable

Once an answer has begun, everything but a time-out means that it was cut off: `ProviderProtocolError`. The reason why a host could
not be reached is logged for the operator, in the words of `reason_of`; the caller only gets what it may know.
"""

from __future__ import annotations

import os
import ssl
import zlib
from typing import Final, NoReturn

import structlog
from httptools import HttpParserError, HttpParserUpgrade

from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from antiphon.net.exceptions import (
    BadAnswer,
    BodyCut,
    CertificateNotTrusted,
    ConnectionLost,
    HttpFailure,
    NameNotResolved,
    NotConnected,
    ProxyRefused,
    ProxyUnreachable,
    TlsFailed,
)

PROXY_REFUSES: Final = 407
"""The status of a proxy that does not accept the credentials it was given: RFC 9110, section 15.5.8."""

_log: Final = structlog.get_logger(__name__)


# The order matters: `TimeoutError` is an `OSError` too, and the base of ours comes last.
_ERRORS: Final[tuple[tuple[type[ProviderError], tuple[type[Exception], ...]], ...]] = (
    (ProviderTimeout, (TimeoutError,)),
    (ProviderProtocolError, (BadAnswer, BodyCut, HttpParserError, HttpParserUpgrade, zlib.error, EOFError)),
    (ProviderUnavailable, (HttpFailure, OSError)),
)

HTTP_ERRORS: Final[tuple[type[Exception], ...]] = tuple(known for _, kinds in _ERRORS for known in kinds)
"""The exceptions that are translated. Any other is a bug, and passes through."""


def raise_translated(error: Exception, provider: str, *, begun: bool, logs: bool = True) -> NoReturn:
    """Raise `ProviderTimeout`, `ProviderProtocolError` or `ProviderUnavailable` for one of `HTTP_ERRORS`, which is its cause.

    `provider` is its name for the messages; `begun`: its answer has begun. `logs` False: whoever catches the error logs the reason,
    which `reason_of` says of its cause.
    """
    raise _translated(error, provider, begun=begun, logs=logs) from error


def _translated(error: Exception, provider: str, *, begun: bool, logs: bool) -> ProviderError:
    kind = error_for(type(error)) or ProviderUnavailable
    if kind is ProviderTimeout:
        return ProviderTimeout(f"The provider {provider} took too long.", provider=provider)
    if begun:
        return ProviderProtocolError(f"The provider {provider} broke off its reply.", provider=provider)
    if kind is ProviderProtocolError:
        return ProviderProtocolError(f"The provider {provider} does not answer in HTTP.", provider=provider)
    if logs:
        _log.warning("provider_out_of_reach", provider=provider, error=reason_of(error))
    if isinstance(error, ProxyRefused | ProxyUnreachable):
        return ProviderUnavailable(f"The provider {provider} is out of reach of the outbound proxy.", provider=provider)
    if isinstance(error, CertificateNotTrusted):
        # A retry cannot help: somebody must change something.
        return ProviderUnavailable(
            f"The provider {provider} shows a certificate that is not trusted.", provider=provider, retryable=False
        )
    return ProviderUnavailable(f"The provider {provider} is out of reach.", provider=provider)


def reason_of(error: BaseException | None) -> str:
    """Return the reason why a host could not be reached, for an operator. It contains a host's name at most, and no secret."""
    match error:
        case ProxyRefused(status=407):
            return "the outbound proxy does not take its user and password (407)"
        case ProxyRefused():
            return f"the outbound proxy answered {error.status}"
        case NameNotResolved():
            return f"the name {error.host} is not resolved"
        case CertificateNotTrusted():
            found = error.__cause__
            reason = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else type(found).__name__
            return f"TLS: the certificate of {error.host} is not trusted: {reason}"
        case TlsFailed():
            return f"TLS with {error.host} fails: {getattr(error.__cause__, 'reason', None) or type(error.__cause__).__name__}"
        case ProxyUnreachable():
            return f"the outbound proxy is out of reach: {_strerror(error.__cause__)}"
        case NotConnected():
            return f"no connection to {error.host}: {_strerror(error.__cause__)}"
        case ConnectionLost() | ConnectionError():
            return "the connection was closed before an answer"
        case _:
            return type(error).__name__


def _strerror(error: BaseException | None) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else type(error).__name__


def error_for(kind: type[BaseException]) -> type[ProviderError] | None:
    """Return the error for an exception before the first byte of an answer; None for an unknown exception."""
    return next((error for error, known in _ERRORS if issubclass(kind, known)), None)
