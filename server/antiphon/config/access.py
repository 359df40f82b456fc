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
from antiphon.domain.principal import DEFAULT_SCOPES, MAX_MODEL, MAX_MODELS, MAX_NAME, MAX_OWNER, Scope
from antiphon.domain.tags import find_error


def _tags(value: dict[str, str]) -> dict[str, str]:
    if wrong := find_error(value):
        raise ValueError(wrong)
    return value


class KeyConfig(Section):
    """A static API key of a caller."""

    name: Annotated[Name, Field(max_length=MAX_NAME)]
    """How it is called in logs and lists."""
    key_env: str | None = None
    """The environment variable that holds the key."""
    key_file: Path | None = None
    """The file that holds the key."""
    owner: Annotated[Name, Field(max_length=MAX_OWNER)] | None = None
    """The owner of its conversations and its spending; several keys may share one. Unset: the name. To share with a user of a
    token, such as `corp:ann`, it must be written here."""
    admin: bool = False
    """Adds the scope `admin`."""
    scopes: tuple[Scope, ...] | None = None
    """Unset or null: all but `admin`. An empty list: none."""
    models: tuple[Annotated[Name, Field(max_length=MAX_MODEL)], ...] | None = Field(default=None, max_length=MAX_MODELS)
    """The models that it may use: names, and patterns with `*`. Unset or null: all. An empty list: none."""
    expire_time: Time | None = None
    """From then on the key is refused, such as `2026-12-31T00:00:00Z`. Unset: never."""
    limits: QuotaConfig = QuotaConfig()
    """Quotas of this key. What is unset is as in `limits.per_key`."""
    tags: Annotated[dict[str, str], AfterValidator(_tags)] = Field(default_factory=dict)
    """Tags of its calls, such as `{team: search}`, for reports of usage; at most 8. They take precedence over a call's own."""

    @model_validator(mode="after")
    def _one_source(self) -> KeyConfig:
        if (self.key_env is None) == (self.key_file is None):
            raise ValueError("needs one of key_env and key_file")
        return self

    def key(self, environment: Mapping[str, str]) -> SecretStr:
        """Return the key. Raises `ConfigError` if the variable or file is not there, or is empty."""
        key = read_secret(f"auth.keys.{self.name}.key", self.key_env, self.key_file, environment)
        assert key is not None, "a validator sees to it that one source is set"
        return key


SharedAlgorithm = Literal["HS256", "HS384", "HS512"]
PublicAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"
]
PUBLIC_ALGORITHMS: Final[tuple[PublicAlgorithm, ...]] = get_args(PublicAlgorithm)


class AdminClaimConfig(Section):
    """The claim of a token that makes its caller an admin."""

    claim: str
    """The name of the claim."""
    value: str | bool
    """The value that the claim, or one entry of it, must have."""


class IssuerConfig(OutboundConfig):
    """An issuer of tokens: JWTs, and OAuth 2 or OpenID Connect access tokens."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """A name of your own. Ids and owners of its callers begin with it, so keep it when the issuer moves."""
    issuer: str = Field(min_length=1)
    """The exact value of `iss`. With discovery, the URL to which `/.well-known/openid-configuration` is added."""
    audience: OneOrMore = ()
    """Accepted values of `aud`."""
    client_ids: OneOrMore = ()
    """Accepted values of `client_id`, for access tokens without `aud`, such as those of AWS Cognito; their `token_use` must be
    `access`."""
    algorithms: tuple[SharedAlgorithm | PublicAlgorithm, ...] = ()
    """Accepted signature algorithms. Unset: HS256 with a secret, else all with public keys."""
    secret_env: str | None = None
    """The environment variable that holds the shared secret, at least 32 bytes."""
    secret_file: Path | None = None
    """The file that holds the shared secret."""
    jwks_url: str | None = None
    """Where the public keys are. Without this, `jwks_file` and a secret: discovery at the issuer. https, or http on this host;
    redirects are not followed."""
    jwks_file: Path | None = None
    """The file with the public keys."""
    leeway: int = Field(default=30, ge=0, le=300)
    """Seconds that clocks may differ."""
    owner_claim: str = "sub"
    """The claim that names the owner. Only `sub` is never given to somebody else by its issuer."""
    owner_prefix: Prefix | None = None
    """Put before the owner's name. Unset: the issuer's `name` and a colon. Empty: the issuer can name any owner, also those of
    keys."""
    name_claim: str | None = None
    """The claim that names the caller in logs. Unset: as the owner."""
    scope_claim: str | None = None
    """The claim with the scopes, a list or words, such as `realm_access.roles`. Unset: `scope` and `scp`."""
    scopes: Mapping[str, tuple[Scope, ...]] | None = None
    """Which scopes a word of that claim gives. A token with the claim gets these and no others. Unset: the claim is not read."""
    default_scopes: tuple[Scope, ...] = tuple(sorted(DEFAULT_SCOPES))
    """The scopes of a token without that claim, and of any token if `scopes` is unset."""
    admin: AdminClaimConfig | None = None
    """Who is an admin. Unset: nobody."""
    keys_ttl: float = Field(default=300.0, gt=0)
    """Seconds after which public keys are read again. A withdrawn key is accepted that long, and up to a minute more for tokens
    already seen."""
    keys_stale: float = Field(default=3600.0, ge=0)
    """Seconds beyond `keys_ttl` for which keys are used while they cannot be read again."""
    keys_cooldown: float = Field(default=10.0, gt=0)
    """The shortest time between two readings, in seconds. A token with an unknown key causes one."""
    timeout: float = Field(default=2.0, gt=0)
    """Seconds that reading the keys may take. Until they were read once, tokens get 503."""

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
        """Return the shared secret. Raises `ConfigError` if the variable or file is not there, or holds too little to be safe."""
        where = f"auth.tokens.{self.name}.secret"
        secret = read_secret(where, self.secret_env, self.secret_file, environment)
        assert secret is not None, "only where `shared` is so"
        # A key is no shorter than the hash: RFC 7518, section 3.2.
        wanted = max(int(algorithm[2:]) // 8 for algorithm in self.accepted)
        if len(secret.get_secret_value().encode()) < wanted:
            raise ConfigError(f"{where}: has less than {wanted} bytes")
        return secret


class AuthConfig(Section):
    """Who may call. Without keys and tokens: the key in `ANTIPHON_KEY`, or one that `antiphon up` makes and prints."""

    keys: tuple[KeyConfig, ...] = ()
    """Static API keys. More are made with `antiphon keys create`."""
    tokens: tuple[IssuerConfig, ...] = ()
    """Issuers whose tokens are accepted."""

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
