"""Google's grants: each turns what a credentials file holds into an access token. No reading of files but of subject tokens.

https://google.aip.dev/auth/4112 (service accounts), /4113 (users), /4117 (workload identity federation) and
https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken (impersonation).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from antiphon.providers.credentials.endpoint import Endpoint, read_token
from antiphon.providers.credentials.subject import SubjectToken
from antiphon.providers.credentials.token import AccessToken, TokenSource

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"

_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind

_LIFETIME: Final = 3600
"""Seconds for which a token is asked; the longest that all kinds allow."""

Sign = Callable[[Mapping[str, object]], str]
"""Returns the signed JWT (RS256) of claims."""


class ServiceAccount:
    """Sends a JWT that is signed with the account's key."""

    headers: Mapping[str, str] = {}

    def __init__(self, endpoint: Endpoint, audience: str, email: str, sign: Sign, scope: str) -> None:
        """`audience` is the `token_uri`, letter for letter."""
        self._endpoint = endpoint
        self._claims = {"iss": email, "aud": audience, "scope": scope}
        self._sign = sign

    async def fetch(self) -> AccessToken:
        now = int(time.time())
        assertion = self._sign({**self._claims, "iat": now, "exp": now + _LIFETIME})
        return read_token(await self._endpoint.post_form({"grant_type": _JWT_BEARER, "assertion": assertion}))


class User:
    """Sends the refresh token of a person, as `gcloud auth application-default login` leaves it."""

    headers: Mapping[str, str] = {}

    def __init__(self, endpoint: Endpoint, client_id: str, client_secret: str, refresh_token: str) -> None:
        self._endpoint = endpoint
        self._form = {
            "grant_type": "refresh_token",
            "client_id": client_id,
            "client_secret": client_secret,
            "refresh_token": refresh_token,
        }

    async def fetch(self) -> AccessToken:
        return read_token(await self._endpoint.post_form(self._form))


class Federated:
    """Exchanges the token of another identity provider (RFC 8693)."""

    headers: Mapping[str, str] = {}

    def __init__(self, endpoint: Endpoint, subject: SubjectToken, audience: str, subject_type: str, scope: str) -> None:
        self._endpoint = endpoint
        self._subject = subject
        self._form = {
            "grant_type": _EXCHANGE,
            "audience": audience,
            "scope": scope,
            "requested_token_type": _ACCESS_TOKEN,
            "subject_token_type": subject_type,
        }

    async def fetch(self) -> AccessToken:
        subject = await asyncio.to_thread(self._subject.read)
        return read_token(await self._endpoint.post_form({**self._form, "subject_token": subject}))


class Impersonated:
    """Asks for the token of a service account with the token of another identity, which may do so."""

    headers: Mapping[str, str] = {}

    def __init__(self, endpoint: Endpoint, source: TokenSource, scope: str, delegates: Sequence[str] = ()) -> None:
        self._endpoint = endpoint
        self._source = source
        self._body: dict[str, object] = {"scope": [scope], "lifetime": f"{_LIFETIME}s"}
        if delegates:
            self._body["delegates"] = list(delegates)

    async def fetch(self) -> AccessToken:
        token = await self._source.fetch()
        found = await self._endpoint.post_json(self._body, {"authorization": f"Bearer {token.value}"})
        return read_token(found, value="accessToken")


class MetadataServer:
    """Asks the metadata server of a machine of Google Cloud: https://cloud.google.com/compute/docs/metadata/overview."""

    headers: Mapping[str, str] = {}

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def fetch(self) -> AccessToken:
        # Whoever answers without the header is another host at this address.
        flavor = {"metadata-flavor": "Google"}
        return read_token(await self._endpoint.get(flavor, answered_with=flavor))
