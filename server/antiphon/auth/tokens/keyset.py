"""The public keys of one issuer, as its JWKS (RFC 7517) has them: read, and those left out that no token may be checked with.

An entry that is not usable is passed over, as the document wants it: an issuer may publish keys for other ends, and of kinds that
are not known here. No I/O, and no cryptography: that is the library's.
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
"""The largest that a key set, or a discovery document, may be."""

MAX_KEYS: Final = 100
"""As many entries of it are looked at."""

_RSA_BITS: Final = range(2048, 8192 + 1)
"""Fewer are not safe; more cost too much with every token."""

_PUBLIC_KINDS: Final = ("RSA", "EC", "OKP")
_SIGNING_CURVES: Final = ("Ed25519", "Ed448")
_SECRET_MEMBERS: Final = ("d", "k")


class KeysUnusable(Exception):
    """What the issuer gave is no key set; the message tells why, and holds nothing of it."""


class KeySet(Struct, frozen=True):
    """The keys that tokens may be checked with, and how many others there were."""

    keys: tuple[Key, ...]
    ignored: int

    def find(self, kid: str | None) -> tuple[Key, ...]:
        """Those of this id. A token that names none can only mean the one key that there is."""
        if kid is None:
            return self.keys if len(self.keys) == 1 else ()
        return tuple(key for key in self.keys if key.kid == kid)


def parse(data: bytes) -> KeySet:
    """Reads a JWKS. One without any usable key is good too: it says that the issuer has withdrawn them all.

    Raises `KeysUnusable`.
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
    """The key of an entry, if it is public, strong enough and meant for signatures."""
    if not isinstance(entry, dict) or entry.get("kty") not in _PUBLIC_KINDS:
        return None
    if any(member in entry for member in _SECRET_MEMBERS):  # a secret that was published is none any more
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weak keys, which are left out below
            key = JWKRegistry.import_key(entry)
        key.check_key_op("verify")
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAKey) and key.public_key.key_size not in _RSA_BITS:
        return None
    if isinstance(key, OKPKey) and key.curve_name not in _SIGNING_CURVES:
        return None
    # Its own `use`, `alg`, kind and curve have to fit one of them.
    return key if JWSRegistry.filter_algorithms(key, list(PUBLIC_ALGORITHMS)) else None
