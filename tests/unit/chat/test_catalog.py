"""Tests of the catalogue of models: what is listed, for whom, and when providers are asked."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from antiphon.chat.catalog import Catalog, CatalogEntry
from antiphon.chat.prices import Prices
from antiphon.config import PriceConfig
from antiphon.config.routing import AliasConfig
from antiphon.domain.errors import ModelNotFound, ProviderNotFound, ProviderUnavailable
from antiphon.domain.models import ModelInfo, TokenPrices
from antiphon.domain.principal import Principal
from antiphon.routing.router import Router
from tests.unit.scripted import NO_PRICES, ScriptedProvider

ANYONE = Principal("anyone", owner="anyone")


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Host(ScriptedProvider):
    """A provider with a list of models, which it sends once `open` is set."""

    def __init__(self, name: str, *models: str | ModelInfo) -> None:
        super().__init__()
        self.name = name
        self.models = tuple(model if isinstance(model, ModelInfo) else ModelInfo(name=model) for model in models)
        self.open = asyncio.Event()
        self.open.set()

    async def list_models(self) -> tuple[ModelInfo, ...] | None:
        self.lists += 1
        await self.open.wait()
        self.lists -= 1
        return await super().list_models()


def catalog(
    *providers: tuple[Host, Sequence[str]],
    default: str | None = None,
    prices: Prices = NO_PRICES,
    clock: Clock | None = None,
    **options: Any,
) -> Catalog:
    router = Router(providers, default)
    return Catalog(router, [host for host, _ in providers], prices, clock=clock or Clock(), refresh=100, **options)


async def names(found: Catalog, caller: Principal = ANYONE) -> list[str]:
    return [entry.name for entry in await found.models(caller)]


async def test_every_name_leads_to_its_model() -> None:
    """A model is listed by its own name if that leads to it, else with its provider's; and only if the configuration allows it."""
    first, second = Host("first", "a", "b-1", "other"), Host("second", "a", "b-1", "free")
    found = catalog((first, ["a", "b-*", "kept"]), (second, []))
    entries = await found.models(ANYONE)
    assert [(entry.name, entry.provider, entry.info.name, entry.is_default) for entry in entries] == [
        ("a", "first", "a", True),
        ("b-1", "first", "b-1", False),
        ("kept", "first", "kept", False),
        ("second/a", "second", "a", False),
        ("second/b-1", "second", "b-1", False),
        ("second/free", "second", "free", False),
    ]


async def test_the_default_is_always_listed() -> None:
    """The default model is marked, also if it is only allowed by a pattern and its provider does not list it."""
    found = catalog((Host("first", "a-1"), ["a-*"]), default="first/a-2")
    assert [(entry.name, entry.is_default) for entry in await found.models(ANYONE)] == [("a-1", False), ("a-2", True)]


async def test_a_caller_sees_what_it_may_use() -> None:
    """A caller with some models only sees those, whoever lists them."""
    found = catalog((Host("first", "a", "b"), []), (Host("second", "c"), ["c"]), default="c")
    some = Principal("some", owner="some", models=("first/a", "c"))
    assert await names(found, some) == ["c", "first/a"]
    with pytest.raises(ModelNotFound):
        await found.model("first/b", some)
    assert [entry.info.name for entry in await found.models_at("first", some)] == ["a"]


async def test_a_caller_sees_an_alias_if_it_may_use_one_of_its_models() -> None:
    """A name for several models is listed for whoever may use the name, or one of them: a call by it is answered by that one."""
    both = AliasConfig(**{"try": ["a/one", "b/two"]})
    hosts = (Host("a"), Host("b"))
    made = Catalog(Router([(hosts[0], ["one"]), (hosts[1], ["two"])], aliases={"both": both}), hosts, NO_PRICES, clock=Clock())
    for models, seen in ((["both"], ["both"]), (["two"], ["both", "two"]), (["b/*"], ["both", "two"]), (["three"], [])):
        assert await names(made, Principal("c", owner="c", models=tuple(models))) == seen


async def test_nothing_is_asked_before_a_list_is_wanted() -> None:
    """No provider is asked before a caller wants models, and none at all if that is switched off."""
    host = Host("first", "a", "b")
    found = catalog((host, ["a", "b*"]))
    await asyncio.sleep(0)
    assert host.lists == 0
    off = catalog((host, ["a", "b*"]), list_providers=False)
    assert await names(off) == ["a"]
    assert await names(found) == ["a", "b"]


async def test_an_old_list_is_served_while_a_new_one_is_read() -> None:
    """A list is read again once it is old; nobody waits for that, and the next caller gets the new one."""
    host, clock = Host("first", "a", "b"), Clock()
    found = catalog((host, ["a", "b*"]), clock=clock)
    assert await names(found) == ["a", "b"]
    host.models = (ModelInfo(name="a"), ModelInfo(name="b2"))
    clock.now += 99
    assert await names(found) == ["a", "b"]
    clock.now += 1
    host.open.clear()
    assert await names(found) == ["a", "b"]
    await asyncio.sleep(0)
    assert host.lists == 2
    assert await names(found) == ["a", "b"], "one read at a time"
    assert host.lists == 2
    host.open.set()
    await asyncio.sleep(0.01)
    assert await names(found) == ["a", "b2"]
    await found.close()


