"""Measures how Antiphon's cost grows with size: `make scale`.

    make scale ARGS="--only conversation keys --rounds 1"

Workers: calls a second with one and with two. Conversation: the CPU of a recorded turn behind so many messages. Keys: the CPU of a
call with a stored key, among so many. Streams: the CPU of a token with so many streams at once, and the memory of silent ones.
Request and reply: the CPU of a call by their length. The points of a dimension are measured in turn, round after round; figures are
medians, and ratios are to the smallest size. Results are in build/bench: scale.json, scale.md, and a plot of each dimension;
`--publish` puts them into docs/guide/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec
from rich.console import Console

from antiphon.v1 import admin_pb2, admin_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.bench import native, plot, report
from tests.bench.compare import OUTPUT, commit, machine
from tests.bench.gateways import Running, Use, running
from tests.bench.load import load, open_streams, post
from tests.bench.native import Upstream
from tests.bench.peers import KEY, ours
from tests.bench.plot import Bar
from tests.bench.scenarios import BY_NAME, MESSAGES, WARM, Scenario

WORKERS: Final = (1, 2)
MESSAGES_BEFORE: Final = (0, 10, 100, 1000)
KEYS: Final = (1, 100, 3000)
STREAMS: Final = (16, 64, 256, 1000)
SILENT: Final = (1, 100, 500, 1500)
CHARACTERS: Final = (100, 10_000, 100_000, 1_000_000)
TOKENS: Final = (10, 100, 1000, 10_000)

CHATS: Final = 32
"""Conversations of each length; each gets one turn in a round, so they hardly grow."""
METADATA: Final = (("authorization", f"Bearer {KEY}"),)

CALL, TURN, TOKEN = "ms of CPU of a call", "ms of CPU of a turn", "µs of CPU of a token"

Measure = Callable[[], float]


class Point(msgspec.Struct):
    """A size of a dimension, and what was found with it in each round."""

    dimension: str
    size: int
    unit: str
    found: list[float] = []

    @property
    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.found)


class Results(msgspec.Struct):
    """Everything that was measured."""

    date: str
    machine: str
    commit: str
    cores: int
    rounds: int
    points: list[Point]

    @property
    def dimensions(self) -> dict[str, list[Point]]:
        """Return the points of each dimension, from the smallest size."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.dimension, []).append(point)
        return found


