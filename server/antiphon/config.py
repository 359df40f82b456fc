"""What an operator decides, and the defaults: checked whole at start. `config_file` reads it.

Secrets are not in it: it names the environment variable, or the file, that holds each. What may hold one all the same, such as a
URL, is neither printed nor dumped. No I/O here but reading them. Longer than other files, as it is one list of all that can be set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from antiphon.config_values import Address, HeaderName, Headers, Name, OneOrMore, Prefix, Time
from antiphon.config_words import dotted, mistakes
from antiphon.principal import EVERYDAY, MAX_MODEL, MAX_MODELS, MAX_NAME, MAX_OWNER, Quota, Scope

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest request and the largest single reply, at every layer: 32 MiB. `gateway/listeners.yaml` has the same figure."""

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")


class ConfigError(Exception):
    """The configuration is not usable. The message tells where and why, a line each, and holds no secret.

    `located`: its lines begin with the file, or the environment variable, and not with the setting.
    """

    def __init__(self, message: str, *, located: bool = False) -> None:
        super().__init__(message)
        self.located = located


def split_address(address: str) -> tuple[str, int]:
    """("127.0.0.1", 8080) of "127.0.0.1:8080"; the brackets of an IPv6 host are dropped."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class TlsConfig(_Section):
    """TLS of a port: files in PEM, which are read again when they change."""

    certificate: Path
    """The certificate, and after it those that lead to its authority."""
    key: Path
    client_ca: Path | None = None
    """The authorities one of which has to have signed the certificate of every caller. Unset: callers are asked for none. It only
    lets connect: each call needs a key or a token besides."""


class GrpcConfig(_Section):
    """The gRPC server."""

    listen: Address = "127.0.0.1:50051"
    tls: TlsConfig | None = None


class UpstreamTlsConfig(_Section):
    """How the edge knows the server, and is known there."""

    ca: Path
    """The authorities one of which has to have signed the server's certificate."""
    server_name: str = Field(min_length=1)
    """The DNS name that has to stand in the server's certificate, to the letter."""
    certificate: Path | None = None
    """What the edge shows a server that asks for a certificate."""
    key: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> UpstreamTlsConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("needs both certificate and key, or neither")
        return self


class UpstreamConfig(_Section):
    """The server, where the edge is not on its machine."""

    address: Address
    """A name stands for all its addresses."""
    tls: UpstreamTlsConfig | None = None


class RestConfig(_Section):
    """The edge: Envoy."""

    listen: Address = "127.0.0.1:8080"
    tls: TlsConfig | None = None
    upstream: UpstreamConfig | None = None
    """For `antiphon edge`. `antiphon up` has workers of its own."""
    jwt_authn: bool = False
    """Whether Envoy refuses tokens that are not good, before the server looks at them."""


class DatabaseConfig(_Section):
    """Where history is kept: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://...`."""

    url: str = Field(default="", repr=False, exclude=True)  # it may hold a password
    """Unset: SQLite in the user's data directory."""
    timeout: float = Field(default=5.0, gt=0)
    """The longest that the database may take for one answer, in seconds."""
    keep_interval: float = Field(default=1.0, gt=0)
    """Seconds between two writings of what replies in progress have said so far. A worker that is killed loses what came since."""


class ModelsConfig(_Section):
    """Which model answers a request that names none. Unset: the first model of the first provider."""

    default: str | None = None


class PriceConfig(_Section):
    """The price of a model, in USD for a million tokens. Unset `cached_input`: as `input`."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)


class ProviderConfig(_Section):
    """One provider. `models` are names, or patterns with `*`; a name that several providers have belongs to the first."""

    protocol: str = "openai"
    base_url: str | None = Field(default=None, repr=False, exclude=True)  # its query may hold a key
    api_key_env: str | None = None
    api_key_file: Path | None = None
    models: tuple[str, ...] = ()
    headers: Headers = Field(default_factory=dict, repr=False, exclude=True)  # they may hold keys
    """Sent with every request."""
    query: Mapping[str, str] = Field(default_factory=dict, repr=False, exclude=True)
    """Sent with every request, such as Azure's `api-version`."""
    auth_header: HeaderName = "authorization"
    """The header that carries the key: as a bearer token in `authorization`, bare in any other."""
    stream_usage: bool = True
    """Whether it knows `stream_options.include_usage`."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds."""
    read_timeout: float = Field(default=300.0, gt=0)
    """The longest silence, in seconds: until the first byte, and between two."""
    token_delay: float = Field(default=0.02, ge=0)
    """Seconds between the words of the `echo` protocol's streams; the other protocols ignore it."""

    def api_key(self, name: str, environment: Mapping[str, str]) -> SecretStr | None:
        """The key of the provider `name`, from the variable or file that is named. Raises `ConfigError` if that is not there."""
        return _secret(f"providers.{name}.api_key", self.api_key_env, self.api_key_file, environment)

    @property
    def has_key(self) -> bool:
        """Whether it is asked with an API key, in whose place a caller's own can be sent."""
        return self.api_key_env is not None or self.api_key_file is not None


