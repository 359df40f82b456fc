"""What the benchmark of outages makes of what it saw."""

import asyncio
from xml.etree import ElementTree as ET

import pytest

from tests.bench.outages import report
from tests.bench.outages.callers import Call
from tests.bench.outages.cancels import Cancels
from tests.bench.outages.cost import Cost
from tests.bench.outages.outage import AFTER, BEFORE, BIN, DURING, FAULTS, FIRST, summary
from tests.bench.outages.provider import Provider, Received, pair
from tests.bench.outages.report import Loops, Results

LONG = BEFORE + DURING + AFTER
RATE = 20
FAILS = next(fault for fault in FAULTS if fault.name == "fails")


def calls(failing: range = range(0), late: float = 0.05) -> list[Call]:
    """Return calls at a steady pace since 0; those of `failing` are not answered well."""
    return [
        Call(f"call {number}", number / RATE, number / RATE + late, 200, whole=number not in failing)
        for number in range(round(LONG * RATE))
    ]


def providers(*received: list[Received]) -> tuple[Provider, Provider]:
    """Return two providers that got these calls."""
    made = Provider(set()), Provider(set())
    for provider, each in zip(made, received, strict=True):
        provider.received += each
    return made


def tries(made: list[Call], times: int = 1) -> list[Received]:
    return [Received(call.name, call.began, call.ended) for call in made for _ in range(times)]


def test_an_outage_that_nobody_notices() -> None:
    """All calls succeed, each with one try, and the first answer is that of the first call of the outage."""
    made = calls()
    found = summary("x", FAILS, made, providers(tries(made[::2]), tries(made[1::2])), (0.0, BEFORE, BEFORE + DURING))
    assert (found.succeeded, found.failed_early) == (found.calls, 0)
    assert found.calls == round((DURING + AFTER - 1) * RATE)
    assert (found.amplification, found.calls_per_call) == (1.0, 1.0)
    assert found.first_good == pytest.approx(0.05)
    assert len(found.success) == len(found.east) == len(found.latency) == round(LONG / BIN)
    assert sum(found.east) * BIN == len(made[::2])
    assert Results("", "", "", [found]).wrong == []


def test_failures_retries_and_waits_are_counted() -> None:
    """Failures of the first second apart from later ones, and tries of the same provider behind the first calls alone."""
    first = round(BEFORE * RATE)
    made = calls(failing=range(first, first + 30), late=0.05)
    again = made[first + FIRST :]
    found = summary("x", FAILS, made, providers(tries(made) + tries(again), []), (0.0, BEFORE, BEFORE + DURING))
    assert found.failed_early == RATE
    assert found.calls - found.succeeded == 10
    assert (found.amplification, found.calls_per_call) == (2.0, 2.0)
    assert found.first_good == pytest.approx(1.55)
    assert len(Results("", "", "", [found]).wrong) == 3


def test_a_return_without_a_stampede_is_told_apart() -> None:
    """The calls in the first second after the first one to the mended provider count, by those of a usual second."""
    made = calls()
    mended = BEFORE + DURING
    slow = [call for call in made if call.began < BEFORE] + [call for call in made if call.began >= mended + 5][::10]
    found = summary("x", FAILS, made, providers(tries(slow), tries(made)), (0.0, BEFORE, mended))
    assert found.share_returned == pytest.approx(0.1)


def test_the_page_has_all_tables_and_says_what_is_wrong() -> None:
    """One table for each part, a picture for each setup, and a line for each figure that is not as wanted."""
    made = calls()
    outage = summary("two workers", FAILS, made, providers(tries(made), []), (0.0, BEFORE, BEFORE + DURING))
    results = Results(
        "2026-01-01",
        "a machine",
        "abc",
        [outage],
        Loops(200, 1000, 50, ["why"]),
        [Cancels("streams", 60, 55, 3.0, 60.0, 1)],
        60.0,
        [Cost("a model", 1.0, 1.0, (1.0, 1.0)), Cost("a name", 1.05, 1.05, (1.02, 1.1))],
    )
    text = report.markdown(results, "../images/")
    assert "| two workers | fails | 100.00% of 540 |" in text
    assert "![two workers" in text
    assert "(../images/outages-two-workers.svg)" in text
    assert "| streams | 60 | 55 | 3 ms | 60 ms | 1 |" in text
    assert "| a name | 1.050 ms | +5.0% | +2.0% to +10.0% |" in text
    assert text.count("**Not as wanted") == len(results.wrong) == 4
    results.costs[1].quartiles = (0.9, 1.3)
    assert "The machine was too busy" in report.markdown(results)
    assert len(results.wrong) == 3
    (picture,) = report.pictures(results).values()
    texts = [one.text for one in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314  # our own file
    assert "One fails: answered well" in texts


async def test_a_provider_can_be_killed_and_comes_back() -> None:
    """On the same port."""
    async with pair() as (one, _):
        port = int(one.base_url.rpartition(":")[2].removesuffix("/v1"))
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await one.kill()
            assert await reader.read() == b"", "connections that are open are closed"
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            await one.start()