async def test_a_failing_provider_keeps_its_last_list_and_is_logged_once() -> None:
    """While a list cannot be read, the last one stays; that is logged once, as is its end, and it is tried again after a minute."""
    host, clock = Host("first", "a", "b"), Clock()
    found = catalog((host, ["a", "b*"]), clock=clock)
    assert await names(found) == ["a", "b"]
    good, host.models = host.models, ProviderUnavailable("The provider first is out of reach.", provider="first", status=502)
    asked = 0
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            clock.now += 200
            assert await names(found) == ["a", "b"]
            await asyncio.sleep(0.01)
            asked += 1
        host.models = good
        clock.now += 59
        assert await names(found) == ["a", "b"]
        await asyncio.sleep(0.01)
        assert len(logs) == 1, "not tried yet"
        clock.now += 1
        await names(found)
        await asyncio.sleep(0.01)
    assert logs == [
        {
            "event": "models_not_listed",
            "log_level": "warning",
            "provider": "first",
            "error": "The provider first is out of reach.",
            "older_ones": 2,
            "status": 502,
        },
        {"event": "models_listed_again", "log_level": "info", "provider": "first", "models": 2},
    ]


async def test_nobody_waits_for_a_provider_that_failed() -> None:
    """A provider that failed before it ever listed anything is not waited for again within a minute."""
    host, clock = Host("first"), Clock()
    host.models = ProviderUnavailable("no", provider="first")
    found = catalog((host, ["a"]), clock=clock)
    with structlog.testing.capture_logs() as logs:
        assert await names(found) == ["a"]
        host.open.clear()
        async with asyncio.timeout(1):
            assert await names(found) == ["a"]
    assert len(logs) == 1
    await found.close()


async def test_a_slow_provider_holds_nobody_up() -> None:
    """The first callers wait for a moment only, or half of their time; the list that comes later is for those after them."""
    slow, fast, clock = Host("slow", "a", "b"), Host("fast", "c"), Clock()
    slow.open.clear()
    found = catalog((slow, ["a", "b*"]), (fast, ["c*"]), patience=0.05, clock=clock)
    async with asyncio.timeout(1):
        assert await names(found) == ["a", "c"]
    patient = catalog((slow, ["a", "b*"]), patience=60)
    async with asyncio.timeout(1):
        assert [entry.name for entry in await patient.models(ANYONE, 0.1)] == ["a"]
    clock.now += 0.05
    async with asyncio.timeout(0.04):
        assert await names(found) == ["a", "c"], "others have waited for it"
    slow.open.set()
    await asyncio.sleep(0.01)
    assert await names(found) == ["a", "b", "c"]
    await patient.close()


async def test_closing_ends_a_read() -> None:
    """Closing cancels what is being read."""
    host = Host("first", "a")
    host.open.clear()
    found = catalog((host, ["a"]), patience=0.01)
    await names(found)
    async with asyncio.timeout(1):
        await found.close()
    assert len(asyncio.all_tasks()) == 1


async def test_prices_are_configured_listed_or_published() -> None:
    """A configured price comes first, then the provider's own, then the published one; so does the context without the first."""
    own = TokenPrices(input=7, output=8)
    host = Host("openai", ModelInfo(name="gpt-4o", context_tokens=5, prices=own), "gpt-4.1", "gpt-x", "gpt-4o-mini")
    prices = Prices({"openai/gpt-4o-mini": PriceConfig(input=1, output=2)}, {"openai": None})
    found = catalog((host, ["gpt-*"]), default="gpt-4o", prices=prices)
    entries: dict[str, CatalogEntry] = {entry.name: entry for entry in await found.models(ANYONE)}
    assert (entries["gpt-4o"].info.prices, entries["gpt-4o"].info.context_tokens) == (own, 5)
    assert entries["gpt-4.1"].info.context_tokens == 1_000_000
    assert entries["gpt-4.1"].info.prices == TokenPrices(input=2.0, cached_input=0.5, output=8.0)
    assert entries["gpt-4o-mini"].info.prices == TokenPrices(input=1, output=2)
    assert entries["gpt-x"].info == ModelInfo(name="gpt-x")


async def test_one_model() -> None:
    """One model is found by any name that leads to it, listed or not, with what its provider's list says of it."""
    host, other = Host("first", ModelInfo(name="b-1", title="B")), Host("other", "x")
    found = catalog((host, ["a", "b-*"]), (other, []))
    assert (await found.model("b-1", ANYONE)).info.title == "B"
    assert other.lists == 0, "only its provider is asked"
    assert (await found.model("first/b-1", ANYONE)).info.title == "B"
    assert (await found.model("b-9", ANYONE)).info == ModelInfo(name="b-9")
    with pytest.raises(ModelNotFound):
        await found.model("c", ANYONE)


async def test_models_of_one_provider() -> None:
    """The models of one provider are those of the configuration in its order, then the others in that of its list."""
    found = catalog((Host("first", "z", "b-2", "b-1"), ["z", "a", "b-*"]))
    assert [entry.info.name for entry in await found.models_at("first", ANYONE)] == ["z", "a", "b-2", "b-1"]
    with pytest.raises(ProviderNotFound):
        await found.models_at("nobody", ANYONE)
