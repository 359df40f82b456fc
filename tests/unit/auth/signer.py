"""A token issuer for tests: real keys, and tokens with any header, claims and signature."""

import base64
import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from antiphon.config import IssuerConfig

ISSUER = "https://id.test"
AUDIENCE = "antiphon"
SECRET = "a-secret-of-thirty-two-bytes-or-more"  # noqa: S105 - used by tests only


@cache
def key(name: str) -> Key:
    """Return the key of this name, the same object each time. A name is a kind and a number, such as `rsa-1`."""
    match name.split("-", maxsplit=1)[0]:
        case "rsa":
            return RSAKey.generate_key(2048, {"kid": name})
        case "short":
            raw = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be refused
            return RSAKey(raw, raw, {"kid": name})
        case "ec":
            return ECKey.generate_key("P-256", {"kid": name})
        case "ec384":
            return ECKey.generate_key("P-384", {"kid": name})
        case "ec521":
            return ECKey.generate_key("P-521", {"kid": name})
        case "ed":
            return OKPKey.generate_key("Ed25519", {"kid": name})
        case "ed448":
            return OKPKey.generate_key("Ed448", {"kid": name})
        case "x":
            return OKPKey.generate_key("X25519", {"kid": name})
        case _:
            return OctKey.import_key(SECRET.encode(), {"kid": name})


def entry(name: str, **members: Any) -> dict[str, Any]:
    """Return the public half of a key as a JWKS entry. `members` replace its members, and None removes one."""
    found = key(name).as_dict(private=False) | members
    return {member: value for member, value in found.items() if value is not None}


def jwks(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": entries}).encode()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def at(seconds: float) -> Callable[[int], Any]:
    """Return a claim value: a function that adds `seconds` to the time at which the token is made."""
    return lambda now: now + seconds


def claims(**more: Any) -> dict[str, Any]:
    """Return valid claims. `more` replaces some of them, and None removes one."""
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300, "scope": "openid email profile"} | more
    return {claim: value(now) if callable(value) else value for claim, value in found.items() if value is not None}


def sign(payload: dict[str, Any] | bytes, by: str = "rsa-1", alg: str = "RS256", /, header: Any = None, **more: Any) -> str:
    """Return a token with these claims, signed with the key `by`.

    `header` replaces the whole header, `more` replaces members of it, and None removes one.
    """
    usual = {"alg": alg, "typ": "JWT", "kid": by} | more
    head = {name: value for name, value in usual.items() if value is not None} if header is None else header
    first = head if isinstance(head, bytes) else json.dumps(head).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"{b64(first)}.{b64(body)}"
    return f"{signed}.{b64(JWSRegistry.algorithms[alg].sign(signed.encode(), key(by)))}"


def config(**more: Any) -> IssuerConfig:
    return IssuerConfig(**{"name": "corp", "issuer": ISSUER, "audience": AUDIENCE, **more})
