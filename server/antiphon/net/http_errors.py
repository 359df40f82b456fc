"""Turns the exceptions of the HTTP client into errors of the domain, in one place: `UpstreamErrors`.

    TimeoutError                                              ProviderTimeout
    ClientResponseError, ClientPayloadError, HttpProcessingError,
      zlib.error, EOFError (of an encoded body)               ProviderProtocolError: it is no HTTP, or it is cut
    ClientConnectionError, InvalidURL, OSError, all others    ProviderUnavailable

Once an answer has begun, whatever is no time-out is a cut: `ProviderProtocolError`.
"""

from __future__ import annotations

import zlib
from types import TracebackType
from typing import Final

import aiohttp
from aiohttp import http_exceptions

from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable

# In this order: aiohttp's time-outs are connection errors too.
_MEANINGS: Final[tuple[tuple[type[ProviderError], tuple[type[Exception], ...]], ...]] = (
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

_MAPPED: Final[tuple[type[Exception], ...]] = (aiohttp.ClientError, *(known for _, kinds in _MEANINGS for known in kinds))
"""What is turned into an error of the domain. All else is a defect, and passes."""


class UpstreamErrors:
    """A context manager around what the HTTP client does. It may be entered again and again, as once for each read of a body."""

    __slots__ = ("_begun", "_provider")

    def __init__(self, provider: str, *, begun: bool) -> None:
        """Take the name that the errors tell, and whether the answer has begun, so that a lost connection is a cut."""
        self._provider = provider
        self._begun = begun

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raise `ProviderTimeout`, `ProviderProtocolError` or `ProviderUnavailable` for what the HTTP client raised."""
        if isinstance(error, _MAPPED):
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> ProviderError:
        provider = self._provider
        kind = meaning(type(error)) or ProviderUnavailable
        if kind is ProviderTimeout:
            return ProviderTimeout(f"The provider {provider} took too long.", provider=provider)
        if self._begun:
            return ProviderProtocolError(f"The provider {provider} broke off its reply.", provider=provider)
        if kind is ProviderProtocolError:
            return ProviderProtocolError(f"The provider {provider} does not answer in HTTP.", provider=provider)
        return ProviderUnavailable(f"The provider {provider} is out of reach.", provider=provider)


def meaning(kind: type[BaseException]) -> type[ProviderError] | None:
    """Return what an exception means before the first byte of an answer; None for one that is not known."""
    return next((ours for ours, known in _MEANINGS if issubclass(kind, known)), None)
