"""Prices of tokens: the data of the package `genai-prices`, and the configuration, which takes precedence.

An unknown price is None, never a guess: a model is looked up only at the provider that answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import genai_prices
from genai_prices.types import ModelPrice, TieredPrices
from msgspec import Struct

from antiphon.chat.price_data import PriceData
from antiphon.config import PriceConfig
from antiphon.domain.content import NOTHING
from antiphon.domain.events import Usage, UsagePart
from antiphon.domain.models import ModelInfo, TokenPrices

ANY_MODEL: Final = "*"
"""The name of the price of all models that have none of their own at a deployment."""

NO_PRICES: Final[Mapping[str, Mapping[str, PriceConfig]]] = MappingProxyType({})

_MILLION: Final = 1_000_000

_WEB_SEARCH: Final = "web_search"
"""The provider's tool that the library has prices for."""

_BY_CALL: Final = "requests_kcount"
"""The library's name for the price of a call itself, beside that of its tokens."""

_REASONING: Final = "output_reasoning_mtok"
"""The library's name for a price of reasoning that differs from that of other tokens of the reply."""

_SPEED: Final = "speed"
"""A field of Anthropic's usage by which the library has other prices: those of a faster service."""

_BATCH: Final = "batch"
"""The service tier for which the library has another name."""

_MAX_CACHED: Final = 1000
"""The most price objects, and the most models of deployments, whose rates are remembered: about as many as models in use."""


class _Rates(Struct, frozen=True):
    """Prices in USD per million tokens: uncached, cached and cache-writing prompt tokens, and completion tokens.

    `price` is the library's object that they come from, None if they are configured. `by_count`: the price depends on the number of
    tokens, or has more parts than these.
    """

    input: float
    cached: float
    written: float
    output: float
    price: ModelPrice | None = None
    by_count: bool = False


class Prices:
    """The prices of all providers and models."""

    def __init__(
        self,
        overrides: Mapping[str, PriceConfig],
        addresses: Mapping[str, str | None],
        by_deployment: Mapping[str, Mapping[str, PriceConfig]] = NO_PRICES,
    ) -> None:
        """Set configured prices by model or by `provider/model`, and the providers' base URLs (`addresses`) by name.

        `by_deployment` are the prices of deployments, by name and by model or `*`; they take precedence.
        """
        self._by_deployment = by_deployment
        self._overrides = overrides
        self._data = PriceData(addresses)
        self._rates: dict[int, tuple[ModelPrice, _Rates | None]] = {}
        """The rates of each price object that was used, by its id. The object is kept, so that no other one gets its id."""
        self._usual: dict[tuple[str, str, str], _Rates | None] = {}
        """The rates of the usual service by provider, model and deployment, as far as they are the same at any time."""

    def cost(self, provider: str, model: str, usage: Usage, deployment: str = "") -> float | None:
        """Return the cost of a call in USD at this moment; None if the price is not known.

        A call with inner calls costs what they do, each at the price of its model.
        """
        if usage.parts:
            costs = [self.cost(provider, part.model, _usage_of(part, usage), deployment) for part in usage.parts]
            costs.append(self.cost(provider, model, Usage(0, 0, 0, server_tools=usage.server_tools), deployment))
            return None if None in costs else sum(filter(None, costs))
        rates = self._rates_at(provider, model, usage, deployment)
        if rates is None:
            return None
        cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
        fresh = usage.input_tokens - cached - written
        if fresh < 0:  # the counts contradict each other
            return None
        if rates.price is not None and (rates.by_count or _is_special(usage)):
            return _exact(rates.price, usage)
        total = fresh * rates.input + cached * rates.cached + written * rates.written + usage.output_tokens * rates.output
        return total / _MILLION

    def configured(self, provider: str, model: str) -> TokenPrices | None:
        """Return the configured prices of a model, which replace all others; None if there are none."""
        override = self._override(provider, model)
        if override is None:
            return None
        return TokenPrices(input=override.input, cached_input=override.cached_input, output=override.output)

    def published(self, provider: str, model: str) -> ModelInfo | None:
        """Return what is published of a model; None if it is not known."""
        return self._data.published(provider, model)

    def _override(self, provider: str, model: str, deployment: str = "") -> PriceConfig | None:
        if self._by_deployment and (own := self._by_deployment.get(deployment)):
            found = own.get(model) or own.get(ANY_MODEL)
            if found is not None:
                return found
        return self._overrides.get(f"{provider}/{model}") or self._overrides.get(model)

    def _rates_at(self, provider: str, model: str, usage: Usage, deployment: str) -> _Rates | None:
        """Return the configured rates, else the published ones of this moment, which may depend on the time of day."""
        if usage.service_tier or _SPEED in usage.extra:
            return self._look_up(provider, model, usage, deployment)
        key = (provider, model, deployment)
        if key in self._usual:
            return self._usual[key]
        rates = self._look_up(provider, model, usage, deployment)
        if not self._data.depends_on_time(provider, model):
            if len(self._usual) >= _MAX_CACHED:
                self._usual.clear()
            self._usual[key] = rates
        return rates

    def _look_up(self, provider: str, model: str, usage: Usage, deployment: str) -> _Rates | None:
        """Return the rates as `_rates_at` does, without what is remembered."""
        override = self._override(provider, model, deployment)
        if override is not None:
            found = override.tiers.get(usage.service_tier, override) if usage.service_tier else override
            cached = found.input if found.cached_input is None else found.cached_input
            return _Rates(found.input, cached, found.input, found.output)
        price = self._data.price(provider, model, _variant(usage))
        if price is None:
            return None
        known = self._rates.get(id(price))
        if known is None:
            if len(self._rates) >= _MAX_CACHED:
                self._rates.clear()
            known = self._rates[id(price)] = price, _rates_of(price)
        return known[1]


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
            known = vars(price)
            tiered = any(isinstance(value, TieredPrices) for value in known.values())
            return _Rates(fresh, cached, written, output, price, tiered or _BY_CALL in known or _REASONING in known)
        case _:
            return None