class QuotaConfig(_Section):
    """How much may be used; unset or null is no limit, 0 is nothing at all. `antiphon.principal.Quota` has the same fields."""

    requests_per_minute: int | None = Field(default=None, ge=0)
    tokens_per_minute: int | None = Field(default=None, ge=0)
    concurrent_streams: int | None = Field(default=None, ge=0)
    daily_usd: float | None = Field(default=None, ge=0)
    monthly_usd: float | None = Field(default=None, ge=0)

    def quota(self) -> Quota:
        """As a value of the domain."""
        return Quota(**self.model_dump())


class KeyConfig(_Section):
    """One static API key of a caller. What it may is told in the words of `antiphon.v1.Key`, and bounded alike."""

    name: Annotated[Name, Field(max_length=MAX_NAME)]
    key_env: str | None = None
    key_file: Path | None = None
    owner: Annotated[Name, Field(max_length=MAX_OWNER)] | None = None
    """Whose the conversations and the spending are. Unset: the name."""
    admin: bool = False
    """Adds the scope of admins to the others."""
    scopes: tuple[Scope, ...] = ()
    """What it opens. None: everything but the scope of admins."""
    models: tuple[Annotated[Name, Field(max_length=MAX_MODEL)], ...] = Field(default=(), max_length=MAX_MODELS)
    """The models that may be asked: names, and patterns with `*`. None: all."""
    expire_time: Time | None = None
    """When it ends. A key that has ended is no mistake: the gateway has to start all the same."""
    limits: QuotaConfig = QuotaConfig()
    """Of this key. What is unset is as in `limits.per_key`."""

    @model_validator(mode="after")
    def _one_source(self) -> KeyConfig:
        if (self.key_env is None) == (self.key_file is None):
            raise ValueError("needs one of key_env and key_file")
        return self

    def key(self, environment: Mapping[str, str]) -> SecretStr:
        """The key itself. Raises `ConfigError` if the variable or file is not there, or is empty."""
        key = _secret(f"auth.keys.{self.name}.key", self.key_env, self.key_file, environment)
        assert key is not None, "a validator sees to it that one source is set"
        return key


SharedAlgorithm = Literal["HS256", "HS384", "HS512"]
PublicAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"
]
PUBLIC_ALGORITHMS: Final[tuple[PublicAlgorithm, ...]] = get_args(PublicAlgorithm)


class AdminClaimConfig(_Section):
    """What a token says of an admin: the claim is the value, or a list that has it."""

    claim: str
    value: str | bool


class IssuerConfig(_Section):
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
    scopes: Mapping[str, tuple[Scope, ...]] = Field(default_factory=dict)
    """What a word of that claim opens. A token that has the claim opens this and nothing else."""
    default_scopes: tuple[Scope, ...] = tuple(sorted(EVERYDAY))
    """What a token opens that has no such claim; and any, if there are no `scopes`."""
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
        secret = _secret(where, self.secret_env, self.secret_file, environment)
        assert secret is not None, "only where `shared` is so"
        # A key is no shorter than the hash: RFC 7518, section 3.2.
        wanted = max(int(algorithm[2:]) // 8 for algorithm in self.accepted)
        if len(secret.get_secret_value().encode()) < wanted:
            raise ConfigError(f"{where}: has less than {wanted} bytes")
        return secret


class AuthConfig(_Section):
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


class LogConfig(_Section):
    """Structured logs. No file: standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lambda v: str(v).lower())] = "info"
    file: Path | None = None


class ProxyConfig(_Section):
    """Which targets the proxy paths may reach: none, unless they are named here. `antiphon.egress` has the rules."""

    allow: tuple[str, ...] = ()
    """Base URLs, such as https://api.openai.com or http://models.internal:8000/v1: scheme, host, port; with a path, all below it.
    Only one with a port in it, or with an address for a host, may lie in a private network."""
    aliases: Mapping[str, str] = Field(default_factory=dict)
    """Short names of base URLs, such as default: https://api.openai.com/v1. What has one is allowed."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds."""
    read_timeout: float = Field(default=300.0, gt=0)
    """The longest silence of a target, in seconds: until the first byte, and between two."""


class PersonaConfig(_Section):
    """Who answers on the chat paths of `/api/v1/chat`. What is unset is left to the request's defaults."""

    system: str = ""
    """What the model is told before the conversation. Never stored with it."""
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, gt=0)


