"""Authentication with signed JWTs (RFC 7519), such as OAuth 2 and OpenID Connect access tokens.

A credential is of this kind if it looks like a JWT, names a configured issuer, and is meant for this gateway; any other is left to
the next authenticator. Before its signature is verified, a token only selects the issuer: that issuer's keys and the algorithms in
the configuration decide. Keys and URLs inside a token (`jwk`, `jku`, `x5u`, `x5c`) are never used.

A verified token is cached by its digest for a while, never beyond its expiry; a withdrawn key stays in effect for as long. No token
and no claim is put in a log or an error message, except the caller's name, which is meant for that.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import orjson
import structlog
from joserfc import jws
from joserfc.errors import BadSignatureError, ClaimError, ExpiredTokenError, JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from antiphon.auth.tokens import jwks
from antiphon.auth.tokens.claims import ClaimMapping, ClaimUnusable
from antiphon.auth.tokens.jwks import KeySource
from antiphon.config import AuthConfig, IssuerConfig
from antiphon.domain.errors import Unauthenticated
from antiphon.domain.principal import Principal
from antiphon.net import outbound
from antiphon.net.fetch import Fetcher
from antiphon.net.refreshing import Clock

MAX_TOKEN: Final = 8 * 1024
"""The longest token that is read, in bytes."""

MAX_VERIFIED: Final = 4096
"""The most verified tokens that are cached."""

VERIFIED_FOR: Final = 60.0
"""Seconds for which a verified token is cached, if it does not expire before."""

_SHAPE: Final = re.compile(r"[\w-]+\.([\w-]+)\.[\w-]*", re.ASCII)

_TYPES: Final = ("jwt", "at+jwt", "application/at+jwt")
"""The values of `typ` that are accepted. Others, such as a logout token's, are not for access tokens (RFC 8725, 3.11)."""

_USES: Final = ("token_use", "token_type", "typ")
_OTHER_USES: Final = ("refresh", "refresh_token", "offline", "logout", "id", "id_token")
"""The claims in which issuers say what a token is for, and their values that no access token has. Some issuers sign refresh
tokens with the same keys, and an ID token is only for the client that requested it."""

_log = structlog.get_logger(__name__)