def _is_special(usage: Usage) -> bool:
    """Return whether some of the usage may have a price of its own that `_Rates` does not hold."""
    return bool(
        usage.audio_input_tokens
        or usage.audio_output_tokens
        or usage.image_input_tokens
        or usage.image_output_tokens
        or usage.cache_write_1h_tokens
        or usage.server_tools.get(_WEB_SEARCH)
    )


def _variant(usage: Usage) -> dict[str, str]:
    """Return the library's words for the kind of service that a call got."""
    variant: dict[str, str] = {}
    if usage.service_tier == _BATCH:
        variant["processing"] = _BATCH
    elif usage.service_tier:
        variant["service_tier"] = usage.service_tier
    if usage.extra and isinstance(speed := usage.extra.get(_SPEED), str):
        variant[_SPEED] = speed
    return variant


def _usage_of(part: UsagePart, whole: Usage) -> Usage:
    """Return the usage of an inner call, which got the kind of service of the `whole` call."""
    return Usage(
        part.input_tokens,
        part.output_tokens,
        part.input_tokens + part.output_tokens,
        cached_tokens=part.cached_tokens,
        cache_write_tokens=part.cache_write_tokens,
        cache_write_1h_tokens=part.cache_write_1h_tokens,
        service_tier=whole.service_tier,
        extra={_SPEED: whole.extra[_SPEED]} if _SPEED in whole.extra else NOTHING,
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
        **_priced(price, usage),
    )
    try:
        return float(price.calc_price(counted)["total_price"])
    except (LookupError, ValueError):  # the counts contradict each other
        return None


def _priced(price: ModelPrice, usage: Usage) -> dict[str, Any]:
    """Return the counts of other kinds of tokens that have a price of their own; the others are part of prompt and reply.

    Providers seldom report how many cached tokens are audio or images. Then as many count as cannot be anything else.
    """
    counts: dict[str, int | None] = {
        "input_audio": usage.audio_input_tokens,
        "output_audio": usage.audio_output_tokens,
        "input_image": usage.image_input_tokens,
        "output_image": usage.image_output_tokens,
        "output_reasoning": usage.reasoning_tokens,
    }
    fresh = usage.input_tokens - (usage.cached_tokens or 0) - (usage.cache_write_tokens or 0)
    for kind, reported in (("audio", usage.audio_cached_tokens), ("image", None)):
        count = counts[f"input_{kind}"] or 0
        cached = max(0, count - fresh) if reported is None else min(reported, count)
        if getattr(price, f"cache_{kind}_read_mtok") is None:
            counts[f"input_{kind}"] = count - cached  # these cost what other cached tokens cost
        else:
            counts[f"cache_{kind}_read"] = cached
        fresh -= count - cached
    return {f"{kind}_tokens": count for kind, count in counts.items() if getattr(price, f"{kind}_mtok") is not None}
