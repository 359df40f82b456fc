"""Builds the source of tokens that a provider's settings ask for.

Nothing is guessed: the configuration names one kind, and its usual environment variables only fill in what it leaves out. A
metadata service is asked only if a kind of it is named, at an address of the configuration or the environment, and never through
the provider's outbound proxy; no caller has a say in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

from antiphon.config import ConfigError, TokenConfig, TokenKind
from antiphon.net.fetch import Fetcher
from antiphon.net.outbound import Outbound
from antiphon.providers.credentials import entra, google
from antiphon.providers.credentials.endpoint import Endpoint, metadata_url, token_url
from antiphon.providers.credentials.google_file import GoogleFile
from antiphon.providers.credentials.subject import SubjectToken
from antiphon.providers.credentials.token import TokenSource

_LINK_LOCAL = "http://169.254.169.254"
"""Where machines of both clouds have their metadata service. Digits, so that no name is looked up."""

_GOOGLE_TOKEN = "/computeMetadata/v1/instance/service-accounts/{}/token"  # noqa: S105 - a path
_IMDS_TOKEN = "/metadata/identity/oauth2/token"  # noqa: S105 - a path


class _Settings:
    """The settings at one place, each with the environment variable that stands in for it."""

    def __init__(self, config: TokenConfig, section: str, environment: Mapping[str, str]) -> None:
        self.config = config
        self.section = section
        self._environment = environment

    def variable(self, name: str) -> str | None:
        return self._environment.get(name, "").strip() or None

    def required(self, field: str, variable: str) -> tuple[str, str]:
        """Return the value of a setting or its variable, and where it is from. Raises `ConfigError` if neither is set."""
        value = getattr(self.config, field)
        if value is not None:
            return str(value), f"{self.section}.{field}"
        found = self.variable(variable)
        if found is None:
            raise ConfigError(f"{self.section}.{field}: set it, or {variable}")
        return found, variable


def token_source(
    config: TokenConfig, section: str, environment: Mapping[str, str], fetcher: Fetcher, outbound: Outbound
) -> TokenSource:
    """Return the source that the settings at `section` ask for. Reads the files they name, and opens no connection.

    Raises `ConfigError` for settings that are missing or wrong, without any secret.
    """
    settings = _Settings(config, section, environment)
    match config.kind:
        case TokenKind.GOOGLE:
            return _google_file(settings, fetcher, outbound)
        case TokenKind.GOOGLE_METADATA:
            return _google_metadata(settings, fetcher)
        case TokenKind.ENTRA_SECRET | TokenKind.ENTRA_WORKLOAD:
            return _entra_application(settings, environment, fetcher, outbound)
        case TokenKind.ENTRA_MANAGED:
            return _managed_identity(settings, fetcher)


def _google_file(settings: _Settings, fetcher: Fetcher, outbound: Outbound) -> GoogleFile:
    from antiphon.providers.credentials.signing import signer

    path, where = settings.required("file", "GOOGLE_APPLICATION_CREDENTIALS")
    scope = settings.config.scope or google.SCOPE
    return GoogleFile(Path(path), where, scope, lambda url: Endpoint(fetcher, url, outbound), signer)


def _google_metadata(settings: _Settings, fetcher: Fetcher) -> google.MetadataServer:
    base, where = settings.config.metadata_url, f"{settings.section}.metadata_url"
    if base is None:
        host = settings.variable("GCE_METADATA_HOST")
        base, where = (_LINK_LOCAL, where) if host is None else (f"http://{host}", "GCE_METADATA_HOST")
    path = _GOOGLE_TOKEN.format(quote(settings.config.account, safe=""))
    query = f"?{urlencode({'scopes': settings.config.scope or google.SCOPE})}"
    return google.MetadataServer(Endpoint(fetcher, metadata_url(f"{base.rstrip('/')}{path}{query}", where)))


def _entra_application(
    settings: _Settings, environment: Mapping[str, str], fetcher: Fetcher, outbound: Outbound
) -> entra.ClientSecret | entra.WorkloadIdentity:
    config, section = settings.config, settings.section
    tenant, _ = settings.required("tenant_id", "AZURE_TENANT_ID")
    client_id, _ = settings.required("client_id", "AZURE_CLIENT_ID")
    authority, where = config.authority, f"{section}.authority"
    if authority is None:
        authority, where = settings.variable("AZURE_AUTHORITY_HOST") or entra.AUTHORITY, "AZURE_AUTHORITY_HOST"
        authority = authority if "://" in authority else f"https://{authority}"
    url = token_url(f"{authority.rstrip('/')}/{quote(tenant, safe='')}/oauth2/v2.0/token", where)
    endpoint = Endpoint(fetcher, url, outbound)
    scope = config.scope or entra.SCOPE
    if config.kind is TokenKind.ENTRA_WORKLOAD:
        path, _ = settings.required("token_file", "AZURE_FEDERATED_TOKEN_FILE")
        return entra.WorkloadIdentity(endpoint, client_id, SubjectToken(Path(path)), scope)
    secret = config.client_secret(section, environment)
    assert secret is not None, "a variable has a default"
    return entra.ClientSecret(endpoint, client_id, secret.get_secret_value(), scope)


def _managed_identity(settings: _Settings, fetcher: Fetcher) -> entra.ManagedIdentity:
    """Return the source of App Service and Container Apps where they announce one, otherwise that of a machine (IMDS)."""
    config = settings.config
    query = {"resource": (config.scope or entra.SCOPE).removesuffix(entra.DEFAULT)}
    if (client_id := config.client_id or settings.variable("AZURE_CLIENT_ID")) is not None:
        query["client_id"] = client_id
    secret, announced = settings.variable("IDENTITY_HEADER"), settings.variable("IDENTITY_ENDPOINT")
    if config.metadata_url is None and announced is not None and secret is not None:
        base, where, version, sent = announced, "IDENTITY_ENDPOINT", "2019-08-01", {"x-identity-header": secret}
    else:
        base, where = f"{(config.metadata_url or _LINK_LOCAL).rstrip('/')}{_IMDS_TOKEN}", f"{settings.section}.metadata_url"
        version, sent = "2018-02-01", {"metadata": "true"}
    url = metadata_url(f"{base}?{urlencode({'api-version': version, **query})}", where)
    return entra.ManagedIdentity(Endpoint(fetcher, url), sent)
