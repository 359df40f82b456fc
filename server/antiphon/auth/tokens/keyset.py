"""Parsing of an issuer's JWKS (RFC 7517) into the public keys that may verify tokens.

An unusable entry is skipped, as the RFC asks: an issuer may publish keys for other purposes and of unknown types. No I/O, and no
cryptography: the library does that.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from msgspec import Struct

from antiphon.config import PUBLIC_ALGORITHMS

MAX_BYTES: Final = 256 * 1024
"""The largest key set or discovery document, in bytes."""

MAX_KEYS: Final = 100
"""The most entries of a key set that are read."""

_RSA_BITS: Final = range(2048, 8192 + 1)
"""The accepted sizes of an RSA key, in bits: smaller is not safe, larger costs too much with every token."""

_PUBLIC_KINDS: Final = ("RSA", "EC", "OKP")
_SIGNING_CURVES: Final = ("Ed25519", "Ed448")
_SECRET_MEMBERS: Final = ("d", "k")


class KeysUnusable(Exception):
    """The issuer's answer is not a key set. The message gives the reason, and contains no part of the answer."""


class KeySet(Struct, frozen=True):
    """The keys that may verify tokens, and the number of entries that were ignored."""

    keys: tuple[Key, ...]
    ignored: int

    def find(self, kid: str | None) -> tuple[Key, ...]:
        """Return the keys with this id. A token without a `kid` matches only if there is a single key."""
        if kid is None:
            return self.keys if len(self.keys) == 1 else ()
        return tuple(key for key in self.keys if key.kid == kid)


def parse(data: bytes) -> KeySet:
    """Read a JWKS. One without a usable key is valid: the issuer has withdrawn all keys.

    Raises `KeysUnusable` if it is not a key set.
    """
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise KeysUnusable("not JSON") from None
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise KeysUnusable("not a key set")
    keys = tuple(key for key in map(_usable, entries[:MAX_KEYS]) if key is not None)
    return KeySet(keys, len(entries) - len(keys))


def _usable(entry: Any) -> Key | None:
    """Return the key of an entry if it is public, strong enough and meant for signatures, otherwise None."""
    if not isinstance(entry, dict) or entry.get("kty") not in _PUBLIC_KINDS:
        return None
    if any(member in entry for member in _SECRET_MEMBERS):  # a published secret is not secret
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about weak keys, which are rejected below
            key = JWKRegistry.import_key(entry)
        key.check_key_op("verify")
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAKey) and key.public_key.key_size not in _RSA_BITS:
        return None
    if isinstance(key, OKPKey) and key.curve_name not in _SIGNING_CURVES:
        return None
    # The entry's `use`, `alg`, type and curve must fit one of the accepted algorithms.
    return key if JWSRegistry.filter_algorithms(key, list(PUBLIC_ALGORITHMS)) else None
