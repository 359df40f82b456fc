"""The provider for AWS Bedrock's Converse API.

This module builds the calls. `request` and `response` convert in the two directions, `signing` authorizes calls that have no bearer
key, and `client` makes the calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final
from urllib.parse import quote

from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.config import ConfigError, ProviderConfig
from antiphon.domain.models import ModelInfo
from antiphon.domain.request import ChatRequest
from antiphon.net import outbound
from antiphon.net.http import Transport
from antiphon.providers.bedrock import credentials
from antiphon.providers.bedrock.models import FIRST_PROFILES, merged, read_models, read_profiles
from antiphon.providers.bedrock.request import encode
from antiphon.providers.bedrock.response import BedrockReader
from antiphon.providers.bedrock.signing import SignatureAuth
from antiphon.providers.client import Auth, Prepared, ProviderClient
from antiphon.providers.credentials.auth import authorize
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.host_provider import HostProvider, ModelList
from antiphon.providers.parameters import Parameters
from antiphon.providers.regions import CONTROL, RUNTIME, endpoint, region_in, region_of
from antiphon.providers.url import MODEL, headers, template

_WHOLE: Final = f"/model/{MODEL}/converse"
_STREAM: Final = f"{_WHOLE}-stream"
_MODELS: Final = "/foundation-models"
_PROFILES: Final = "/inference-profiles"
"""The list of models, at the host of the control plane."""

_PLACE: Final = "model-goes-here"
"""Stands for `MODEL` while a URL is normalized."""


class BedrockProvider(HostProvider):
    """One region of Bedrock. Needs no event loop until the first call, and then belongs to the loop of that call.

    A bearer key is used if there is one, else the AWS credentials of the environment, with which each request is signed.

    Raises `ConfigError` if the base URL is missing or invalid, if there is neither a key nor credentials, or no region to sign for.
    """

    def __init__(
        self,
        name: str,
        config: ProviderConfig,
        key: SecretStr | TokenCache | None,
        transport: Transport,
        environment: Mapping[str, str],
    ) -> None:
        """`environment` has the AWS credentials of a provider without a key, and the region if nothing else names one."""
        self._whole = _normal(template(name, config, _WHOLE))
        self._stream = _normal(template(name, config, _STREAM))
        url = URL(self._stream.replace(MODEL, "model"))
        host = url.host or ""
        models: ModelList | None = None
        if (region := region_of(host)) is not None and host == URL(endpoint(RUNTIME, region)).host:
            models = ModelList(URL(endpoint(CONTROL, region) + _MODELS), read_models)
        self._signing: SignatureAuth | None = None
        auth: Auth
        if key is None:
            auth = self._signing = _signing(name, config, host, environment)
        else:
            # A value in the query may be a key, too.
            auth = authorize(key, config.auth_header, _headers(), config.headers, url.query.values())
        super().__init__(name, config.unsupported, ProviderClient(name, transport, auth, url), models)

    async def list_models(self) -> tuple[ModelInfo, ...] | None:
        """Return the models and profiles of the region (see `Provider.list_models`); None where no control plane is known."""
        models = await super().list_models()
        if models is None or self._models is None:
            return None
        profiles = self._models.url.with_path(_PROFILES).with_query(FIRST_PROFILES)
        return merged(models, await self._client.list_models(profiles, read_profiles))

    async def close(self) -> None:
        """Close the connections that are kept open."""
        if self._signing is not None:
            await self._signing.close()
        await super().close()

    def _prepare(self, request: ChatRequest) -> Prepared:
        text = self._stream if request.stream else self._whole
        # As AWS's SDKs write a path: the signature is over these very characters.
        url = URL(text.replace(MODEL, quote(request.model, safe="")), encoded=True)
        parameters = Parameters(self.name, self._unsupported)
        body = encode(request, self.name, parameters)
        return Prepared(url, body, partial(BedrockReader, request, self.name), warnings=parameters.warnings)


def _signing(name: str, config: ProviderConfig, host: str, environment: Mapping[str, str]) -> SignatureAuth:
    """Return the signer of requests to `host`. Raises `ConfigError`."""
    region = config.region or region_of(host) or region_in(environment)
    if region is None:
        raise ConfigError(f"providers.{name}.region: set it, or AWS_REGION")
    way = outbound.build(f"providers.{name}", config, environment)
    source = credentials.find(name, environment, region, way)
    if source is None:
        raise ConfigError(f"providers.{name}: set AWS_BEARER_TOKEN_BEDROCK, or AWS credentials")
    return SignatureAuth(name, source, region, _headers(), config.headers)


def _headers() -> CIMultiDict[str]:
    fixed = headers()
    fixed["accept"] = "application/json, application/vnd.amazon.eventstream"
    return fixed


def _normal(text: str) -> str:
    """Return a URL in the form in which it is sent, with `MODEL` still in it."""
    return str(URL(text.replace(MODEL, _PLACE))).replace(_PLACE, MODEL)
