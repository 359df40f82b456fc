"""Translates the exceptions of the HTTP client into errors of the domain: `raise_translated`. It is done nowhere else.

    TimeoutError                                              ProviderTimeout
    ClientResponseError, ClientPayloadError, HttpProcessingError,
      HttpParserError, HttpParserUpgrade (of httptools),
      zlib.error, EOFError (of an encoded body)               ProviderProtocolError: not HTTP, or cut off
    ClientConnectionError, InvalidURL, OSError,
      ProxyRefused, all others                                ProviderUnavailable

Once an answer has begun, everything but a time-out means that it was cut off: `ProviderProtocolError`. The reason why a host could
not be reached is logged for the operator, in the words of `reason_of`; the caller only gets what it may know.
"""

from __future__ import annotations

import os
import ssl
import zlib
from typing import Final, NoReturn

import aiohttp
import structlog
from aiohttp import http_exceptions
from httptools import HttpParserError, HttpParserUpgrade

from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable

PROXY_REFUSES: Final = 407
"""The status of a proxy that does not accept the credentials it was given: RFC 9110, section 15.5.8."""

_log: Final = structlog.get_logger(__name__)


class ProxyRefused(aiohttp.ClientConnectionError):
    """The outbound proxy answered a request itself, with this status. Contains nothing of the request that it was sent."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the outbound proxy answered {status}")
        self.status = status


# The order matters: aiohttp's time-outs are connection errors too.
_ERRORS: Final[tuple[tuple[type[ProviderError], tuple[type[Exception], ...]], ...]] = (
    (ProviderTimeout, (TimeoutError,)),
    (
        ProviderProtocolError,
        (
            aiohttp.ClientPayloadError,
            aiohttp.ClientResponseError,
            http_exceptions.HttpProcessingError,
            HttpParserError,
            HttpParserUpgrade,
            zlib.error,
            EOFError,
        ),
    ),
    (
        ProviderUnavailable,
        (
            aiohttp.ClientConnectionError,
            aiohttp.InvalidURL,
            aiohttp.NonHttpUrlClientError,
            aiohttp.RedirectClientError,
            aiohttp.UploadAbortedError,
            OSError,
        ),
    ),
)

HTTP_ERRORS: Final[tuple[type[Exception], ...]] = (aiohttp.ClientError, *(known for _, kinds in _ERRORS for known in kinds))
"""The exceptions that are translated. Any other is a bug, and passes through."""


def raise_translated(error: Exception, provider: str, *, begun: bool, logs: bool = True) -> NoReturn:
    """Raise `ProviderTimeout`, `ProviderProtocolError` or `ProviderUnavailable` for one of `HTTP_ERRORS`, which is its cause.

    `provider` is its name for the messages; `begun`: its answer has begun. `logs` False: whoever catches the error logs the reason,
    which `reason_of` says of its cause.
    """
    # aiohttp's own exception contains the request to the proxy, with its password.
    cause = ProxyRefused(error.status) if isinstance(error, aiohttp.ClientHttpProxyError) else error
    raise _translated(cause, provider, begun=begun, logs=logs) from cause


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
    if isinstance(error, ProxyRefused | aiohttp.ClientProxyConnectionError):
        return ProviderUnavailable(f"The provider {provider} is out of reach of the outbound proxy.", provider=provider)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
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
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} is not resolved"
        case aiohttp.ClientConnectorCertificateError():
            found = error.certificate_error
            reason = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else type(found).__name__
            return f"TLS: the certificate of {error.host} is not trusted: {reason}"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS with {error.host} fails: {getattr(error.os_error, 'reason', None) or type(error.os_error).__name__}"
        case aiohttp.ClientProxyConnectionError():
            return f"the outbound proxy is out of reach: {_strerror(error.os_error)}"
        case aiohttp.ClientConnectorError():
            return f"no connection to {error.host}: {_strerror(error.os_error)}"
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "the connection was closed before an answer"
        case _:
            return type(error).__name__


def _strerror(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else type(error).__name__


def error_for(kind: type[BaseException]) -> type[ProviderError] | None:
    """Return the error for an exception before the first byte of an answer; None for an unknown exception."""
    return next((error for error, known in _ERRORS if issubclass(kind, known)), None)
