"""The classes of attempts at a provider: one word for how an attempt ended, for metrics and traces. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
    Rejection,
    ShuttingDown,
    Unsupported,
)


class AttemptClass(StrEnum):
    """The outcome of an attempt. The values appear in metrics and traces."""

    OK = "ok"
    CONNECT = "connect"
    """The provider could not be reached, or closed the connection before it answered."""
    OVERLOADED = "overloaded"
    """The provider answered with a server error, or against its protocol."""
    RATE_LIMITED = "rate_limited"
    CREDENTIALS = "credentials"
    """The provider refused the gateway's key, its quota is used up, or it does not have the model."""
    TOO_LONG = "too_long"
    """The request was longer than the model's context window."""
    REFUSED = "refused"
    """A content filter of the provider rejected the request, or the model refused to answer."""
    STATE = "state"
    """The provider could not verify a signature or encrypted content in the request."""
    UNSUPPORTED = "unsupported"
    """The provider's model or its protocol lacks something that the request needs. Nothing was sent in the latter case."""
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


_BY_REJECTION: Final[Mapping[Rejection, AttemptClass]] = {
    Rejection.INVALID: AttemptClass.INVALID,
    Rejection.TOO_LONG: AttemptClass.TOO_LONG,
    Rejection.REFUSED: AttemptClass.REFUSED,
    Rejection.STATE: AttemptClass.STATE,
    Rejection.UNSUPPORTED: AttemptClass.UNSUPPORTED,
}

_BY_TYPE: Final[tuple[tuple[type[BaseException], AttemptClass], ...]] = (
    (asyncio.CancelledError, AttemptClass.GONE),
    (GeneratorExit, AttemptClass.GONE),
    (DeadlineExceeded, AttemptClass.DEADLINE),
    (ShuttingDown, AttemptClass.STOPPING),
    (ContentBlocked, AttemptClass.BLOCKED),
    (Unsupported, AttemptClass.UNSUPPORTED),
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
            return _BY_REJECTION[error.rejection]
        case ProviderError() if has_output:
            return AttemptClass.CUT
        case ProviderRateLimited(retryable=False):
            return AttemptClass.CREDENTIALS
        case ProviderUnavailable(status=None, was_reached=False):
            return AttemptClass.CONNECT
        case ProviderUnavailable():
            return AttemptClass.OVERLOADED
        case _:
            return next((found for kind, found in _BY_TYPE if isinstance(error, kind)), AttemptClass.INTERNAL)
