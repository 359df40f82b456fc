"""The catalogue of models: those of the configuration, and those that the providers list and the configuration allows.

It is only for callers who want to know which models there are. No model call reads it, so no failing or slow provider can delay or
change an answer, and nothing is read before the first caller asks for models.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.errors import ProviderError, ProviderTimeout
from antiphon.domain.models import ModelInfo, TokenPrices
from antiphon.domain.principal import Principal
from antiphon.net.http_errors import reason_of
from antiphon.net.refreshing import Clock, Refreshing, Times
from antiphon.providers.base import Provider
from antiphon.routing.router import Router

_PATIENCE: Final = 5.0
"""The most seconds that a caller waits for lists that were never read. It gets the others, and the next caller all of them."""

_LONGEST_READ: Final = 15.0
"""The most seconds that reading one list may take."""

_RETRY: Final = 60.0
"""Seconds before a list that could not be read is tried again."""

_AT_ONCE: Final = 4
"""Models looked up in the price data before other calls get their turn: each takes up to 1 ms."""

_log: Final = structlog.get_logger(__name__)


class ModelFacts(Protocol):
    """What is known of models apart from the providers' lists."""

    def configured(self, provider: str, model: str) -> TokenPrices | None:
        """Return the configured prices, which apply whatever the provider lists."""
        ...

    def published(self, provider: str, model: str) -> ModelInfo | None:
        """Return what is published of a model; None if it is not known."""
        ...


class CatalogEntry(Struct, frozen=True):
    """A model that can be requested: by `name`, from `provider`, which calls it `info.name`."""

    name: str
    provider: str
    is_default: bool
    info: ModelInfo


class Catalog:
    """The models that callers may request."""

    def __init__(
        self,
        router: Router,
        providers: Iterable[Provider],
        facts: ModelFacts,
        *,
        list_providers: bool = True,
        refresh: float = 3600.0,
        patience: float = _PATIENCE,
        clock: Clock = time.monotonic,
    ) -> None:
        """Take the providers to ask for their lists, and the age in seconds at which a list is read again: `refresh`.

        `list_providers` False: no provider is asked. `patience` is the most seconds that a caller waits for its first list.
        """
        self._router = router
        default = router.resolve("")
        self._default = ("", "") if default.alias else (default.provider.name, default.model)
        self._facts = facts
        self._patience = patience
        self._lists: dict[str, _ProviderList] = {}
        for provider in providers if list_providers else ():
            # Of several deployments the first one is asked: all have the same models.
            self._lists.setdefault(provider.name.partition("/")[0], _ProviderList(provider, refresh, clock))
        self._entries: dict[str, tuple[Sequence[ModelInfo], tuple[CatalogEntry, ...]]] = {}
        """The entries of each provider, and the list that they were made of."""

    async def models(self, caller: Principal, time_left: float | None = None) -> list[CatalogEntry]:
        """Return the models that `caller` may use, sorted by name. Waits for lists that were never read, at most for a moment.

        `time_left` is the time in seconds that the caller waits.
        """
        await self._wait(self._lists.values(), time_left)
        found = [
            entry
            for provider in self._router.providers()
            for entry in await self._of(provider)
            if caller.may_use(entry.info.name, entry.provider)
        ]
        found += [
            CatalogEntry(alias.name, alias.provider, alias.is_default, ModelInfo(name=alias.name))
            for alias in self._router.aliases(caller)
        ]
        return sorted(found, key=lambda entry: entry.name)

    async def models_at(self, provider: str, caller: Principal, time_left: float | None = None) -> list[CatalogEntry]:
        """Return the models of one provider, those of the configuration first. Raises `ProviderNotFound`. See `models`."""
        self._router.models_at(provider)
        await self._wait([self._lists[provider]] if provider in self._lists else [], time_left)
        return [entry for entry in await self._of(provider) if caller.may_use(entry.info.name, provider)]

    async def model(self, name: str, caller: Principal, time_left: float | None = None) -> CatalogEntry:
        """Return a model that `caller` may use, listed or not. Raises `ModelNotFound`. See `models`."""
        found = self._router.model(name, caller)
        provider, model = found.provider, self._router.resolve(name).model
        await self._wait([self._lists[provider]] if provider in self._lists else [], time_left)
        listed = self._lists[provider].known if provider in self._lists else ()
        info = next((info for info in listed if info.name == model), ModelInfo(name=model))
        return CatalogEntry(name, provider, found.is_default, self._completed(provider, info))

    async def close(self) -> None:
        """Cancel what is being read."""
        for one in self._lists.values():
            await one.close()

    async def _wait(self, lists: Iterable[_ProviderList], time_left: float | None) -> None:
        """Start to read the lists that are due, and wait for those that were never read."""
        waits = [wait for one in lists if (wait := one.begin(self._patience)) is not None]
        if waits:
            patience = self._patience if time_left is None else min(self._patience, time_left / 2)
            await asyncio.wait(waits, timeout=patience)

    async def _of(self, provider: str) -> tuple[CatalogEntry, ...]:
        """Return the entries of one provider: the models that it has by name in the configuration, then the others in order."""
        listed = self._lists[provider].known if provider in self._lists else ()
        made_of, entries = self._entries.get(provider, (None, ()))
        if made_of is listed:
            return entries
        by_name: Mapping[str, ModelInfo] = {info.name: info for info in listed}
        infos = {name: by_name.get(name) or ModelInfo(name=name) for name in self._router.models_at(provider)}
        if provider == self._default[0] and (model := self._default[1]) not in infos:
            infos[model] = by_name.get(model) or ModelInfo(name=model)
        infos = {**infos, **{info.name: info for info in listed if info.name not in infos}}
        found: list[CatalogEntry] = []
        for number, info in enumerate(infos.values(), 1):
            name = self._router.name_of(provider, info.name)
            if name is not None:
                is_default = (provider, info.name) == self._default
                found.append(CatalogEntry(name, provider, is_default, self._completed(provider, info)))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        entries = tuple(found)
        self._entries[provider] = listed, entries
        return entries

    def _completed(self, provider: str, info: ModelInfo) -> ModelInfo:
        """Return what the provider's list says of a model, and what is published where it says nothing."""
        published = self._facts.published(provider, info.name) or ModelInfo(name=info.name)
        return replace(
            info,
            title=info.title or published.title,
            context_tokens=info.context_tokens or published.context_tokens,
            prices=self._facts.configured(provider, info.name) or info.prices or published.prices,
        )