class Tokens:
    """All configured issuers, as an `Authenticator`."""

    def __init__(self, issuers: Mapping[str, Issuer], fetcher: Fetcher, clock: Clock = time.time) -> None:
        """`issuers` are by the value of `iss`. `fetcher` fetches their keys, and is closed by `close`."""
        self._issuers = issuers
        self._fetcher = fetcher
        self._clock = clock
        self._verified: dict[bytes, tuple[Principal, float]] = {}

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`. Returns None for a token that is meant for another audience: it may be a provider's."""
        if len(credential) > MAX_TOKEN or credential.count(".") != 2:
            return None
        digest = hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
        known = self._verified.get(digest)
        if known is not None and self._clock() < known[1]:
            return known[0]
        issuer = self._find_issuer(_unverified_claims(credential))
        if issuer is None:
            return None
        principal, until = await issuer.verify(credential)
        self._remember(digest, principal, min(until, self._clock() + VERIFIED_FOR))
        return principal

    async def close(self) -> None:
        """Cancel fetches in progress, and close the connections."""
        for issuer in self._issuers.values():
            await issuer.close()
        await self._fetcher.close()

    def _find_issuer(self, claims: Mapping[str, Any]) -> Issuer | None:
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        return issuer if issuer is not None and issuer.accepts_audience(claims) else None

    def _remember(self, digest: bytes, principal: Principal, until: float) -> None:
        self._verified.pop(digest, None)  # keep the newest last
        if len(self._verified) >= MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = (principal, until)


class Issuer:
    """Verifies the tokens of one issuer."""

    def __init__(self, config: IssuerConfig, keys: KeySource, clock: Clock = time.time) -> None:
        self._name = config.name
        self._keys = keys
        self._audience = frozenset(config.audience)
        self._clients = frozenset(config.client_ids)
        self._registry = _Algorithms(config.accepted)
        self._mapping = ClaimMapping(config)

        def rules(**own: Any) -> JWTClaimsRegistry:
            return JWTClaimsRegistry(
                now=lambda: int(clock()),
                leeway=config.leeway,
                iss={"essential": True, "value": config.issuer},
                exp={"essential": True},
                sub={"essential": True},
                **own,
            )

        self._for_audience = rules(aud={"essential": True, "values": list(config.audience)})
        self._for_client = rules(client_id={"essential": True, "values": list(config.client_ids)})

    def accepts_audience(self, claims: Mapping[str, Any]) -> bool:
        """Return whether `aud` names this gateway, or, without an `aud`, `client_id` names one of the configured clients."""
        audience = claims.get("aud")
        named, known = ([claims.get("client_id")], self._clients) if audience is None else (audience, self._audience)
        if any(isinstance(entry, str) and entry in known for entry in (named if isinstance(named, list) else [named])):
            return True
        _log.info("token_not_for_this_gateway", issuer=self._name)
        return False

    async def verify(self, token: str) -> tuple[Principal, float]:
        """Return the token's principal, and its expiry in seconds since 1970.

        Raises `Unauthenticated`, or `IdentityUnavailable` if the issuer's keys are not known and it cannot be asked.
        """
        header = _decode_segment(token.partition(".")[0])
        algorithm, kid = header.get("alg"), header.get("kid")
        # Checks that need no keys come first: a token that cannot be valid does not cause a fetch.
        if not isinstance(algorithm, str) or algorithm not in self._registry.accepted:
            self._refuse("algorithm")
        if not isinstance(kid, str | None) or str(header.get("typ", "jwt")).lower() not in _TYPES:
            self._refuse("header")
        if "crit" in header or "b64" in header:  # no extension is supported
            self._refuse("extension")
        keys = await self._keys.find(kid)
        if not keys:
            self._refuse("unknown_key")
        try:
            claims: dict[str, Any] = orjson.loads(self._payload(token, keys))
            by_client = claims.get("aud") is None and bool(self._clients)
            (self._for_client if by_client else self._for_audience).validate(claims)
            if by_client and claims.get("token_use") != "access":  # not in the rules: they would accept a list that contains it
                self._refuse("other_use")
            if any(str(claims.get(use)).lower() in _OTHER_USES for use in _USES):
                self._refuse("other_use")
            return self._mapping.principal(claims), float(claims["exp"])
        except ExpiredTokenError:
            self._refuse("expired", "The token has expired.")
        except ClaimError as error:
            self._refuse(f"claim {error.claim}")
        except ClaimUnusable as error:
            self._refuse(f"claim {error}")
        except JoseError as error:
            self._refuse(error.error)
        except (ValueError, TypeError, OverflowError, RecursionError):  # no well-meaning issuer signs such claims
            self._refuse("malformed")

    async def close(self) -> None:
        """Cancel a fetch in progress."""
        await self._keys.close()

    def _payload(self, token: str, keys: Sequence[Key]) -> bytes:
        """Return the payload if one of the keys signed it. Raises `JoseError` otherwise."""
        wrong: JoseError = BadSignatureError()
        for key in keys:
            try:
                return jws.deserialize_compact(token, key, registry=self._registry).payload
            except JoseError as error:
                wrong = error
        raise wrong

    def _refuse(self, why: str, message: str = "The token is not valid.") -> NoReturn:
        """Log the reason and raise `Unauthenticated`, which tells the caller less. Neither contains any part of the token."""
        _log.info("token_refused", issuer=self._name, why=why)
        raise Unauthenticated(message)


class _Algorithms(JWSRegistry):
    """The algorithms with which an issuer's tokens may be signed. Unknown headers are ignored."""

    max_header_length = MAX_TOKEN
    max_payload_length = MAX_TOKEN
    max_signature_length = MAX_TOKEN

    def __init__(self, accepted: Sequence[str]) -> None:
        super().__init__(algorithms=accepted, strict_check_header=False)
        self.accepted = frozenset(accepted)

    def get_alg(self, name: str) -> JWSAlgModel:
        """Return an accepted algorithm, without the library's warning that `EdDSA` has a newer name. Raises `JoseError`."""
        if name not in self.accepted:
            raise JoseError
        return self.algorithms[name]


def load_tokens(auth: AuthConfig, environment: Mapping[str, str]) -> Tokens:
    """Return the configured issuers; no keys are fetched yet. Raises `ConfigError`."""
    fetcher = Fetcher()
    issuers = {config.issuer: Issuer(config, key_source(config, environment, fetcher)) for config in auth.tokens}
    return Tokens(issuers, fetcher)


def key_source(config: IssuerConfig, environment: Mapping[str, str], fetcher: Fetcher) -> KeySource:
    """Return the source of an issuer's keys; nothing is fetched yet. Raises `ConfigError`."""
    if config.shared:
        return jwks.SharedSecret(config.secret(environment))
    if config.jwks_file is not None:
        return jwks.from_file(config, config.jwks_file)
    way = outbound.build(f"auth.tokens.{config.name}", config, environment)
    if config.jwks_url is not None:
        return jwks.from_url(config, config.jwks_url, fetcher, way)
    return jwks.from_discovery(config, fetcher, way)


def _unverified_claims(credential: str) -> dict[str, Any]:
    """Return the claims of a token without verifying it, or an empty dict if it is not a token."""
    match = _SHAPE.fullmatch(credential)
    return {} if match is None else _decode_segment(match[1])


def _decode_segment(segment: str) -> dict[str, Any]:
    """Return the JSON object in a segment of a token, or an empty dict if there is none."""
    try:
        found = orjson.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
