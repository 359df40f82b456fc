"""The grants of Microsoft Entra: each turns the identity of an application into an access token.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow (secrets and federated tokens),
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token (machines), and
https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference (App Service, Container Apps).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from antiphon.providers.credentials.endpoint import Endpoint, read_token
from antiphon.providers.credentials.subject import SubjectToken
from antiphon.providers.credentials.token import AccessToken

SCOPE: Final = "https://cognitiveservices.azure.com/.default"
AUTHORITY: Final = "https://login.microsoftonline.com"

DEFAULT: Final = "/.default"
"""The end of a scope that means a whole resource. A managed identity is asked by the resource alone."""

_JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class ClientSecret:
    """Sends the secret of an application."""

    headers: Mapping[str, str] = {}

    def __init__(self, endpoint: Endpoint, client_id: str, client_secret: str, scope: str) -> None:
        self._endpoint = endpoint
        self._form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
            "scope": scope,
        }

    async def fetch(self) -> AccessToken:
        return read_token(await self._endpoint.post_form(self._form))


class WorkloadIdentity:
    """Sends the token of a workload that an application trusts, such as that of a pod's service account."""

    headers: Mapping[str, str] = {}

    def __init__(self, endpoint: Endpoint, client_id: str, subject: SubjectToken, scope: str) -> None:
        self._endpoint = endpoint
        self._subject = subject
        self._form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_assertion_type": _JWT_BEARER,
            "scope": scope,
        }

    async def fetch(self) -> AccessToken:
        assertion = await asyncio.to_thread(self._subject.read)
        return read_token(await self._endpoint.post_form({**self._form, "client_assertion": assertion}))


class ManagedIdentity:
    """Asks the service of the machine, whose URL names the resource and the identity."""

    headers: Mapping[str, str] = {}

    def __init__(self, endpoint: Endpoint, sent: Mapping[str, str]) -> None:
        """`sent` are the headers that the service requires."""
        self._endpoint = endpoint
        self._sent = sent

    async def fetch(self) -> AccessToken:
        return read_token(await self._endpoint.get(self._sent))
