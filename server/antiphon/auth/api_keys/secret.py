"""What an API key is: how it is made, known from other words, and kept.

A key of our own making is `sk-ap-`, 256 bits of chance and eight digits of a checksum, so that what is none is known without asking
anybody. Only its SHA-256 is ever kept: there is nothing in it to guess, so a slower digest would gain nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from typing import Final

from pydantic import SecretStr

_MADE: Final = re.compile(r"sk-ap-([A-Za-z0-9_-]{43})([0-9a-f]{8})", re.ASCII)


def new_key() -> SecretStr:
    """A new key."""
    chance = secrets.token_urlsafe(32)
    return SecretStr(f"sk-ap-{chance}{zlib.crc32(chance.encode()):08x}")


def is_made_here(credential: str) -> bool:
    """Whether this has the form of `new_key`'s: by anyone's, but not by chance, nor after a slip of the keyboard."""
    found = _MADE.fullmatch(credential)
    return found is not None and int(found[2], 16) == zlib.crc32(found[1].encode())


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
