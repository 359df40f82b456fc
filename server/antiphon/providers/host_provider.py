"""What providers that call one host have in common: everything but the request and the readers of their protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping

from msgspec import Struct
from yarl import URL

from antiphon.config import UnsupportedPolicy
from antiphon.domain.events import Batch
from antiphon.domain.models import ModelInfo
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore
from antiphon.providers.client import Prepared, ProviderClient
from antiphon.providers.model_list import ReadPage


class ModelList(Struct, frozen=True):
    """Where a host lists its models."""

    url: URL
    read_page: ReadPage | None = None
    """None: what it lists is not what can be called, so that the URL serves to try the key alone."""
    first_page: Mapping[str, str] = {}
    """The query of the first page."""


class HostProvider(ABC):
    """One configured host (see `Provider`). Needs no event loop until the first call, and then belongs to the loop of that call."""

    def __init__(self, name: str, unsupported: UnsupportedPolicy, client: ProviderClient, models: ModelList | None) -> None:
        """`models`: with which the key can be tried, too; None: there is no list."""
        self.name = name
        self._unsupported: UnsupportedPolicy = unsupported
        self._client = client
        self._models = models

    def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        """Send a request, and yield the events of the reply (see `Provider.stream`)."""
        return self._client.stream(request, self._prepare, warn)

    async def probe(self) -> int | None:
        """Return the status of the list of models (see `Provider.probe`)."""
        return None if self._models is None else await self._client.status_of(self._models.url)

    async def list_models(self) -> tuple[ModelInfo, ...] | None:
        """Return the list of models (see `Provider.list_models`)."""
        models = self._models
        if models is None or models.read_page is None:
            return None
        return await self._client.list_models(models.url.update_query(models.first_page), models.read_page)

    @property
    def buffered(self) -> int:
        """Return the bytes received but not read yet (see `Provider.buffered`)."""
        return self._client.buffered

    async def close(self) -> None:
        """Close the connections that are kept open."""
        await self._client.close()

    @abstractmethod
    def _prepare(self, request: ChatRequest) -> Prepared:
        """Return the call of a request. Raises `Unsupported`, and `InvalidRequest` for data that cannot be sent."""
