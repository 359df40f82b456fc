"""What a choice costs: the CPU of a call by a provider's model, by a name for it, and by a provider with two deployments."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.bench import native
from tests.bench.native import Upstream
from tests.bench.processes import cpu, edges, workers
from tests.bench.scenarios import BY_NAME
from tests.e2e.conftest import KEY, Gateway

SCENARIO: Final = BY_NAME["json-16"]
MODELS: Final = {"a model": "mock-d0", "a name for one model": "smart", "two deployments": "pair/mock-d0"}
ROUNDS: Final = 24
SECONDS: Final = 0.7
"""Of each sample."""

Meter = Callable[[Sequence[int]], float]
"""Returns what processes have used so far, in a unit of its own."""


class Cost(msgspec.Struct):
    """Milliseconds of CPU of a call, of worker and edge, and the median and quartiles of its ratio to the first of `MODELS`."""

    name: str
    cpu: float
    ratio: float
    quartiles: tuple[float, float]


def configuration(upstream: Upstream) -> dict[str, Any]:
    """Return a configuration in which one model is reached in all three ways."""
    place = {"base_url": upstream.base_url, "models": ["mock-d0"], "api_key_env": "TEST_PROVIDER_KEY"}
    deployments = {name: {"base_url": upstream.base_url} for name in ("east", "west")}
    return {
        "providers": {"plain": place, "pair": {**place, "deployments": deployments}},
        "models": {"default": "mock-d0", "smart": {"try": ["plain/mock-d0"]}},
        "log": {"level": "info"},
    }


def milliseconds(pids: Sequence[int]) -> float:
    """Return the CPU time of processes."""
    return cpu(pids) / 1e6


def measure(
    gateway: Gateway, folder: Path, rounds: int, meter: Meter = milliseconds, step: Callable[[], None] = lambda: None
) -> list[Cost]:
    """Make the same calls in each of the ways, in turns. `step` is called after each round."""
    pids = [*workers(gateway), *edges(gateway)]
    bodies = {}
    for name, model in MODELS.items():
        bodies[name] = SCENARIO.write(folder / name.replace(" ", "-"), model)

    def sample(name: str, seconds: float) -> float:
        before = meter(pids)
        port = int(gateway.rest.rpartition(":")[2])
        headers = [f"authorization: Bearer {KEY}"]
        found = native.load(
            port, "/api/v1/chat/completions", bodies[name], headers, connections=SCENARIO.connections, seconds=seconds
        )
        assert found["ok"], found["sample"]
        assert not found["failed"], found["sample"]
        return (meter(pids) - before) / int(found["ok"])

    for name in MODELS:
        sample(name, 1.0)
    found: dict[str, list[float]] = {name: [] for name in MODELS}
    names = list(MODELS)
    for number in range(rounds):
        at = number % len(names)
        for name in [*names[at:], *names[:at]]:
            found[name].append(sample(name, SECONDS))
        step()
    costs = []
    for name in names:
        ratios = [one / plain for one, plain in zip(found[name], found[names[0]], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        costs.append(Cost(name, statistics.median(found[name]), statistics.median(ratios), (low, high)))
    return costs
