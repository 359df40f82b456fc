"""The provider for Vertex AI: models of Google and of Anthropic.

This module builds the calls. `request` encodes them, and the readers are those of the publishers' own APIs, in the folders `gemini`
and `anthropic`; `client` makes the calls.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr
from yarl import URL

from antiphon.config import ConfigError, ProviderConfig
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Transport
from antiphon.providers.anthropic.provider import BETAS_HEADER
from antiphon.providers.anthropic.request import betas
from antiphon.providers.anthropic.response import AnthropicReader
from antiphon.providers.client import Prepared, ProviderClient
from antiphon.providers.credentials.auth import authorize
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.gemini.provider import AUTH_HEADER
from antiphon.providers.gemini.response import GeminiReader
from antiphon.providers.host_provider import HostProvider, ModelList
from antiphon.providers.parameters import Parameters
from antiphon.providers.url import MODEL, headers, template
from antiphon.providers.vertex import resource
from antiphon.providers.vertex.request import encode
from antiphon.providers.vertex.resource import VertexModel, find_model, parent

_METHOD: Final = "{method}"
"""The part of a URL that is replaced by the path of the model and the method."""

_GOOGLE_HOSTS: Final = ".googleapis.com"

# The version of Google's SDKs: what a model can do arrives there first.
_VERSION: Final = "/v1beta1"
_MODELS: Final = f"{_VERSION}/publishers/google/models"


class VertexProvider(HostProvider):
    """One project and location, or express mode. Belongs to the event loop of its first call.

    The base URL is that of Google's SDKs, without a version. Raises `ConfigError` if it or the project is missing or
    invalid.
    """

    def __init__(self, name: str, config: ProviderConfig, key: SecretStr | TokenCache | None, transport: Transport) -> None:
        if config.project is None and not isinstance(key, SecretStr):
            raise ConfigError(f"providers.{name}.project: set it, or GOOGLE_CLOUD_PROJECT; only an API key works without")
        if key is None and not config.headers and (URL(config.base_url or "").host or "").endswith(_GOOGLE_HOSTS):
            raise ConfigError(f"providers.{name}.credentials: set it, or GOOGLE_APPLICATION_CREDENTIALS, or an API key")
        self._url = template(name, config, f"{_VERSION}/{parent(config.project, config.location)}{_METHOD}")
        # Google lists what it offers, not what the project may use.
        models = ModelList(URL(template(name, config, _MODELS).replace(MODEL, "model")))
        url = URL(self._url.replace(MODEL, "model").replace(_METHOD, "model"))
        header = config.auth_header if "auth_header" in config.model_fields_set else AUTH_HEADER
        # A value in the query may be a key, too.
        auth = authorize(key, header, headers(), config.headers, url.query.values())
        self._betas = next((value for header, value in config.headers.items() if header.lower() == BETAS_HEADER), "")
        super().__init__(name, config.unsupported, ProviderClient(name, transport, auth, url), models)

    def _prepare(self, request: ChatRequest) -> Prepared:
        """Return the call of a model. Raises `Unsupported` for one of another publisher."""
        parameters = Parameters(self.name, self._unsupported)
        body = encode(request, self.name, parameters)
        model = find_model(request.model)
        if model.publisher == resource.ANTHROPIC:
            wanted = betas(request)
            more = {} if wanted is None else {BETAS_HEADER: ",".join(filter(None, (self._betas, wanted)))}
            url = self._call(model, "streamRawPredict")
            return Prepared(url, body, partial(AnthropicReader, request, self.name), more, parameters.warnings)
        method = "streamGenerateContent" if request.stream else "generateContent"
        url = self._call(model, method, "alt=sse" if request.stream else "")
        return Prepared(url, body, partial(GeminiReader, request, self.name), warnings=parameters.warnings)

    def _call(self, model: VertexModel, method: str, query: str = "") -> URL:
        url = self._url.replace(_METHOD, f"{model.path}:{method}").replace(MODEL, quote(model.name, safe="@"))
        return URL(f"{url}{'&' if '?' in url else '?'}{query}" if query else url)
