"""Tests of the translation of the HTTP client's exceptions."""

import inspect
import zlib

import httptools
import pytest

from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from antiphon.net import exceptions
from antiphon.net.exceptions import BadAnswer, BodyCut, ConnectionLost, HttpFailure
from antiphon.net.http_errors import HTTP_ERRORS, error_for, raise_translated


def exceptions_of(module: object) -> set[type[Exception]]:
    return {found for _, found in inspect.getmembers(module, inspect.isclass) if issubclass(found, Exception)}


def test_every_exception_of_the_client_is_mapped() -> None:
    """Every exception class of the client and of its parser is mapped, by itself or by a base class."""
    known = exceptions_of(exceptions) - {HttpFailure}
    assert len(known) > 8
    broken = {found for found in known if error_for(found) is ProviderProtocolError}
    assert broken == {BadAnswer, BodyCut}
    assert all(error_for(found) is ProviderUnavailable for found in known - broken)
    assert all(error_for(found) is ProviderProtocolError for found in exceptions_of(httptools))


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
    for lost in (ConnectionLost(), ConnectionResetError(104, "reset"), OSError()):
        assert mapped(lost, begun=False) is ProviderUnavailable
        assert mapped(lost, begun=True) is ProviderProtocolError
    assert mapped(TimeoutError(), begun=False) is ProviderTimeout
    assert mapped(TimeoutError(), begun=True) is ProviderTimeout
    for broken in (BadAnswer("x"), BodyCut(), zlib.error(), EOFError()):
        assert mapped(broken, begun=False) is ProviderProtocolError
        assert mapped(broken, begun=True) is ProviderProtocolError


def test_an_exception_that_is_not_known_is_out_of_reach() -> None:
    """An unknown exception of the client is translated by its base class; an exception of other code is not translated."""

    class New(HttpFailure):
        pass

    assert mapped(New(), begun=False) is ProviderUnavailable
    assert mapped(New(), begun=True) is ProviderProtocolError
    assert not issubclass(KeyError, HTTP_ERRORS)
