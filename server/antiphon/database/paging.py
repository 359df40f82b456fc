"""Page tokens: the position in a list at which the next page starts.

Tokens are opaque to callers and safe in a URL. They are not signed: whatever a token contains, a query stays within its owner.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeVar

import msgspec

from antiphon.database import text
from antiphon.domain.errors import InvalidRequest

Token = TypeVar("Token", bound=msgspec.Struct)


def token(value: msgspec.Struct) -> str:
    """Return the token for a position."""
    return urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def read_token(written: str, kind: type[Token]) -> Token:
    """Return the position in a token. Raises `InvalidRequest` for a token that was not issued here, or for another list."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(written + "=" * (-len(written) % 4)), type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise bad_token() from None


def bad_token() -> InvalidRequest:
    """Return the error for a page token that this list did not issue."""
    return text.bad(("page_token",), "is not one that this list gave")
