"""Measures what one feature of Antiphon costs a call: CPU time of two whole gateways, with the feature and without.

    python -m tests.bench.features --only limits guards --pairs 40
    python -m tests.bench.features --with '{"workers": 1}'      # settings of one's own; these compare two equal gateways
    python -m tests.bench.features --only "history in SQLite" --connections 1 --delay 20

The two are loaded in turn, by the same callers with the same provider, while the other one is idle. The order alternates from pair
to pair, and each half of a pair is short, so that other load on the machine affects both alike. The feature "equal" compares two
gateways without any: smaller differences than theirs mean nothing.

With one connection, a feature that waits also makes calls rarer, and so dearer in all their parts, as caches are cold after a wait.
`--delay` makes the pace of both nearly the same, as with a real provider.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec
from rich.console import Console

from antiphon.v1 import admin_pb2, admin_pb2_grpc
from tests.bench import native
from tests.bench.gateways import Running, Use, running
from tests.bench.native import Upstream
from tests.bench.peers import KEY, Settings, ours
from tests.bench.scenarios import BY_NAME, WARM, Scenario
from tests.ports import free_port
from tests.postgres import Postgres

SCENARIO: Final = BY_NAME["json-16"]
AUTOMATIC: Final = {"sessions": {"automatic": True}}
QUOTA: Final = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrent_streams": 10**6, "daily_usd": 10**9}
LIMITS: Final = {"limits": {"per_key": QUOTA, "per_owner": QUOTA}}
GUARDS: Final = [
    {"name": "projects", "kind": "blocklist", "patterns": [r"(?i)project\s+falcon", "sk-[A-Za-z0-9]{20,}"], "action": "block"},
    {"name": "people", "kind": "personal_data", "entities": ["email", "credit_card"]},
]


class Feature(msgspec.Struct, frozen=True):
    """Milliseconds of the gateway's CPU of a call, without a feature and with it, and the median of the pairs' ratios."""

    name: str
    off: float
    on: float
    ratio: float
    quartiles: tuple[float, float]


@contextmanager
def _settings(name: str, upstream: Upstream) -> Iterator[Settings]:
    """Provide the settings of a feature, and what has to run for it."""
    match name:
        case "limits":
            yield LIMITS
        case "guards":
            yield {"guards": GUARDS}
        case "metrics":
            yield {"metrics": {"listen": f"127.0.0.1:{free_port()}"}}
        case "traces":
            yield {"traces": {"endpoint": upstream.base_url.removesuffix("/v1")}}
        case "limits, metrics, traces":
            with ExitStack() as stack:
                yield {
                    setting: value
                    for part in name.split(", ")
                    for setting, value in stack.enter_context(_settings(part, upstream)).items()
                }
        case "history in SQLite":
            yield AUTOMATIC
        case "history in PostgreSQL":
            with Postgres() as database:
                yield {**AUTOMATIC, "database": {"url": database.url, "timeout": 30}}
        case _:
            yield {}


NAMES: Final = (
    *("equal", "stored key", "limits", "guards", "metrics", "traces", "limits, metrics, traces"),
    *("history in SQLite", "history in PostgreSQL"),
)


def _stored_key(gateway: Running) -> str:
    """Create a key in the gateway's database, and return the header with it."""
    with grpc.insecure_channel(f"127.0.0.1:{gateway.place.more_ports[0]}") as channel:
        asked = admin_pb2.CreateKeyRequest(key=admin_pb2.Key(name="stored", owner="bench", scopes=[admin_pb2.SCOPE_CHAT]))
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        made = stub.CreateKey(asked, metadata=(("authorization", f"Bearer {KEY}"),))
    return f"authorization: Bearer {made.secret}"


def cost(gateway: Running, folder: Path, seconds: float, scenario: Scenario = SCENARIO) -> float:
    """Load the gateway, and return the CPU time of a call in milliseconds."""
    body = scenario.write(folder, "{}")
    use = Use(gateway)
    found = native.load(gateway.port, gateway.peer.path, body, gateway.headers, connections=scenario.connections, seconds=seconds)
    used: float = use.read(found["cpu"])["cpu"]
    assert found["ok"], f"{gateway.peer.name}: {found['sample'] or gateway.last_line}"
    return used / found["ok"] * 1000


def measure(
    name: str,
    folder: Path,
    upstream: Upstream,
    pairs: int,
    seconds: float,
    more: Settings | None = None,
    step: Callable[[], None] = lambda: None,
    scenario: Scenario = SCENARIO,
) -> Feature:
    """Measure a feature of `NAMES`, or the settings `more` under any name. `step` is called after each pair."""
    with ExitStack() as stack:
        settings = stack.enter_context(_settings(name, upstream)) if more is None else more
        off = stack.enter_context(running(ours("antiphon"), folder / f"{name}-off", upstream))
        on = stack.enter_context(running(ours("antiphon", **settings), folder / f"{name}-on", upstream))
        if name == "stored key":
            on.headers = [_stored_key(on)]
        for gateway in (off, on):
            body = WARM.write(folder, "{}")
            native.load(gateway.port, gateway.peer.path, body, gateway.headers, connections=WARM.connections, seconds=1.0)
        found = []
        for pair in range(pairs):
            order = (off, on) if pair % 2 == 0 else (on, off)
            figures = {gateway: cost(gateway, folder, seconds, scenario) for gateway in order}
            found.append((figures[off], figures[on]))
            step()
    ratios = [after / before for before, after in found]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios * 3)
    before, after = (statistics.median(figures) for figures in zip(*found, strict=True))
    return Feature(name, before, after, statistics.median(ratios), (low, high))


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="FEATURE", help=", ".join(NAMES))
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each half of a pair")
    parser.add_argument("--connections", type=int, default=SCENARIO.connections, help="how many calls there are at once")
    parser.add_argument("--delay", type=int, default=0, help="milliseconds that the provider takes")
    parser.add_argument("--with", dest="more", type=json.loads, help="settings of one of the two, as JSON, instead of the features")
    options = parser.parse_args()
    scenario = SCENARIO._replace(connections=options.connections)
    if options.delay:
        scenario = scenario._replace(tokens=1, model=f"mock-d{options.delay}")  # the provider takes as long for each token
    out = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder, native.upstream() as upstream:
        for name in ["settings"] if options.more else options.only:
            found = measure(name, Path(folder), upstream, options.pairs, options.seconds, options.more, scenario=scenario)
            low, high = found.quartiles
            told = f"{found.ratio - 1:+.1%}, quartiles {low - 1:+.1%} and {high - 1:+.1%}"
            out.print(f"{name}: {told}; {found.off:.3f} and {found.on:.3f} ms")


if __name__ == "__main__":
    main()
