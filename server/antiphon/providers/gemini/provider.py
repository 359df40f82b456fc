"""The provider for the Gemini API.

This module builds the calls. `request` and `response` convert in the two directions, `client` makes the calls.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr
from yarl import URL

from antiphon.config import ProviderConfig
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Transport
from antiphon.providers.client import Prepared, ProviderClient
from antiphon.providers.credentials.auth import authorize
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.gemini.models import FIRST_PAGE, read_page
from antiphon.providers.gemini.request import encode
from antiphon.providers.gemini.response import GeminiReader
from antiphon.providers.host_provider import HostProvider, ModelList
from antiphon.providers.parameters import Parameters
from antiphon.providers.url import MODEL, headers, template

AUTH_HEADER: Final = "x-goog-api-key"

_RESOURCE: Final = "{resource}"
"""The part of a URL that is replaced by the resource name of the model."""

_MODELS: Final = "/v1beta/models"
_WHOLE: Final = f"/v1beta/{_RESOURCE}:generateContent"
_STREAM: Final = f"/v1beta/{_RESOURCE}:streamGenerateContent"

_RESOURCE_NAME: Final = re.compile(r"(?:models|tunedModels)/[^/]+")


class GeminiProvider(HostProvider):
    """One configured host. Needs no event loop until the first call, and then belongs to the loop of that call.

    The base URL is that of Google's SDKs, without a version. Raises `ConfigError` if it is missing or invalid.
    """

    def __init__(self, name: str, config: ProviderConfig, key: SecretStr | TokenCache | None, transport: Transport) -> None:
        self._whole = template(name, config, _WHOLE)
        streamed = template(name, config, _STREAM)
        self._stream = f"{streamed}{'&' if '?' in streamed else '?'}alt=sse"
        models = ModelList(URL(template(name, config, _MODELS).replace(MODEL, "model")), read_page, FIRST_PAGE)
        url = URL(self._whole.replace(MODEL, "model").replace(_RESOURCE, "model"))
        header = config.auth_header if "auth_header" in config.model_fields_set else AUTH_HEADER
        # A value in the query may be a key, too.
        auth = authorize(key, header, headers(), config.headers, url.query.values())
        super().__init__(name, config.unsupported, ProviderClient(name, transport, auth, url), models)

    def _prepare(self, request: ChatRequest) -> Prepared:
        parameters = Parameters(self.name, self._unsupported)
        model = request.model
        name = quote(model, safe="")
        resource = quote(model, safe="/") if _RESOURCE_NAME.fullmatch(model) else f"models/{name}"
        url = URL((self._stream if request.stream else self._whole).replace(_RESOURCE, resource).replace(MODEL, name))
        body = encode(request, self.name, parameters)
        return Prepared(url, body, partial(GeminiReader, request, self.name), warnings=parameters.warnings)
