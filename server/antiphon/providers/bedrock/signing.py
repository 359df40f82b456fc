"""Signs requests with AWS's Signature Version 4, by botocore's signer alone, which the extra `antiphon[bedrock]` installs.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. The signer is not a part of the package
itself because its wheel is large, 15 MB with the descriptions of all services, and bearer keys need none. It is imported only where
it is used: that takes 2 MB and 0.1 s.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.config import ConfigError
from antiphon.providers.bedrock.credentials import CredentialSource
from antiphon.providers.client import Credentials

INSTALLED: Final = find_spec("botocore") is not None

_SERVICE: Final = "bedrock"
"""The name of the service in a signature."""

_SIGNED: Final = ("content-type", "host")
"""The headers that are signed, if a request has them, beside those of the signature. A proxy on the way may change others."""


class SignatureAuth:
    """Authorizes calls by a signature over each request."""

    fixed: Final = None

    def __init__(
        self, provider: str, source: CredentialSource, region: str, headers: CIMultiDict[str], configured: Mapping[str, str]
    ) -> None:
        """`headers` are those of the protocol, overridden by the `configured` ones.

        Raises `ConfigError` if the extra is not installed.
        """
        if not INSTALLED:
            raise ConfigError(f"providers.{provider}: signing by AWS credentials needs an extra: pip install 'antiphon[bedrock]'")
        logging.getLogger("botocore.auth").setLevel(logging.INFO)  # below, it logs what it signs, with the session's token
        self._signer = import_module("botocore.auth").SigV4Auth
        self._request = import_module("botocore.awsrequest").AWSRequest
        self._source = source
        self._region = region
        self._headers = headers
        for name, value in configured.items():
            self._headers[name.lower()] = value
        self._secrets = tuple(configured.values())

    async def credentials(self, url: URL, body: bytes, own_key: SecretStr | None) -> Credentials:
        """Return the authorization of a call. The key of a caller is a bearer key.

        A request without a body is a GET. Raises `ProviderUnavailable` if there are no credentials.
        """
        headers = self._headers.copy()
        if own_key is not None:
            key = own_key.get_secret_value()
            headers["authorization"] = f"Bearer {key}"
            return Credentials(headers, (*self._secrets, key))
        found = await self._source.get()
        signed = self._request(
            method="POST" if body else "GET",
            url=str(url),
            headers={name: headers[name] for name in _SIGNED if name in headers},
            data=body,
        )
        self._signer(found, _SERVICE, self._region).add_auth(signed)
        for name, value in signed.headers.items():
            headers[name.lower()] = value
        token = () if found.token is None else (found.token,)
        return Credentials(headers, (*self._secrets, found.secret_key, *token))

    async def replacement(self, refused: Credentials) -> Credentials | None:
        """Return None: credentials are fetched again long before they expire."""
        return None

    async def close(self) -> None:
        """Stop fetching credentials."""
        await self._source.close()
