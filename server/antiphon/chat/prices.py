"""Prices of tokens: the data of the package `genai-prices`, and the configuration, which takes precedence.

An unknown price is None, never a guess: a model is looked up only at the provider that answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import genai_prices
from genai_prices.types import ModelPrice, TieredPrices
from msgspec import Struct

from antiphon.config import PriceConfig
from antiphon.domain.events import Usage, UsagePart

_MILLION = 1_000_000

_WEB_SEARCH = "web_search"
"""The provider's tool that the library has prices for."""


class _Rates(Struct, frozen=True):
    """Prices in USD per million tokens: uncached, cached and cache-writing prompt tokens, and completion tokens.

    `price` is the library's object that they come from, None if they are configured. `tiered`: the price depends on the number of
    tokens.
    """

    input: float
    cached: float
    written: float
    output: float
    price: ModelPrice | None = None
    tiered: bool = False


class Prices:
    """The prices of all providers and models."""

    def __init__(self, overrides: Mapping[str, PriceConfig], addresses: Mapping[str, str | None]) -> None:
        """Set configured prices by model or by `provider/model`, and the providers' base URLs (`addresses`) by name."""
        self._overrides = overrides
        self._addresses = addresses
        self._found: dict[tuple[str, str], _Rates | None] = {}

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """Return the cost of a call in USD; None if the price is not known.

        A call with inner calls costs what they do, each at the price of its model.
        """
        if usage.parts:
            costs = [self.cost(provider, part.model, _usage_of(part)) for part in usage.parts]
            costs.append(self.cost(provider, model, Usage(0, 0, 0, server_tools=usage.server_tools)))
            return None if None in costs else sum(filter(None, costs))
        rates = self._rates(provider, model)
        if rates is None:
            return None
        cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
        fresh = usage.input_tokens - cached - written
        if fresh < 0:  # the counts contradict each other
            return None
        if rates.price is not None and (rates.tiered or _is_special(usage)):
            return _exact(rates.price, usage)
        total = fresh * rates.input + cached * rates.cached + written * rates.written + usage.output_tokens * rates.output
        return total / _MILLION

    def _rates(self, provider: str, model: str) -> _Rates | None:
        """Return the prices of a model, from the cache if it was looked up before."""
        key = (provider, model)
        if key not in self._found:
            if len(self._found) > 10_000:  # limited, as model names come from callers
                self._found.clear()
            self._found[key] = self._look_up(provider, model)
        return self._found[key]

    def _look_up(self, provider: str, model: str) -> _Rates | None:
        """Return the configured prices, else the published ones."""
        override = self._overrides.get(f"{provider}/{model}") or self._overrides.get(model)
        if override is not None:
            cached = override.input if override.cached_input is None else override.cached_input
            return _Rates(override.input, cached, override.input, override.output)
        price = self._published(provider, model)
        return None if price is None else _rates_of(price)

    def _published(self, provider: str, model: str) -> ModelPrice | None:
        """Return the library's price, found by the provider's name or its base URL; None if it has none."""
        nothing: Any = genai_prices.Usage(input_tokens=0, output_tokens=0)
        places: list[dict[str, Any]] = [{"provider_id": provider}]
        if address := self._addresses.get(provider):
            places.append({"provider_api_url": address})
        for place in places:
            try:
                return genai_prices.calc_price(nothing, model, **place).model_price
            except LookupError:
                continue
        return None


def _rates_of(price: ModelPrice) -> _Rates | None:
    """Return the library's prices for each kind of token; None if it lacks one.

    They are computed once: the library takes as long for one call as all other work of the gateway.
    """
    asked = (
        Usage(_MILLION, 0, _MILLION),
        Usage(_MILLION, 0, _MILLION, cached_tokens=_MILLION),
        Usage(_MILLION, 0, _MILLION, cache_write_tokens=_MILLION),
        Usage(0, _MILLION, _MILLION),
    )
    match [_exact(price, usage) for usage in asked]:
        case [float(fresh), float(cached), float(written), float(output)]:
            tiered = any(isinstance(value, TieredPrices) for value in vars(price).values())
            return _Rates(fresh, cached, written, output, price, tiered)
        case _:
            return None


def _is_special(usage: Usage) -> bool:
    """Return whether some of the usage has a price of its own that `_Rates` does not hold."""
    return bool(
        usage.audio_input_tokens or usage.audio_output_tokens or usage.cache_write_1h_tokens or usage.server_tools.get(_WEB_SEARCH)
    )


def _usage_of(part: UsagePart) -> Usage:
    return Usage(
        part.input_tokens,
        part.output_tokens,
        part.input_tokens + part.output_tokens,
        cached_tokens=part.cached_tokens,
        cache_write_tokens=part.cache_write_tokens,
    )


def _exact(price: ModelPrice, usage: Usage) -> float | None:
    """Return the cost in USD as the library computes it; None if it cannot."""
    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens or None,
        cache_write_tokens=usage.cache_write_tokens or None,
        cache_write_1h_tokens=usage.cache_write_1h_tokens or None,
        web_searches=usage.server_tools.get(_WEB_SEARCH) or None,
        input_audio_tokens=usage.audio_input_tokens or None,
        output_audio_tokens=usage.audio_output_tokens or None,
    )
    try:
        return float(price.calc_price(counted)["total_price"])
    except (LookupError, ValueError):  # the counts contradict each other
        return None
