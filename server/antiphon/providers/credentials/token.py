"""The interface of sources of access tokens. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct


class AccessToken(Struct, frozen=True):
    """A bearer token. It is a secret, so its representation does not show it."""

    value: str
    lifetime: float
    """Seconds for which it is valid, counted from the start of its fetch."""

    def __repr__(self) -> str:
        return f"AccessToken({len(self.value)} characters, lifetime={self.lifetime:.0f})"

    __str__ = __repr__


class TokenFailed(Exception):
    """A token could not be fetched. The message is for the log: it has the reason, and no secret, address or text of an answer.

    `refused`: the credentials are wrong, and another try is useless. `retry_after`: seconds, if the endpoint named any.
    """

    def __init__(self, message: str, *, refused: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.refused = refused
        self.retry_after = retry_after


class TokenSource(Protocol):
    """Fetches tokens of one identity."""

    headers: Mapping[str, str]
    """Sent with each call beside the token."""

    async def fetch(self) -> AccessToken:
        """Return a new token, from one try. Raises `TokenFailed`. The caller must limit the time."""
        ...