class Scale:
    """The gateways, and the points measured with them. What a dimension needs is started by its method."""

    def __init__(self, folder: Path, upstream: Upstream, seconds: float, stack: ExitStack) -> None:
        self._folder = folder
        self._upstream = upstream
        self._seconds = seconds
        self._stack = stack
        self._base: Running | None = None
        self.dimensions: dict[str, Callable[[], list[tuple[Point, Measure]]]] = {
            "workers": self._workers,
            "conversation": self._conversation,
            "keys": self._keys,
            "streams": self._streams,
            "silent": self._silent,
            "request": self._request,
            "reply": self._reply,
        }

    def _gateway(self, name: str, **settings: Any) -> Running:
        gateway = self._stack.enter_context(running(ours("antiphon", **settings), self._folder / name, self._upstream))
        self._load(gateway, WARM)
        return gateway

    @property
    def _one(self) -> Running:
        """Return the gateway that needs no settings."""
        if self._base is None:
            self._base = self._gateway("one")
        return self._base

    def _load(
        self, gateway: Running, scenario: Scenario, body: bytes = b"", headers: Sequence[str] = ()
    ) -> tuple[float, dict[str, Any]]:
        """Return the seconds of the gateway's CPU, and what the callers found."""
        path = scenario.write(gateway.place.folder, "{}")
        if body:
            path.write_bytes(body)
        more: dict[str, float | bool] = {"tokens": scenario.tokens} if scenario.stream else {}
        use = Use(gateway)
        options = {"connections": scenario.connections, "seconds": self._seconds, **more}
        found = native.load(gateway.port, gateway.peer.path, path, headers or gateway.headers, **options)
        assert found["ok"], f"{scenario.name}: {found['sample'] or gateway.last_line}"
        return use.read(found["cpu"])["cpu"], found

    def _call(self, gateway: Running, scenario: Scenario, body: bytes = b"", headers: Sequence[str] = ()) -> float:
        used, found = self._load(gateway, scenario, body, headers)
        return used / found["ok"] * 1e3

    def _workers(self) -> list[tuple[Point, Measure]]:
        def rate(gateway: Running) -> float:
            return float(self._load(gateway, BY_NAME["json-64"])[1]["calls_per_second"])

        gateways = {count: self._gateway(f"workers-{count}", workers=count) for count in WORKERS}
        points = [(Point("workers", count, "calls a second"), lambda made=made: rate(made)) for count, made in gateways.items()]
        for count, made in gateways.items():
            points.append((Point("workers: cost", count, CALL), lambda made=made: self._call(made, BY_NAME["json-64"])))
        return points

    def _conversation(self) -> list[tuple[Point, Measure]]:
        gateway = self._one
        address = f"127.0.0.1:{gateway.port}"

        def turn(requests: list[bytes]) -> float:
            use = Use(gateway)
            bad = asyncio.run(load(address, islice(cycle(requests), CHATS), 4))
            assert not bad, bad[0]
            return use.read(0.0)["cpu"] / CHATS * 1e3

        found = []
        for count in MESSAGES_BEFORE:
            bodies = [
                {"model": "mock-d0", "messages": MESSAGES[1:], "max_tokens": 32, "session_id": chat}
                for chat in chats(gateway, count)
            ]
            requests = [post(address, gateway.peer.path, gateway.headers, msgspec.json.encode(body)) for body in bodies]
            found.append((Point("conversation", count, TURN), lambda requests=requests: turn(requests)))
        return found

    def _keys(self) -> list[tuple[Point, Measure]]:
        found = []
        for count in KEYS:
            gateway = self._gateway(f"keys-{count}")
            header = asyncio.run(keys(gateway, count))
            found.append((Point("keys", count, CALL), lambda made=gateway, header=header: self._call(made, WARM, headers=[header])))
        return found

    def _streams(self) -> list[tuple[Point, Measure]]:
        def token(count: int) -> float:
            used, found = self._load(self._one, Scenario(f"streams-{count}", "", count, 32, "mock-d50", stream=True))
            return used / found["tokens"] * 1e6

        return [(Point("streams", count, TOKEN), lambda count=count: token(count)) for count in STREAMS]

    def _silent(self) -> list[tuple[Point, Measure]]:
        scenario = Scenario("silent", "", 1, 2, "mock-hang", stream=True)

        async def memory(gateway: Running, count: int) -> float:
            address = f"127.0.0.1:{gateway.port}"
            asked = post(address, gateway.peer.path, gateway.headers, scenario.body("{}"))
            async with open_streams(address, [asked] * count):
                await asyncio.sleep(1.0)
                return gateway.memory

        # A gateway for each, as one keeps some of the memory that more streams have needed.
        gateways = {count: self._gateway(f"silent-{count}") for count in SILENT}
        return [
            (Point("silent", count, "MB of memory"), lambda count=count, made=made: asyncio.run(memory(made, count)))
            for count, made in gateways.items()
        ]

    def _request(self) -> list[tuple[Point, Measure]]:
        def body(count: int) -> bytes:
            messages = [{"role": "user", "content": ("word " * count)[:count]}]
            return msgspec.json.encode({"model": "mock-d0", "messages": messages, "max_tokens": 32})

        one = Scenario("request", "", 4, 32)
        return [(Point("request", n, CALL), lambda n=n: self._call(self._one, one, body(n))) for n in CHARACTERS]

    def _reply(self) -> list[tuple[Point, Measure]]:
        scenarios = {count: Scenario("reply", "", 4, count) for count in TOKENS}
        return [(Point("reply", n, CALL), lambda each=each: self._call(self._one, each)) for n, each in scenarios.items()]


TITLES: Final = {
    "workers": "workers",
    "workers: cost": "workers",
    "conversation": "messages before a recorded turn",
    "keys": "stored keys",
    "streams": "streams at once, 20 tokens a second each",
    "silent": "silent streams at once",
    "request": "characters of a request",
    "reply": "tokens of a reply that is no stream",
}


