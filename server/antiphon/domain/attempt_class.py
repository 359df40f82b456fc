"""The classes of attempts at a provider: one word for how an attempt ended, for metrics and traces. No I/O."""

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
    """The outcome of an attempt. The values appear in metrics and traces."""

    OK = "ok"
    CONNECT = "connect"
    """The provider could not be reached, or closed the connection before it answered."""
    OVERLOADED = "overloaded"
    """The provider answered with a server error, or against its protocol."""
    RATE_LIMITED = "rate_limited"
    CREDENTIALS = "credentials"
    """The provider refused the gateway's key, or does not have the model."""
    TOO_LONG = "too_long"
    """The request was longer than the model's context window."""
    INVALID = "invalid"
    """The provider rejected the request as invalid."""
    LATE = "late"
    """The provider timed out before it sent any output."""
    CUT = "cut"
    """The provider failed after the first output."""
    BLOCKED = "blocked"
    """A guard of the gateway ended the reply."""
    GONE = "gone"
    """The caller disconnected."""
    DEADLINE = "deadline"
    """The call's deadline passed."""
    STOPPING = "stopping"
    """The server stopped."""
    INTERNAL = "internal"
    """A bug in the gateway."""


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


def classify(error: BaseException | None, *, has_output: bool) -> AttemptClass:
    """Return the class of an attempt that ended with `error`; None: it succeeded. `has_output`: part of the reply had arrived."""
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
