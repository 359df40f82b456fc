"""The provider for the OpenAI chat-completions protocol: OpenAI, Azure, and every compatible host.

This module builds the calls. `request` and `response` convert in the two directions, `providers.client` makes the
calls. Hosts are rows in `hosts`.
"""

from __future__ import annotations

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
from antiphon.providers.host_provider import HostProvider, ModelList
from antiphon.providers.hosts import lists_models
from antiphon.providers.openai.capabilities import capabilities_of
from antiphon.providers.openai.plain import read_plain
from antiphon.providers.openai.request import encode
from antiphon.providers.openai.response import OpenAIReader
from antiphon.providers.openai_model_list import read_page
from antiphon.providers.parameters import Parameters
from antiphon.providers.url import MODEL, headers, template

_PATH: Final = "/chat/completions"
_MODELS: Final = "/models"


class OpenAIProvider(HostProvider):
    """One configured host. Needs no event loop until the first call, and then belongs to the loop of that call.

    Raises `ConfigError` if the base URL is missing or invalid. A `{model}` in it is replaced by the model's name.
    """

    def __init__(self, name: str, config: ProviderConfig, key: SecretStr | TokenCache | None, transport: Transport) -> None:
        self._url = template(name, config, _PATH)
        self._fixed_url = None if MODEL in self._url else URL(self._url)
        has_list = self._fixed_url is not None and lists_models(name, config.base_url)
        models = ModelList(URL(template(name, config, _MODELS).replace(MODEL, "model")), read_page if has_list else None)
        self._stream_usage = config.stream_usage
        self._capabilities = capabilities_of(name, config.base_url)
        url = URL(self._url.replace(MODEL, "model"))
        # A value in the query may be a key, too.
        auth = authorize(key, config.auth_header, headers(), config.headers, url.query.values())
        super().__init__(name, config.unsupported, ProviderClient(name, transport, auth, url), models)

    def _prepare(self, request: ChatRequest) -> Prepared:
        parameters = Parameters(self.name, self._unsupported)
        body = encode(request, self.name, parameters, stream_usage=self._stream_usage, host=self._capabilities)
        url = self._fixed_url if self._fixed_url is not None else URL(self._url.replace(MODEL, quote(request.model, safe="")))
        reader = partial(OpenAIReader, request, self.name, self._capabilities.names)
        plain = partial(read_plain, provider=self.name, model=request.model)
        return Prepared(url, body, reader, warnings=parameters.warnings, plain=plain)
