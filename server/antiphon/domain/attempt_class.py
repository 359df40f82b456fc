"""The classes of attempts at a provider: how one ended, in a word. No I/O."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Final

from antiphon.domain.errors import (
    ContentBlocked,
    DeadlineExceeded,
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    ShuttingDown,
)

_TOO_LONG: Final = "context_length_exceeded"


class AttemptClass(StrEnum):
    """How an attempt ended."""

    OK = "ok"
    CONNECT = "connect"
    """The provider could not be reached, or broke off before it answered."""
    OVERLOADED = "overloaded"
    """It answered with an error of its own, or not in its protocol."""
    RATE_LIMITED = "rate_limited"
    CREDENTIALS = "credentials"
    """It refused our key, or does not have the model."""
    TOO_LONG = "too_long"
    """More than the model's context holds."""
    INVALID = "invalid"
    """It refused the request as such."""
    LATE = "late"
    """Nothing came of the reply in the time that the provider has."""
    CUT = "cut"
    """The reply broke off."""
    BLOCKED = "blocked"
    """A guard of ours ended the reply."""
    GONE = "gone"
    """The caller left."""
    DEADLINE = "deadline"
    """The caller's time was over."""
    STOPPING = "stopping"
    """The server stopped."""
    INTERNAL = "internal"
    """A fault of ours."""


_BY_TYPE: Final[tuple[tuple[type[BaseException], AttemptClass], ...]] = (
    (asyncio.CancelledError, AttemptClass.GONE),
    (GeneratorExit, AttemptClass.GONE),
    (DeadlineExceeded, AttemptClass.DEADLINE),
    (ShuttingDown, AttemptClass.STOPPING),
    (ContentBlocked, AttemptClass.BLOCKED),
    (ProviderRateLimited, AttemptClass.RATE_LIMITED),
    (ProviderCredentials, AttemptClass.CREDENTIALS),
    (ProviderTimeout, AttemptClass.LATE),
    (ProviderProtocolError, AttemptClass.OVERLOADED),
)


def class_of(error: BaseException | None, *, has_output: bool) -> AttemptClass:
    """Return the class of an attempt that `error` ended; `has_output`: something of the reply had come."""
    match error:
        case None:
            return AttemptClass.OK
        case ProviderRejected():
            return AttemptClass.TOO_LONG if error.code == _TOO_LONG else AttemptClass.INVALID
        case ProviderError() if has_output:
            return AttemptClass.CUT
        case ProviderUnavailable():
            return AttemptClass.CONNECT if error.status is None else AttemptClass.OVERLOADED
        case _:
            return next((found for kind, found in _BY_TYPE if isinstance(error, kind)), AttemptClass.INTERNAL)
