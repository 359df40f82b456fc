"""What an operator decides of callers: static keys, and the issuers of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, Field, SecretStr, model_validator

from antiphon.config.limits import QuotaConfig
from antiphon.config.outbound import OutboundConfig
from antiphon.config.section import ConfigError, Section, read_secret
from antiphon.config.values import Name, OneOrMore, Prefix, Time
from antiphon.domain.principal import EVERYDAY, MAX_MODEL, MAX_MODELS, MAX_NAME, MAX_OWNER, Scope
from antiphon.domain.tags import wrong_with


def _tags(value: dict[str, str]) -> dict[str, str]:
    if wrong := wrong_with(value):
        raise ValueError(wrong)
    return value


class KeyConfig(Section):
    """One static API key of a caller. What it may is told in the words of `antiphon.v1.Key`, and bounded alike."""

    name: Annotated[Name, Field(max_length=MAX_NAME)]
    key_env: str | None = None
    key_file: Path | None = None
    owner: Annotated[Name, Field(max_length=MAX_OWNER)] | None = None
    """Whose the conversations and the spending are. Unset: the name."""
    admin: bool = False
    """Adds the scope of admins to the others."""
    scopes: tuple[Scope, ...] | None = None
    """What it opens. Unset or null: everything but the scope of admins. An empty list: nothing."""
    models: tuple[Annotated[Name, Field(max_length=MAX_MODEL)], ...] | None = Field(default=None, max_length=MAX_MODELS)
    """The models that may be asked: names, and patterns with `*`. Unset or null: all. An empty list: none."""
    expire_time: Time | None = None
    """When it ends. A key that has ended is no mistake: the gateway has to start all the same."""
    limits: QuotaConfig = QuotaConfig()
    """Of this key. What is unset is as in `limits.per_key`."""
    tags: Annotated[dict[str, str], AfterValidator(_tags)] = Field(default_factory=dict)
    """What its calls are for, such as team: search; at most 8. Usage is told apart by them."""

    @model_validator(mode="after")
    def _one_source(self) -> KeyConfig:
        if (self.key_env is None) == (self.key_file is None):
            raise ValueError("needs one of key_env and key_file")
        return self

    def key(self, environment: Mapping[str, str]) -> SecretStr:
        """The key itself. Raises `ConfigError` if the variable or file is not there, or is empty."""
        key = read_secret(f"auth.keys.{self.name}.key", self.key_env, self.key_file, environment)
        assert key is not None, "a validator sees to it that one source is set"
        return key


SharedAlgorithm = Literal["HS256", "HS384", "HS512"]
PublicAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"
]
PUBLIC_ALGORITHMS: Final[tuple[PublicAlgorithm, ...]] = get_args(PublicAlgorithm)


class AdminClaimConfig(Section):
    """What a token says of an admin: the claim is the value, or a list that has it."""

    claim: str
    value: str | bool


class IssuerConfig(OutboundConfig):
    """Who signs tokens that are good here. Its keys are a secret, a key set, or what discovery at the issuer leads to."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """How it is spoken of, and what the ids and owners of its callers begin with: it stays when the issuer moves."""
    issuer: str = Field(min_length=1)
    """What `iss` is, to the letter. With discovery, the URL to which `/.well-known/openid-configuration` is added."""
    audience: OneOrMore = ()
    """`aud` has to have one of these."""
    client_ids: OneOrMore = ()
    """For issuers whose access tokens have no `aud`, such as AWS Cognito: `client_id` has to be one of these then, and `token_use`
    has to be `access`. A token that has an `aud` is held against `audience` alone."""
    algorithms: tuple[SharedAlgorithm | PublicAlgorithm, ...] = ()
    """Unset: HS256 with a secret, else every one of `PUBLIC_ALGORITHMS`."""
    secret_env: str | None = None
    """The environment variable, or the file, that holds the secret: at least 32 bytes of UTF-8, not decoded any further."""
    secret_file: Path | None = None
    jwks_url: str | None = None
    jwks_file: Path | None = None
    leeway: int = Field(default=30, ge=0, le=300)
    """Seconds that clocks may be apart."""
    owner_claim: str = "sub"
    """Whom things belong to. Only of `sub` does an issuer promise that it stays, and is never given to another."""
    owner_prefix: Prefix | None = None
    """Put before it. Unset: the issuer's name and a colon. Empty, the issuer can name any owner, those of keys too."""
    name_claim: str | None = None
    """How a caller is spoken of in logs. Unset: as its owner."""
    scope_claim: str | None = None
    """A list, or a text with spaces, such as `realm_access.roles`. Unset: `scope` and `scp`."""
    scopes: Mapping[str, tuple[Scope, ...]] | None = None
    """What a word of that claim opens. A token that has the claim opens this and nothing else. Unset: the claim is not read."""
    default_scopes: tuple[Scope, ...] = tuple(sorted(EVERYDAY))
    """What a token opens that has no such claim; and any, if `scopes` is unset."""
    admin: AdminClaimConfig | None = None
    keys_ttl: float = Field(default=300.0, gt=0)
    """Seconds for which a key set is used before it is read again. A key that is withdrawn is good for as long."""
    keys_stale: float = Field(default=3600.0, ge=0)
    """Seconds beyond that for which it is still used while it cannot be read again."""
    keys_cooldown: float = Field(default=10.0, gt=0)
    """Seconds between two readings, whatever asks for them: an unknown key, or an issuer that fails."""
    timeout: float = Field(default=2.0, gt=0)
    """Seconds that a reading may take, discovery included, and so the longest that a call waits for it."""

    @model_validator(mode="after")
    def _fits(self) -> IssuerConfig:
        if sum(source is not None for source in (self.secret_env, self.secret_file, self.jwks_url, self.jwks_file)) > 1:
            raise ValueError("takes one of secret_env, secret_file, jwks_url and jwks_file; with none, discovery")
        if not self.audience and not self.client_ids:
            raise ValueError("needs audience or client_ids: or tokens for anybody else would be good here")
        # Never both kinds: a public key would do as a secret then.
        if any((algorithm in get_args(SharedAlgorithm)) is not self.shared for algorithm in self.algorithms):
            raise ValueError("algorithms: HS256 and its like are for a secret, and nothing else is")
        if Scope.ADMIN in self.default_scopes:
            raise ValueError("default_scopes: would make everybody an admin")
        return self

    @property
    def shared(self) -> bool:
        """Whether the issuer and this gateway share a secret."""
        return self.secret_env is not None or self.secret_file is not None

    @property
    def accepted(self) -> tuple[str, ...]:
        """The algorithms that its tokens may be signed with."""
        return self.algorithms or (("HS256",) if self.shared else PUBLIC_ALGORITHMS)

    @property
    def prefix(self) -> str:
        """What the owners of its callers begin with."""
        return f"{self.name}:" if self.owner_prefix is None else self.owner_prefix

    def secret(self, environment: Mapping[str, str]) -> SecretStr:
        """The shared secret. Raises `ConfigError` if the variable or file is not there, or holds too little to be safe."""
        where = f"auth.tokens.{self.name}.secret"
        secret = read_secret(where, self.secret_env, self.secret_file, environment)
        assert secret is not None, "only where `shared` is so"
        # A key is no shorter than the hash: RFC 7518, section 3.2.
        wanted = max(int(algorithm[2:]) // 8 for algorithm in self.accepted)
        if len(secret.get_secret_value().encode()) < wanted:
            raise ConfigError(f"{where}: has less than {wanted} bytes")
        return secret


class AuthConfig(Section):
    """Who may call. No keys and no tokens: the key in ANTIPHON_KEY, or one that `antiphon up` makes and prints."""

    keys: tuple[KeyConfig, ...] = ()
    tokens: tuple[IssuerConfig, ...] = ()
    """The issuers whose tokens are good."""

    @model_validator(mode="after")
    def _each_its_own(self) -> AuthConfig:
        for what in ("name", "issuer"):
            found = [getattr(issuer, what) for issuer in self.tokens]
            if len(set(found)) < len(found):
                raise ValueError(f"tokens: two issuers have the same {what}")
        for key in self.keys:
            if key.owner is None and key.name.startswith(self.reserved):
                raise ValueError(f"keys: {key.name!r} could be the name of an owner of an issuer's: say whose the key is")
        return self

    @property
    def reserved(self) -> tuple[str, ...]:
        """What the owners of issuers' callers begin with: a key has such an owner only if somebody says so, never by its name."""
        return tuple(issuer.prefix for issuer in self.tokens if issuer.owner_prefix is None)