class _ProviderList:
    """The list of one provider, kept until a newer one is read."""

    def __init__(self, provider: Provider, refresh: float, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock
        times = Times(ttl=refresh, stale=float("inf"), retry=_RETRY)
        self._cache: Refreshing[tuple[ModelInfo, ...]] = Refreshing(self._read, times, (ProviderError,), clock)
        self._begun_at = 0.0
        self._failed_at: float | None = None
        self.known: Sequence[ModelInfo] = ()
        """The last list; empty if there is none."""
        self._was_read = False

    def begin(self, patience: float) -> asyncio.Future[Any] | None:
        """Start to read the list if it is due. Return what to wait for.

        Nobody waits (None) if there is a list, if it failed a moment ago, or if others have waited for it for `patience` seconds.
        """
        now = self._clock()
        failed = self._failed_at is not None and now < self._failed_at + _RETRY
        if failed or not (self._cache.is_due or self._cache.is_reading):
            return None
        if not self._cache.is_reading:
            self._begun_at = now
        reading = self._cache.renew()
        return None if self._was_read or now >= self._begun_at + patience else reading

    async def close(self) -> None:
        await self._cache.close()

    async def _read(self) -> tuple[ModelInfo, ...]:
        try:
            found = await self._read_in_time()
        except ProviderError as error:
            if self._failed_at is None:
                reason = error.message if error.__cause__ is None else reason_of(error.__cause__)
                name = self._provider.name
                _log.warning("models_not_listed", provider=name, error=reason, status=error.status, older_ones=len(self.known))
            self._failed_at = self._clock()
            raise
        if self._failed_at is not None:
            _log.info("models_listed_again", provider=self._provider.name, models=len(found))
        self._failed_at, self._was_read, self.known = None, True, found
        return found

    async def _read_in_time(self) -> tuple[ModelInfo, ...]:
        try:
            async with asyncio.timeout(_LONGEST_READ):
                return await self._provider.list_models() or ()
        except TimeoutError:
            name = self._provider.name
            raise ProviderTimeout(f"The provider {name} sent no list within {_LONGEST_READ:g} s.", provider=name) from None
