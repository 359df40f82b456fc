"""Finds AWS credentials where the platform puts them: in variables, or at a service of the platform, which rotates them.

The order is that of AWS's SDKs, https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html, without files of
profiles and without the metadata service of EC2, whose role every process of a machine has:

1. `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for temporary ones, `AWS_SESSION_TOKEN`.
2. `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`, as EKS sets them for a service account: STS exchanges the token in the file.
3. `AWS_CONTAINER_CREDENTIALS_FULL_URI` or `..._RELATIVE_URI`, as EKS Pod Identity and ECS set them: an agent at the node answers.

The addresses are the operator's, never a caller's. An agent is only asked at the addresses that AWS gives to agents, at loopback,
or over HTTPS, so that a variable alone cannot send the token elsewhere.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import httpx2
import orjson
from msgspec import Struct

from antiphon.config import ConfigError
from antiphon.domain.errors import ProviderUnavailable
from antiphon.net.fetch import Fetcher, FetchFailed
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.net.refreshing import Refreshing, Times
from antiphon.providers.regions import STS, endpoint

_TIMES: Final = Times(ttl=300, stale=300, retry=10)
"""Fetched credentials live for 15 minutes at least, and are fetched anew each five, so that none expires while it is used."""

_SECONDS: Final = 10.0
"""The most seconds for one fetch."""

_LIMIT: Final = 64 * 1024
"""The most bytes of an answer."""

_AGENTS: Final = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost", "127.0.0.1", "::1"})
"""The hosts that may be asked over plain HTTP."""

_ECS: Final = "http://169.254.170.2"
_SESSION_NAME: Final = "antiphon"
_VERSION: Final = "2011-06-15"
_NAMES_IN_XML: Final = ("AccessKeyId", "SecretAccessKey", "SessionToken")


class AwsCredentials(Struct, frozen=True):
    """What a request is signed with. `token` is None for credentials that do not expire. The names are those of AWS's signer."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "AwsCredentials(...)"


class CredentialSource(Protocol):
    """Where credentials come from."""

    async def get(self) -> AwsCredentials:
        """Return valid credentials. Raises `ProviderUnavailable`."""
        ...

    async def close(self) -> None:
        """Stop what is in progress."""
        ...


class Fixed:
    """Credentials in variables."""

    def __init__(self, credentials: AwsCredentials) -> None:
        self._credentials = credentials

    async def get(self) -> AwsCredentials:
        """Return the credentials."""
        return self._credentials

    async def close(self) -> None:
        """Do nothing."""


class Fetched:
    """Credentials of a service of the platform, fetched again before they expire."""

    def __init__(self, provider: str, request: _Request) -> None:
        self._provider = provider
        self._request = request
        self._fetcher = Fetcher()
        self._refreshing = Refreshing(self._fetch, _TIMES, (ProviderUnavailable,))

    async def get(self) -> AwsCredentials:
        """Return the credentials. Raises `ProviderUnavailable`."""
        return await self._refreshing.get()

    async def close(self) -> None:
        """Stop a fetch in progress."""
        await self._refreshing.close()
        await self._fetcher.close()

    async def _fetch(self) -> AwsCredentials:
        try:
            url, headers = self._request.build()
            async with asyncio.timeout(_SECONDS):
                body = await self._fetcher.get(url, headers, _LIMIT, self._request.outbound)
            return self._request.read(body)
        except (FetchFailed, OSError, ValueError, LookupError, TypeError) as error:  # a TimeoutError is an OSError
            raise ProviderUnavailable(
                f"The credentials for the provider {self._provider} could not be fetched.", provider=self._provider
            ) from error


class _Request(Protocol):
    """A request for credentials."""

    outbound: Outbound

    def build(self) -> tuple[httpx2.URL, dict[str, str]]:
        """Return the URL and the headers. Raises `OSError`, `ValueError`."""
        ...

    def read(self, body: bytes) -> AwsCredentials:
        """Return the credentials in an answer. Raises `ValueError`, `LookupError`, `TypeError`."""
        ...


