"""The format of API keys: how they are generated, recognised and stored.

A generated key is `sk-ap-`, 256 random bits and a checksum of eight hexadecimal digits, so other strings are rejected without a
look-up. Only a key's SHA-256 is stored. A key is random and cannot be guessed, so a slower digest would add nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from typing import Final

from pydantic import SecretStr

_FORMAT: Final = re.compile(r"sk-ap-([A-Za-z0-9_-]{43})([0-9a-f]{8})", re.ASCII)


def new_key() -> SecretStr:
    """Return a new random key."""
    random = secrets.token_urlsafe(32)
    return SecretStr(f"sk-ap-{random}{zlib.crc32(random.encode()):08x}")


def is_well_formed(credential: str) -> bool:
    """Return whether a credential has the format of `new_key`. A mistyped key does not; a forged one may."""
    found = _FORMAT.fullmatch(credential)
    return found is not None and int(found[2], 16) == zlib.crc32(found[1].encode())


def digest(key: str) -> bytes:
    """Return the digest under which a key is stored."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
