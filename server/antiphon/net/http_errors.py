"""Translates the exceptions of the HTTP client into errors of the domain: `UpstreamErrors`. It is done nowhere else.

    TimeoutError                                              ProviderTimeout
    ClientResponseError, ClientPayloadError, HttpProcessingError,
      zlib.error, EOFError (of an encoded body)               ProviderProtocolError: not HTTP, or cut off
    ClientConnectionError, InvalidURL, OSError, all others    ProviderUnavailable

Once an answer has begun, everything but a time-out means that it was cut off: `ProviderProtocolError`.
"""

from __future__ import annotations

import zlib
from types import TracebackType
from typing import Final

import aiohttp
from aiohttp import http_exceptions

from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable

# The order matters: aiohttp's time-outs are connection errors too.
_ERRORS: Final[tuple[tuple[type[ProviderError], tuple[type[Exception], ...]], ...]] = (
    (ProviderTimeout, (TimeoutError,)),
    (
        ProviderProtocolError,
        (
            aiohttp.ClientPayloadError,
            aiohttp.ClientResponseError,
            http_exceptions.HttpProcessingError,
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

_MAPPED: Final[tuple[type[Exception], ...]] = (aiohttp.ClientError, *(known for _, kinds in _ERRORS for known in kinds))
"""The exceptions that are translated. Any other is a bug, and passes through."""


class UpstreamErrors:
    """A context manager around calls of the HTTP client. It can be entered repeatedly, such as for each read of a body."""

    __slots__ = ("_begun", "_provider")

    def __init__(self, provider: str, *, begun: bool) -> None:
        """Take the provider's name for the messages, and whether its answer has begun."""
        self._provider = provider
        self._begun = begun

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raise `ProviderTimeout`, `ProviderProtocolError` or `ProviderUnavailable` for an exception of the HTTP client."""
        if isinstance(error, _MAPPED):
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> ProviderError:
        provider = self._provider
        kind = error_for(type(error)) or ProviderUnavailable
        if kind is ProviderTimeout:
            return ProviderTimeout(f"The provider {provider} took too long.", provider=provider)
        if self._begun:
            return ProviderProtocolError(f"The provider {provider} broke off its reply.", provider=provider)
        if kind is ProviderProtocolError:
            return ProviderProtocolError(f"The provider {provider} does not answer in HTTP.", provider=provider)
        return ProviderUnavailable(f"The provider {provider} is out of reach.", provider=provider)


def error_for(kind: type[BaseException]) -> type[ProviderError] | None:
    """Return the error for an exception before the first byte of an answer; None for an unknown exception."""
    return next((error for error, known in _ERRORS if issubclass(kind, known)), None)
