"""Page tokens: where a page of a list ended, for the next one to go on from.

Opaque to callers, and safe in a URL. Not signed: whatever one says, a query stays within its owner.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeVar

import msgspec

from antiphon.database import text
from antiphon.domain.errors import InvalidRequest

Token = TypeVar("Token", bound=msgspec.Struct)


def token(value: msgspec.Struct) -> str:
    """The token that says `value`."""
    return urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def read_token(written: str, kind: type[Token]) -> Token:
    """What a token says. Raises `InvalidRequest` for one that is not ours, or of another list."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(written + "=" * (-len(written) % 4)), type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise bad_token() from None


def bad_token() -> InvalidRequest:
    """What is raised for a page token that is not of this list."""
    return text.bad(("page_token",), "is not one that this list gave")