class SessionsConfig(_Section):
    """Sessions of `/api/v1/chat/completions`."""

    automatic: bool = False
    """Whether a call without a `session_id` begins one: all that is said there is then stored."""


class ClientConfig(_Section):
    """What the conversations of one client of `/api/v1/ai/chat` begin with: a text, a file, or what a URL answers."""

    context: str | None = None
    file: Path | None = None
    url: str | None = Field(default=None, repr=False, exclude=True)  # its query may hold a key
    headers: Headers = Field(default_factory=dict, repr=False, exclude=True)  # they may hold keys
    """Sent to the URL."""
    api_key_env: str | None = None
    """The environment variable, or the file, that holds a bearer token for the URL."""
    api_key_file: Path | None = None
    ttl: float = Field(default=300.0, ge=0)
    """Seconds for which what was read is used before it is read again."""
    stale: float = Field(default=86400.0, ge=0)
    """Seconds beyond that for which it is still used while it cannot be read again."""
    timeout: float = Field(default=5.0, gt=0)
    """Seconds that reading it may take."""
    max_bytes: int = Field(default=1024 * 1024, gt=0)
    """The largest that it may be."""

    @model_validator(mode="after")
    def _one_source(self) -> ClientConfig:
        if sum(source is not None for source in (self.context, self.file, self.url)) != 1:
            raise ValueError("needs one of context, file and url")
        return self

    def api_key(self, name: str, environment: Mapping[str, str]) -> SecretStr | None:
        """The token for the URL, of the client `name`. Raises `ConfigError` if the variable or file that is named is not there."""
        return _secret(f"clients.{name}.api_key", self.api_key_env, self.api_key_file, environment)


class EngineConfig(_Section):
    """The paths under /api/engine."""

    own_key_providers: tuple[str, ...] = ()
    """Providers that may be asked without a key of this gateway, by a caller that brings a key of the provider's own. Name none
    that takes calls without a key, or whose `headers` or `query` hold one: anybody could use it."""


class LimitsConfig(_Section):
    """Bounds on calls, times in seconds, and how much may be used: `antiphon.limits` has the rules."""

    request_timeout: float = Field(default=600.0, gt=0)
    """The longest that a call may take; a caller's own deadline can only be shorter."""
    drain: float = Field(default=30.0, ge=0)
    """On SIGTERM, how long the calls in flight may go on."""
    calls_per_worker: int = Field(default=2000, gt=0)
    """Calls that may go on at once in one worker, whoever makes them; further ones are refused."""
    overall: QuotaConfig = QuotaConfig()
    """Of all callers together."""
    per_owner: QuotaConfig = QuotaConfig()
    """Of each owner, all its keys together."""
    owners: Mapping[str, QuotaConfig] = Field(default_factory=dict)
    """Of the owners named here; what is not set is as in `per_owner`, and null is no limit."""
    per_key: QuotaConfig = QuotaConfig()
    """Of each key that has no limit of its own."""
    redis_url: SecretStr | None = None
    """Where all servers count together, such as redis://host:6379/0; also rediss:// and unix://. Unset: each worker counts for
    itself, and has its share of a limit."""
    redis_url_env: str | None = None
    """The environment variable that holds it."""
    redis_timeout: float = Field(default=0.5, gt=0)
    """The longest that a call waits for Redis, in seconds."""
    on_failure: Literal["open", "closed"] = "open"
    """While Redis is out of reach: `open` has each worker count for itself, as without one; `closed` refuses what has a limit."""

    @model_validator(mode="after")
    def _one_url(self) -> LimitsConfig:
        if self.redis_url is not None and self.redis_url_env is not None:
            raise ValueError("takes only one of redis_url and redis_url_env")
        return self

    def redis(self, environment: Mapping[str, str]) -> SecretStr | None:
        """Where Redis is; None without one. Raises `ConfigError` if the variable that is named is not there."""
        return self.redis_url or _secret("limits.redis_url", self.redis_url_env, None, environment)


class GuardOptions(_Section):
    """The options of one kind of guard: each kind has its own subclass, where it is made."""


Options = TypeVar("Options", bound=GuardOptions)