class _WebIdentity:
    """Exchanges the token in a file, which the platform rotates, for credentials of a role.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html. This request has no signature.
    """

    def __init__(self, base_url: str, role: str, file: Path, session: str, outbound: Outbound) -> None:
        self._base_url = base_url
        self._role = role
        self._file = file
        self._session = session
        self.outbound = outbound

    def build(self) -> tuple[httpx2.URL, dict[str, str]]:
        """Return the URL with the token as it is now."""
        query = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": _VERSION,
            "RoleArn": self._role,
            "RoleSessionName": self._session,
            "WebIdentityToken": self._file.read_text().strip(),
        }
        return httpx2.URL(f"{self._base_url}/?{urlencode(query)}"), {"accept": "application/xml"}

    def read(self, body: bytes) -> AwsCredentials:
        """Return the credentials in an answer, which is XML. None of the values has a character that XML escapes."""
        text = body.decode()
        found = [re.search(rf"<{name}>\s*([A-Za-z0-9+/=_-]+)\s*</{name}>", text) for name in _NAMES_IN_XML]
        values = [one[1] for one in found if one is not None]
        if len(values) != len(_NAMES_IN_XML):
            raise ValueError("credentials")
        return AwsCredentials(*values)


class _Agent:
    """Asks the agent of a container's node.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """

    def __init__(self, url: httpx2.URL, token: str, file: Path | None) -> None:
        self._url = url
        self._token = token
        self._file = file
        self.outbound = DIRECT

    def build(self) -> tuple[httpx2.URL, dict[str, str]]:
        """Return the URL, and the token as it is now."""
        token = self._token if self._file is None else self._file.read_text().strip()
        if "\n" in token or "\r" in token:
            raise ValueError("token")
        return self._url, {"accept": "application/json", **({"authorization": token} if token else {})}

    def read(self, body: bytes) -> AwsCredentials:
        """Return the credentials in an answer, which is JSON."""
        fields: dict[str, Any] = orjson.loads(body)
        values = [fields[name] for name in ("AccessKeyId", "SecretAccessKey", "Token")]
        if not all(isinstance(value, str) and value for value in values):
            raise ValueError("credentials")
        return AwsCredentials(*values)


def find(provider: str, environment: Mapping[str, str], region: str, outbound: Outbound = DIRECT) -> CredentialSource | None:
    """Return the source that the environment names; None if it names none. `outbound` is how STS is reached.

    Raises `ConfigError` for an address that must not be asked.
    """

    def get(name: str) -> str:
        return environment.get(name, "").strip()

    if (key := get("AWS_ACCESS_KEY_ID")) and (secret := get("AWS_SECRET_ACCESS_KEY")):
        return Fixed(AwsCredentials(key, secret, get("AWS_SESSION_TOKEN") or None))
    if (file := get("AWS_WEB_IDENTITY_TOKEN_FILE")) and (role := get("AWS_ROLE_ARN")):
        sts = get("AWS_ENDPOINT_URL_STS").rstrip("/") or endpoint(STS, region)
        session = get("AWS_ROLE_SESSION_NAME") or _SESSION_NAME
        return Fetched(provider, _WebIdentity(sts, role, Path(file), session, outbound))
    relative = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    full = f"{_ECS}/{relative.lstrip('/')}" if relative else get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if not full:
        return None
    token_file = get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    agent = _Agent(_agent_url(full), get("AWS_CONTAINER_AUTHORIZATION_TOKEN"), Path(token_file) if token_file else None)
    return Fetched(provider, agent)


def _agent_url(text: str) -> httpx2.URL:
    """Return the URL of an agent. Raises `ConfigError` if it is not one that may be asked."""
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        raise ConfigError("AWS_CONTAINER_CREDENTIALS_FULL_URI: is not a valid URL") from None
    if not url.host or not (url.scheme == "https" or (url.scheme == "http" and url.host.strip("[]") in _AGENTS)):
        raise ConfigError("AWS_CONTAINER_CREDENTIALS_FULL_URI: must be HTTPS, loopback, or the address of an agent of AWS")
    return url
