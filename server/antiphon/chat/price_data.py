"""What the package `genai-prices` knows of models: their prices and sizes.

A model is looked up only at the provider that has it, by the provider's name or its base URL, and never at another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from importlib.util import find_spec, module_from_spec
from typing import Any, Final

from genai_prices import types
from genai_prices.data_snapshot import DataSnapshot

from antiphon.domain.models import ModelInfo, PriceTier, TokenPrices

_MAX_CACHED: Final = 10_000
"""Models that are remembered, found or not. Their names come from callers."""

_FIELDS: Final[Mapping[str, str]] = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio_input": "input_audio_mtok",
    "output": "output_mtok",
    "audio_output": "output_audio_mtok",
}
"""The package's names for the fields of `TokenPrices`."""


class PriceData:
    """The published data of models, by the configured name of their provider."""

    def __init__(self, addresses: Mapping[str, str | None]) -> None:
        """`addresses` are the providers' base URLs, by name. Takes 20 ms."""
        self._known, self._others = _providers_of(tuple(addresses.items()))
        self._found: dict[tuple[str, str], types.ModelInfo | None] = {}

    def find(self, provider: str, model: str) -> types.ModelInfo | None:
        """Return the package's entry of a model; None if it has none."""
        key = (provider, model)
        if key not in self._found:
            if len(self._found) > _MAX_CACHED:
                self._found.clear()
            self._found[key] = self._look_up(provider, model)
        return self._found[key]

    def price(self, provider: str, model: str, variant: Mapping[str, str]) -> types.ModelPrice | None:
        """Return the price of a model at this moment; None if it is not known.

        `variant` says which service a call got, such as {"service_tier": "flex"}. Without one that the package knows, the same
        object is returned for each call, unless a new price begins.
        """
        found = self.find(provider, model)
        if found is None:
            return None
        is_known = any(known.when.items() <= variant.items() for known in found.price_variants or ())
        return found.get_prices(datetime.now(UTC), variant if is_known else None)

    def depends_on_time(self, provider: str, model: str) -> bool:
        """Return whether a model has several prices, each for some hours of a day or from a day on."""
        found = self.find(provider, model)
        return found is not None and not isinstance(found.prices, types.ModelPrice)

    def published(self, provider: str, model: str) -> ModelInfo | None:
        """Return the name for people, the context and the current prices of a model; None if it is not known."""
        found = self.find(provider, model)
        if found is None:
            return None
        return ModelInfo(
            name=model,
            title=found.name or "",
            context_tokens=found.context_window,
            prices=token_prices(found.get_prices(datetime.now(UTC))),
        )

    def _look_up(self, provider: str, model: str) -> types.ModelInfo | None:
        # The package's own look-up remembers every name, without a limit.
        for known in self._known.get(provider, ()):
            found = known.find_model(model, all_providers=self._others)
            if found is not None:
                return found
        return None


@lru_cache(1)
def _providers_of(addresses: tuple[tuple[str, str | None], ...]) -> tuple[dict[str, list[types.Provider]], list[types.Provider]]:
    """Return the package's providers by the configured name, and those that some of them fall back to.

    The package's module is loaded without being kept: all others of its 47 providers go, which take 3 MB.
    """
    spec = find_spec("genai_prices.data")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    whole = DataSnapshot(module.providers, from_auto_update=False)
    known = {name: list(_known(whole, name, address)) for name, address in addresses}
    named = {name for found in known.values() for each in found for name in each.fallback_model_providers or ()}
    return known, [each for each in whole.providers if each.id in named]


def _known(snapshot: DataSnapshot, provider: str, address: str | None) -> Iterator[types.Provider]:
    """Yield the package's provider of that name, and then the one at that address, as far as there are any."""
    for name, url in ((provider, None), (None, address)):
        if name is not None or url is not None:
            with suppress(LookupError):
                yield snapshot.find_provider(None, name, url)


def token_prices(price: types.ModelPrice) -> TokenPrices | None:
    """Return the prices of tokens; None if those of prompt or reply are not among them."""
    values = {field: getattr(price, key) for field, key in _FIELDS.items()}
    if values["input"] is None or values["output"] is None:
        return None
    starts = {tier.start for value in values.values() if isinstance(value, types.TieredPrices) for tier in value.tiers}
    tiers = tuple(PriceTier(start, TokenPrices(**_numbers(values, start))) for start in sorted(starts))
    return TokenPrices(**_numbers(values), tiers=tiers)


def _numbers(values: Mapping[str, object], start: int = -1) -> dict[str, Any]:
    """Return the prices by field: those of prompts of more than `start` tokens, or else those of short ones."""
    numbers: dict[str, Any] = {}
    for field, value in values.items():
        if isinstance(value, types.TieredPrices):
            reached = [tier.price for tier in value.tiers if tier.start <= start]
            numbers[field] = float(reached[-1] if reached else value.base)
        else:
            numbers[field] = None if value is None else float(str(value))
    return numbers