class GuardConfig(_Section):
    """One filter of what is asked and answered. What is not named here is an option of its kind."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")
    """What the caller of a blocked call is told."""
    kind: str
    on: tuple[Literal["request", "reply"], ...] = Field(default=("request", "reply"), min_length=1)

    def options(self, model: type[Options]) -> Options:
        """The options of its kind. Raises `ConfigError`."""
        try:
            return model.model_validate(self.model_extra)
        except ValidationError as error:
            lines = (f"{dotted(('guards', self.name, *path))}: {wanted}" for path, wanted in mistakes(error, model))
            raise ConfigError("\n".join(lines)) from None


class Config(_Section):
    """The whole configuration. `config_file.load` reads it."""

    grpc: GrpcConfig = GrpcConfig()
    rest: RestConfig = RestConfig()
    workers: int = Field(default=1, ge=1, le=256)
    database: DatabaseConfig = DatabaseConfig()
    models: ModelsConfig = ModelsConfig()
    providers: Mapping[str, ProviderConfig] = Field(default_factory=dict)
    """By name, in order. None: every provider whose usual environment variable is set, and `echo`."""
    prices: Mapping[str, PriceConfig] = Field(default_factory=dict)
    """By model, or by `provider/model`: instead of the published price."""
    auth: AuthConfig = AuthConfig()
    log: LogConfig = LogConfig()
    proxy: ProxyConfig = ProxyConfig()
    clients: Mapping[str, ClientConfig] = Field(default_factory=dict)
    """By `client_id`."""
    engine: EngineConfig = EngineConfig()
    limits: LimitsConfig = LimitsConfig()
    personas: Mapping[str, PersonaConfig] = Field(default_factory=dict)
    """By name. "maya" is there without being named here, and answers where a request names none."""
    sessions: SessionsConfig = SessionsConfig()
    guards: tuple[GuardConfig, ...] = ()
    """In the order in which they read."""

    @model_validator(mode="after")
    def _two_addresses(self) -> Config:
        if self.rest.listen == self.grpc.listen:
            raise ValueError(f"rest.listen and grpc.listen are both {self.rest.listen}: each needs an address of its own")
        return self

    @field_validator("providers")
    @classmethod
    def _names_fit_a_path(cls, providers: Mapping[str, ProviderConfig]) -> Mapping[str, ProviderConfig]:
        for name in providers:
            if not name.strip() or "/" in name or not name.isprintable():
                raise ValueError(f"{name!r} cannot be reached: a name must not be empty, nor have a / or a line break in it")
        return providers

    @model_validator(mode="after")
    def _keys_that_envoy_can_read(self) -> Config:
        if self.rest.jwt_authn and not self.auth.tokens:
            raise ValueError("rest.jwt_authn: there are no issuers in auth.tokens")
        if self.rest.jwt_authn and (without := [issuer.name for issuer in self.auth.tokens if issuer.jwks_url is None]):
            raise ValueError(
                f"rest.jwt_authn: Envoy reads keys only from a jwks_url, and {', '.join(without)} in auth.tokens has none"
            )
        return self

    @field_validator("guards")
    @classmethod
    def _one_name_each(cls, guards: tuple[GuardConfig, ...]) -> tuple[GuardConfig, ...]:
        if len({guard.name for guard in guards}) < len(guards):
            raise ValueError("each guard needs a name of its own")
        return guards


def data_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where Antiphon keeps its own files for this user: `$XDG_DATA_HOME/antiphon`, by default `~/.local/share/antiphon`."""
    base = environment.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "antiphon"


def database_url(config: Config) -> str:
    """Where history is kept: as configured, or SQLite in the user's data directory."""
    return config.database.url or f"sqlite:///{data_directory() / 'antiphon.db'}"


def _secret(setting: str, variable: str | None, file: Path | None, environment: Mapping[str, str]) -> SecretStr | None:
    """What the variable or the file holds that `<setting>_env` or `<setting>_file` names; None where neither is set."""
    if variable is not None:
        value = environment.get(variable, "")
        # A key that was put there by mistake is not to be told: names are in capitals, as hardly any key is.
        named = f" {variable}" if _VARIABLE.fullmatch(variable) else ""
        where, missing = f"{setting}_env: the environment variable{named}", "is not set" if named else "that it names is not set"
    elif file is not None:
        where, missing = f"{setting}_file: {file}", "is empty"
        try:
            value = file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ConfigError(f"{where} is not UTF-8") from None
    else:
        return None
    if not value.strip():
        raise ConfigError(f"{where} {missing}")
    if not value.strip().isprintable():
        raise ConfigError(f"{where} holds a line break, or another character that no header may have")
    return SecretStr(value.strip())
