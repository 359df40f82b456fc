"""Measures the cost of telemetry: CPU time of a gateway's worker and supervisor for a JSON call, with it and without.

    python -m tests.bench.telemetry --pairs 160 --calls 80

Two whole gateways run that differ only in `--with`. They are loaded in turn, by the same client with the same upstream, while the
other one is idle. The order alternates from pair to pair, and each half of a pair is short, so that other load on the machine
affects both alike. `--with '{"workers": 1}'` compares two equal gateways: differences of that size mean nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from itertools import repeat
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from tests.bench.load import load, request
from tests.bench.processes import cpu, workers
from tests.e2e.conftest import READY, Gateway
from tests.odd_upstream import OddUpstream, answer
from tests.ports import free_port

out: Final = Console(highlight=False)

CONNECTIONS: Final = 16
WARM: Final = 300
"""Calls before the measurement."""

USAGE: Final = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}
MESSAGE: Final = {"index": 0, "message": {"role": "assistant", "content": "A sung answer."}, "finish_reason": "stop"}
REPLY: Final = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [MESSAGE], "usage": USAGE}
BODY: Final = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What is an antiphon?"}]}


async def call(gateway: Gateway, calls: int) -> None:
    """Make `calls` calls, over `CONNECTIONS` connections."""
    assert not await load(gateway.rest, repeat(request(gateway.rest, BODY), calls), CONNECTIONS)


async def measure(gateway: Gateway, calls: int) -> float:
    """Return the CPU time of a call, in milliseconds."""
    pids = [gateway.process.pid, *workers(gateway)]
    before = cpu(pids)
    await call(gateway, calls)
    return (cpu(pids) - before) / calls / 1e6


async def compare(folder: Path, more: dict[str, Any], pairs: int, calls: int) -> None:
    """Print the figures of each pair, and of all."""
    async with OddUpstream() as upstream:
        upstream.script("gpt-4o", [answer(REPLY)])
        config = {
            "providers": {"openai": {"base_url": upstream.base_url, "models": ["gpt-4o"], "api_key_env": "TEST_PROVIDER_KEY"}},
            "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
        }
        gateways = []
        for name, settings in (("without", config), ("with", {**config, **more})):
            (folder / name).mkdir()
            gateways.append(Gateway(folder / name, settings))
        try:
            for gateway in gateways:
                await asyncio.to_thread(gateway.wait_for, READY)
                await call(gateway, WARM)
            found = []
            for pair in range(pairs):
                order = (0, 1) if pair % 2 == 0 else (1, 0)
                figures = {which: await measure(gateways[which], calls) for which in order}
                found.append((figures[0], figures[1]))
                out.print(f"{figures[0]:.3f} ms without, {figures[1]:.3f} ms with: {figures[1] / figures[0] - 1:+.1%}")
        finally:
            for gateway in gateways:
                await asyncio.to_thread(gateway.stop)
    ratios = sorted(after / before - 1 for before, after in found)
    low, _, high = statistics.quantiles(ratios, n=4)
    before, after = (statistics.median(figures) for figures in zip(*found, strict=True))
    out.print(f"median {statistics.median(ratios):+.1%}, quartiles {low:+.1%} and {high:+.1%}; {before:.3f} and {after:.3f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--calls", type=int, default=80, help="calls of each half of a pair")
    parser.add_argument("--with", dest="more", type=json.loads, help="settings of one of the two, as JSON; else metrics")
    options = parser.parse_args()
    settings = options.more or {"metrics": {"listen": f"127.0.0.1:{free_port()}"}}
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(compare(Path(made), settings, options.pairs, options.calls))
