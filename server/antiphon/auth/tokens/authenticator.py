"""Tokens of an identity provider as credentials: signed JWTs (RFC 7519), OAuth 2 and OpenID Connect access tokens among them.

What looks like a JWT and says that it is one of a configured issuer's, meant for this gateway, is of this kind; all else is
somebody else's. Until its signature is found good, a token only tells whom to ask about it: the issuer's keys, and the algorithms
that the configuration allows, decide. Keys and URLs that a token brings along (`jwk`, `jku`, `x5u`, `x5c`) are never looked at.

A token that was found good is known by its digest for a while, and never longer than it lasts: that is also how long a key that was
withdrawn lives on here. No token and no claim reaches a log or an error; a caller's name does, as it is for that.
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
"""Bytes of the longest token that is looked at."""

MAX_VERIFIED: Final = 4096
"""Tokens that are known at once to be good."""

VERIFIED_FOR: Final = 60.0
"""Seconds for which a token is known to be good, if it lasts as long."""

_SHAPE: Final = re.compile(r"[\w-]+\.([\w-]+)\.[\w-]*", re.ASCII)

_TYPES: Final = ("jwt", "at+jwt", "application/at+jwt")
"""What `typ` may be, if it is there: what was made for another end, such as a logout, is no access token (RFC 8725, 3.11)."""

_USES: Final = ("token_use", "token_type", "typ")
_OTHER_USES: Final = ("refresh", "refresh_token", "offline", "logout", "id", "id_token")
"""Claims in which issuers say what a token is for, and what no access token says there: some sign refresh tokens alike, and an ID
token is for the client that asked for it, and for nobody else."""

_log = structlog.get_logger(__name__)


class Tokens:
    """All issuers: an `Authenticator`."""

    def __init__(self, issuers: Mapping[str, Issuer], fetcher: Fetcher, clock: Clock = time.time) -> None:
        """`issuers` by what `iss` says; `fetcher` is what their keys are asked with, and is closed with this."""
        self._issuers = issuers
        self._fetcher = fetcher
        self._clock = clock
        self._verified: dict[bytes, tuple[Principal, float]] = {}

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`. A token that is not meant for this gateway is none of this kind: it may be a provider's."""
        if len(credential) > MAX_TOKEN or credential.count(".") != 2:
            return None
        digest = hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
        known = self._verified.get(digest)
        if known is not None and self._clock() < known[1]:
            return known[0]
        issuer = self._meant(_said(credential))
        if issuer is None:
            return None
        principal, until = await issuer.judge(credential)
        self._remember(digest, principal, min(until, self._clock() + VERIFIED_FOR))
        return principal

    async def close(self) -> None:
        """Ends what is being read, and the connections."""
        for issuer in self._issuers.values():
            await issuer.close()
        await self._fetcher.close()

    def _meant(self, said: Mapping[str, Any]) -> Issuer | None:
        name = said.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        return issuer if issuer is not None and issuer.is_meant_by(said) else None

    def _remember(self, digest: bytes, principal: Principal, until: float) -> None:
        self._verified.pop(digest, None)  # so that the newest comes last
        if len(self._verified) >= MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = (principal, until)


