"""The provider for the Gemini API.

This module builds the calls. `request` and `response` convert in the two directions, `client` makes the calls.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr
from yarl import URL

from antiphon.config import ProviderConfig
from antiphon.domain.events import Batch
from antiphon.domain.models import ModelInfo
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore
from antiphon.net.http import Transport
from antiphon.providers.client import Prepared, ProviderClient
from antiphon.providers.credentials.auth import authorize
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.gemini.models import FIRST_PAGE, read_page
from antiphon.providers.gemini.request import encode
from antiphon.providers.gemini.response import GeminiReader
from antiphon.providers.parameters import Parameters
from antiphon.providers.url import MODEL, headers, template

AUTH_HEADER: Final = "x-goog-api-key"

_RESOURCE: Final = "{resource}"
"""The part of a URL that is replaced by the resource name of the model."""

_MODELS: Final = "/v1beta/models"
_WHOLE: Final = f"/v1beta/{_RESOURCE}:generateContent"
_STREAM: Final = f"/v1beta/{_RESOURCE}:streamGenerateContent"

_RESOURCE_NAME: Final = re.compile(r"(?:models|tunedModels)/[^/]+")


class GeminiProvider:
    """One configured host. Needs no event loop until the first call, and then belongs to the loop of that call.

    The base URL is that of Google's SDKs, without a version. Raises `ConfigError` if it is missing or invalid.
    """

    def __init__(self, name: str, config: ProviderConfig, key: SecretStr | TokenCache | None, transport: Transport) -> None:
        self.name = name
        self._unsupported = config.unsupported
        self._whole = template(name, config, _WHOLE)
        streamed = template(name, config, _STREAM)
        self._stream = f"{streamed}{'&' if '?' in streamed else '?'}alt=sse"
        self._models = URL(template(name, config, _MODELS).replace(MODEL, "model"))
        url = URL(self._whole.replace(MODEL, "model").replace(_RESOURCE, "model"))
        header = config.auth_header if "auth_header" in config.model_fields_set else AUTH_HEADER
        # A value in the query may be a key, too.
        auth = authorize(key, header, headers(), config.headers, url.query.values())
        self._client = ProviderClient(name, transport, auth, url)

    def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        """Send a request, and yield the events of the reply (see `Provider.stream`)."""
        return self._client.stream(request, self._prepare, warn)

    async def probe(self) -> int | None:
        """Return the status of the list of models (see `Provider.probe`)."""
        return await self._client.status_of(self._models)

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """Return the list of models (see `Provider.list_models`)."""
        return await self._client.list_models(self._models.update_query(FIRST_PAGE), read_page)

    @property
    def buffered(self) -> int:
        """Return the bytes received but not read yet (see `Provider.buffered`)."""
        return self._client.buffered

    async def close(self) -> None:
        """Close the connections that are kept open."""
        await self._client.close()

    def _prepare(self, request: ChatRequest) -> Prepared:
        parameters = Parameters(self.name, self._unsupported)
        model = request.model
        name = quote(model, safe="")
        resource = quote(model, safe="/") if _RESOURCE_NAME.fullmatch(model) else f"models/{name}"
        url = URL((self._stream if request.stream else self._whole).replace(_RESOURCE, resource).replace(MODEL, name))
        body = encode(request, self.name, parameters)
        return Prepared(url, body, partial(GeminiReader, request, self.name), warnings=parameters.warnings)