def chats(gateway: Running, messages: int) -> list[str]:
    """Create conversations with so many messages, and return their ids."""
    told = [
        message_pb2.Message(
            role=("ROLE_USER", "ROLE_ASSISTANT")[number % 2],
            blocks=[message_pb2.Block(text=message_pb2.Text(text=f"{number} " + "word " * 40))],
        )
        for number in range(messages)
    ]
    with grpc.insecure_channel(f"127.0.0.1:{gateway.place.more_ports[0]}") as channel:
        stub: Any = history_pb2_grpc.HistoryServiceStub(channel)
        asked = history_pb2.CreateConversationRequest(messages=told)
        return [stub.CreateConversation(asked, metadata=METADATA).conversation.id for _ in range(CHATS)]


async def keys(gateway: Running, count: int) -> str:
    """Store so many keys, and return the header with the last one."""
    left = iter(range(count))
    secret = ""

    async def create(stub: Any) -> None:
        nonlocal secret
        for number in left:
            key = admin_pb2.Key(name=f"key-{number}", owner="bench", scopes=[admin_pb2.SCOPE_CHAT])
            secret = (await stub.CreateKey(admin_pb2.CreateKeyRequest(key=key), metadata=METADATA)).secret

    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.place.more_ports[0]}") as channel, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(create(admin_pb2_grpc.AdminServiceStub(channel)))
    return f"authorization: Bearer {secret}"


def measure(only: Sequence[str], rounds: int, seconds: float) -> Results:
    """Measure the dimensions."""
    date = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d")
    results = Results(date, machine(), commit(), os.cpu_count() or 1, rounds, [])
    with (
        tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as folder,
        native.upstream() as upstream,
        report.progress() as progress,
    ):
        tasks = {name: progress.add_task(name, total=None, what="") for name in only}
        for name in only:
            with ExitStack() as stack:
                progress.update(tasks[name], what="starting")
                points = Scale(Path(folder, name), upstream, seconds, stack).dimensions[name]()
                progress.update(tasks[name], total=len(points) * rounds)
                for number in range(rounds):
                    for point, work in points:
                        progress.update(tasks[name], what=f"{point.size:,}, {number + 1} of {rounds}")
                        point.found = [*point.found, work()]
                        progress.advance(tasks[name])
                progress.update(tasks[name], what="")
            results.points += [point for point, _ in points]
    return results


def markdown(results: Results, images: str = "") -> str:
    """Return a table of each dimension; the plots are looked for in the folder `images`."""
    lines = [f"Measured on {results.date} at `{results.commit}`: {results.machine}. Medians of {results.rounds} rounds."]
    for name, points in results.dimensions.items():
        first = points[0]
        lines += [
            "",
            f"![{name}]({images}{_file(name)}.svg)",
            "",
            f"| {TITLES[name]} | {first.unit} | to {first.size:,} |",
            "| --- | --- | --- |",
        ]
        lines += [f"| {p.size:,} | {_figure(p.median)} | {p.median / first.median:.2f}x |" for p in points]
    return "\n".join([*lines, ""])


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _file(dimension: str) -> str:
    return f"scale-{dimension.replace(': ', '-')}"


def pictures(results: Results) -> dict[str, str]:
    """Return a plot of each dimension as SVG, by name."""
    found = {}
    for name, points in results.dimensions.items():
        bars = [Bar(f"{point.size:,}", point.median, ours=True) for point in points]
        title = f"{TITLES[name].capitalize()}: {points[0].unit}"
        found[_file(name)] = plot.bars(title, "", bars, by_value=False)
    return found


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name in TITLES if ":" not in name]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="DIMENSION", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each sample")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder of the results")
    parser.add_argument("--publish", action="store_true", help="write the tables and plots into the documentation, too")
    options = parser.parse_args()
    results = measure(options.only, options.rounds, options.seconds)
    report.write("scale", results, markdown(results), pictures(results), options.output)
    if options.publish:
        report.publish("scale", markdown(results, report.IMAGES_OF_PAGE), pictures(results))
    Console(width=132).print(markdown(results), markup=False, highlight=False)


if __name__ == "__main__":
    main()