class Issuer:
    """Judges the tokens of one issuer."""

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

    def is_meant_by(self, claims: Mapping[str, Any]) -> bool:
        """Whether `aud` names this gateway; or, of a token that has none, `client_id` one of its clients."""
        audience = claims.get("aud")
        named, known = ([claims.get("client_id")], self._clients) if audience is None else (audience, self._audience)
        if any(isinstance(entry, str) and entry in known for entry in (named if isinstance(named, list) else [named])):
            return True
        _log.info("token_not_for_this_gateway", issuer=self._name)
        return False

    async def judge(self, token: str) -> tuple[Principal, float]:
        """Who the token speaks for, and when it ends, in seconds since 1970.

        Raises `Unauthenticated`, and `IdentityUnavailable` if the issuer's keys are not known and it cannot be asked.
        """
        header = _part(token.partition(".")[0])
        algorithm, kid = header.get("alg"), header.get("kid")
        # What is fixed beforehand comes before the keys: a token that cannot be good makes nobody ask for them.
        if not isinstance(algorithm, str) or algorithm not in self._registry.accepted:
            self._refuse("algorithm")
        if not isinstance(kid, str | None) or str(header.get("typ", "jwt")).lower() not in _TYPES:
            self._refuse("header")
        if "crit" in header or "b64" in header:  # no extension is known here, so none can be honoured
            self._refuse("extension")
        keys = await self._keys.find(kid)
        if not keys:
            self._refuse("unknown_key")
        try:
            claims: dict[str, Any] = orjson.loads(self._payload(token, keys))
            by_client = claims.get("aud") is None and bool(self._clients)
            (self._for_client if by_client else self._for_audience).validate(claims)
            if by_client and claims.get("token_use") != "access":  # here and not in the rules, which take a list that has it
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
        except (ValueError, TypeError, OverflowError, RecursionError):  # what nobody signs who means well
            self._refuse("malformed")

    async def close(self) -> None:
        """Ends what is being read."""
        await self._keys.close()

    def _payload(self, token: str, keys: Sequence[Key]) -> bytes:
        """The payload, signed by one of the keys. Raises `JoseError`."""
        wrong: JoseError = BadSignatureError()
        for key in keys:
            try:
                return jws.deserialize_compact(token, key, registry=self._registry).payload
            except JoseError as error:
                wrong = error
        raise wrong

    def _refuse(self, why: str, message: str = "The token is not valid.") -> NoReturn:
        """Tells the operator more than the caller, and neither anything of the token."""
        _log.info("token_refused", issuer=self._name, why=why)
        raise Unauthenticated(message)


class _Algorithms(JWSRegistry):
    """The algorithms that one issuer's tokens may be signed with; headers that mean nothing here are let be."""

    max_header_length = MAX_TOKEN
    max_payload_length = MAX_TOKEN
    max_signature_length = MAX_TOKEN

    def __init__(self, accepted: Sequence[str]) -> None:
        super().__init__(algorithms=accepted, strict_check_header=False)
        self.accepted = frozenset(accepted)

    def get_alg(self, name: str) -> JWSAlgModel:
        """Without the library's warning that `EdDSA` has a newer name: that is the issuer's matter."""
        if name not in self.accepted:
            raise JoseError
        return self.algorithms[name]


def load_tokens(auth: AuthConfig, environment: Mapping[str, str]) -> Tokens:
    """The issuers that the configuration names. Raises `ConfigError`. Asks nobody anything yet."""
    fetcher = Fetcher()
    issuers = {config.issuer: Issuer(config, key_source(config, environment, fetcher)) for config in auth.tokens}
    return Tokens(issuers, fetcher)


def key_source(config: IssuerConfig, environment: Mapping[str, str], fetcher: Fetcher) -> KeySource:
    """Return where the keys of an issuer come from. Raises `ConfigError`. Asks nobody anything yet."""
    if config.shared:
        return jwks.SharedSecret(config.secret(environment))
    if config.jwks_file is not None:
        return jwks.from_file(config, config.jwks_file)
    way = outbound.build(f"auth.tokens.{config.name}", config, environment)
    if config.jwks_url is not None:
        return jwks.from_url(config, config.jwks_url, fetcher, way)
    return jwks.from_discovery(config, fetcher, way)


def _said(credential: str) -> dict[str, Any]:
    """The claims of a token, unproved; none of what is no token."""
    match = _SHAPE.fullmatch(credential)
    return {} if match is None else _part(match[1])


def _part(segment: str) -> dict[str, Any]:
    """The JSON object in a segment; an empty one for what is none."""
    try:
        found = orjson.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
