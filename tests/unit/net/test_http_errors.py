"""Tests of the translation of the HTTP client's exceptions."""

import inspect
import zlib

import aiohttp
import httptools
import pytest
from aiohttp import client_exceptions, http_exceptions

from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from antiphon.net.http_errors import HTTP_ERRORS, error_for, raise_translated

NEVER = {
    # a base class; only its subclasses are raised
    aiohttp.ClientError,
    # for WebSockets, which are not used
    aiohttp.WSMessageTypeError,
}


def exceptions(module: object) -> set[type[Exception]]:
    return {
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and not issubclass(found, Warning)
    }


def test_every_exception_of_the_client_is_mapped() -> None:
    """Every exception class of aiohttp is mapped, by itself or by a base class, or is listed as never raised."""
    known = exceptions(client_exceptions) | exceptions(http_exceptions)
    assert len(known) > 30
    unmapped = {found for found in known - NEVER if found.__module__.startswith("aiohttp") and error_for(found) is None}
    assert not unmapped
    assert all(error_for(found) is ProviderProtocolError for found in exceptions(httptools))
    assert all(error_for(found) is None for found in NEVER), "only what has no meaning is excused"


def mapped(error: Exception, *, begun: bool) -> type[ProviderError]:
    assert isinstance(error, HTTP_ERRORS)
    with pytest.raises(ProviderError) as raised:
        raise_translated(error, "acme", begun=begun)
    assert raised.value.provider == "acme"
    assert raised.value.__cause__ is error
    return type(raised.value)


def test_a_dropped_connection_is_no_time_out() -> None:
    """A dropped connection is `ProviderUnavailable` before the answer and `ProviderProtocolError` in it.

    Only silence is `ProviderTimeout`.
    """
    for lost in (aiohttp.ServerDisconnectedError(), aiohttp.ClientOSError(104, "reset"), aiohttp.ClientConnectionResetError()):
        assert mapped(lost, begun=False) is ProviderUnavailable
        assert mapped(lost, begun=True) is ProviderProtocolError
    for late in (aiohttp.ConnectionTimeoutError(), aiohttp.SocketTimeoutError(), TimeoutError()):
        assert mapped(late, begun=False) is ProviderTimeout
        assert mapped(late, begun=True) is ProviderTimeout
    for broken in (http_exceptions.BadHttpMessage("x"), aiohttp.ClientPayloadError(), zlib.error(), EOFError()):
        assert mapped(broken, begun=False) is ProviderProtocolError
        assert mapped(broken, begun=True) is ProviderProtocolError


def test_an_exception_that_is_not_known_is_out_of_reach() -> None:
    """An unknown exception of aiohttp is translated by its base class; an exception of other code is not translated."""

    class New(aiohttp.ClientError):
        pass

    assert mapped(New(), begun=False) is ProviderUnavailable
    assert mapped(New(), begun=True) is ProviderProtocolError
    assert not issubclass(KeyError, HTTP_ERRORS)
