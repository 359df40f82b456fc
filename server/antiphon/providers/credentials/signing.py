"""Signing of JWTs (RFC 7515, RS256) with the private key of a service account. Imported only where one is configured: 19 MB."""

from __future__ import annotations

from collections.abc import Mapping

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from antiphon.providers.credentials.google import Sign


def signer(private_key: str, key_id: str | None) -> Sign:
    """Return what signs claims. Raises `ValueError` if the key is not a private RSA key in PEM."""
    try:
        key = RSAKey.import_key(private_key)
    except (JoseError, ValueError, TypeError):
        raise ValueError("not an RSA key in PEM") from None
    if not key.is_private:
        raise ValueError("not a private key")
    header = {"alg": "RS256", "typ": "JWT", **({} if key_id is None else {"kid": key_id})}

    def sign(claims: Mapping[str, object]) -> str:
        return jwt.encode(header, dict(claims), key)

    return sign
