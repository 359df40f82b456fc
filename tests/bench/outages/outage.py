"""One outage: what goes wrong with the providers and when, and what callers and providers saw of it, before, during and after."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from tests.bench.outages.callers import Call, Callers
from tests.bench.outages.provider import Mode, Provider

RATE: Final = 80.0
"""Calls a second."""
BEFORE: Final = 4.0
DURING: Final = 10.0
AFTER: Final = 18.0
"""Seconds before the outage, of it, and after it: the breaker is open for 5 s at first, and the calls return in 10 s."""
BIN: Final = 0.5
"""Seconds that are one point of a plot."""
GRACE: Final = 1.0
"""Seconds of an outage in which calls may fail."""
FIRST: Final = 100
"""Calls of the outage before amplification counts: a budget of 10 retries is there from the start."""
FLAP: Final = 2.0

Providers = tuple[Provider, Provider]


async def _set(providers: Iterable[Provider], mode: Mode) -> None:
    for provider in providers:
        provider.mode = mode


async def _flap(providers: Providers) -> None:
    """Make the first provider fail and work in turns, for as long as the outage is."""
    while True:
        providers[0].mode = Mode.FAILS
        await asyncio.sleep(FLAP)
        providers[0].mode = Mode.GOOD
        await asyncio.sleep(FLAP)


class Fault(NamedTuple):
    """What goes wrong. `of_all`: with both providers, so that calls have to fail or to wait."""

    name: str
    begin: Callable[[Providers], Awaitable[None]]
    of_all: bool = False


FAULTS: Final = (
    Fault("killed", lambda providers: providers[0].kill()),
    Fault("fails", lambda providers: _set(providers[:1], Mode.FAILS)),
    Fault("fails 30 %", lambda providers: _set(providers[:1], Mode.PART)),
    Fault("answers 429", lambda providers: _set(providers[:1], Mode.BUSY)),
    Fault("slow", lambda providers: _set(providers[:1], Mode.SLOW)),
    Fault("flapping", _flap),
    Fault("both fail", lambda providers: _set(providers, Mode.FAILS), of_all=True),
)


class Outage(msgspec.Struct):
    """What one outage did. Times are in seconds; those of the series since the first call, in steps of `BIN`."""

    setup: str
    fault: str
    of_all: bool
    calls: int
    """Those begun after the first second of the outage; if nothing can answer, after the first second of the recovery."""
    succeeded: int
    """How many of these were answered well."""
    failed_early: int
    """How many failed of those begun earlier."""
    amplification: float
    """Of the worse provider: what it received for each call that came to it, behind the first calls."""
    calls_per_call: float
    """What both received for each call, behind the first calls."""
    first_good: float
    """From the beginning of the outage to the first good answer; if nothing can answer, from its end."""
    latency_before: float
    """The p99."""
    latency_during: float
    share_returned: float
    """What the provider got in the first second after it was called again, as a part of what it got before the outage."""
    success: list[float]
    """The part of the calls that were answered well, by when they were begun."""
    east: list[float]
    """Calls a second."""
    west: list[float]
    latency: list[float]
    """The p95 by when the calls were begun."""


async def play(setup: str, fault: Fault, addresses: Sequence[str], providers: Providers) -> Outage:
    """Make calls while a fault begins and ends, and return what became of them."""
    callers = Callers(addresses)
    for provider in providers:
        provider.received.clear()
    began = time.monotonic()
    calling = asyncio.create_task(callers.run(RATE, BEFORE + DURING + AFTER))
    await asyncio.sleep(BEFORE)
    broke = time.monotonic()
    breaking = asyncio.create_task(_as_task(fault.begin(providers)))
    await asyncio.sleep(DURING)
    breaking.cancel()
    await asyncio.gather(breaking, return_exceptions=True)
    await _set(providers, Mode.GOOD)
    for provider in providers:
        if not provider.is_running:
            await provider.start()
    mended = time.monotonic()
    await calling
    await callers.finish()
    return summary(setup, fault, callers.calls, providers, (began, broke, mended))


async def _as_task(awaitable: Awaitable[None]) -> None:
    await awaitable


def summary(setup: str, fault: Fault, calls: Sequence[Call], providers: Providers, times: tuple[float, float, float]) -> Outage:
    """Return what came of an outage. `times`: of the first call, and of the beginning and the end of the outage."""
    began, broke, mended = times
    start = mended if fault.of_all else broke
    counted = [call for call in calls if call.began >= start + GRACE]
    good = [call.ended for call in calls if call.whole and call.ended >= start and call.began >= broke]
    ratios, made = [], 0
    later = [call.name for call in calls if call.began >= broke][FIRST:]
    for provider in providers:
        received = Counter(call.name for call in provider.received)
        found = [received[name] for name in later if name in received]
        ratios.append(sum(found) / len(found) if found else 1.0)
        made += sum(found)
    bins = round((BEFORE + DURING + AFTER) / BIN)
    by_bin: list[list[Call]] = [[] for _ in range(bins)]
    for call in calls:
        by_bin[min(bins - 1, int((call.began - began) / BIN))].append(call)
    return Outage(
        setup,
        fault.name,
        fault.of_all,
        calls=len(counted),
        succeeded=sum(call.whole for call in counted),
        failed_early=sum(not call.whole for call in calls if call.began < start + GRACE),
        amplification=max(ratios),
        calls_per_call=made / len(later),
        first_good=min(good, default=float("inf")) - start,
        latency_before=_quantile([call.ended - call.began for call in calls if call.began < broke], 0.99),
        latency_during=_quantile([call.ended - call.began for call in calls if broke <= call.began < mended], 0.99),
        share_returned=_share_returned(providers[0], began, broke, mended),
        success=[statistics.mean(call.whole for call in each) if each else 1.0 for each in by_bin],
        east=_rate(providers[0], began, bins),
        west=_rate(providers[1], began, bins),
        latency=[_quantile([call.ended - call.began for call in each], 0.95) for each in by_bin],
    )


def _rate(provider: Provider, began: float, bins: int) -> list[float]:
    found = Counter(int((call.began - began) / BIN) for call in provider.received)
    return [found[number] / BIN for number in range(bins)]


def _share_returned(provider: Provider, began: float, broke: float, mended: float) -> float:
    """Return the calls of the first second after the first call to a mended provider, by those of a usual second."""
    usual = sum(call.began < broke for call in provider.received) / (broke - began)
    since = next((call.began for call in provider.received if call.began >= mended), mended)
    return sum(since <= call.began < since + 1 for call in provider.received) / usual


def _quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
