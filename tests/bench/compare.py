"""Measures this build of Antiphon beside other gateways: `make bench`, or `python -m tests.bench.compare`.

    make bench-quick                                  # three minutes: is everything in order, and roughly how fast?
    make bench                                        # an hour at most, on a machine that does nothing else
    make bench ARGS="--without mlflow portkey"        # without some of them
    make bench ARGS="--only antiphon litellm --rounds 2"

All gateways run on this machine, in front of the same provider, and are loaded in turn by the same callers: round after round, so
that whatever else the machine does meets all of them. Figures are medians of the rounds. Ratios are taken within a round, so they
hold where absolute figures do not. Each sample has the cores that other processes and other virtual machines used meanwhile; one
with more than `report.QUIET` of them counts only if there is no better one.

The results are written to build/bench/bench.json, with tables in bench.md and plots beside them; `--publish` puts tables and plots
into docs/guide/benchmarks.md, and a short table into README.md. `--report` measures nothing, and writes all
of this again from bench.json.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import platform
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import Progress, TaskID

from tests.bench import features, native, report
from tests.bench.gateways import DidNotStart, Running, Use, running
from tests.bench.load import open_streams, post
from tests.bench.native import Upstream
from tests.bench.peers import ANTIPHON, DIRECT, PEERS, Peer
from tests.bench.report import Cancel, Failed, Held, Results, Sample, Start
from tests.bench.scenarios import ALL, BY_NAME, QUICK, WARM, Scenario

ROOT: Final = Path(__file__).parents[2]
OUTPUT: Final = ROOT / "build" / "bench"

IDLE: Final = 0.05
"""The share of a core below which a gateway counts as idle."""

IDLE_PATIENCE: Final = 60
"""The most seconds to wait for that."""

CANCEL_PATIENCE: Final = 5.0
"""Seconds after which a provider's stream counts as never cancelled."""


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    scenarios: tuple[Scenario, ...]
    rounds: int
    seconds: float
    """During which calls are begun, of each sample."""
    starts: int
    held: int
    """Streams at once whose memory is measured."""
    cancels: int
    pairs: int
    """Pairs of samples for each feature."""


FULL: Final = Plan(scenarios=ALL, rounds=4, seconds=3, starts=3, held=500, cancels=30, pairs=16)
SHORT: Final = Plan(scenarios=QUICK, rounds=1, seconds=1, starts=1, held=100, cancels=5, pairs=0)


class Bench:
    """One run of the benchmark, and the display of its progress."""

    def __init__(self, plan: Plan, folder: Path, upstream: Upstream, results: Results, progress: Progress) -> None:
        self._plan = plan
        self._folder = folder
        self._upstream = upstream
        self._results = results
        self._progress = progress
        self._number = 0

    def run(self, peers: Sequence[Peer], only_features: Sequence[str]) -> None:
        """Measure everything, and add it to the results as it comes."""
        ready = self._installed(peers)
        ready = self._starts(ready)
        with ExitStack() as stack:
            gateways = self._all_running(ready, stack)
            self._load(gateways)
            self._cancel(gateways)
        if self._plan.pairs and ANTIPHON in ready:
            self._features(only_features)

    def _installed(self, peers: Sequence[Peer]) -> list[Peer]:
        ready = []
        with self._stage("install", len(peers)) as step:
            for peer in peers:
                step(peer.name)
                if reason := peer.install():
                    self._leave_out(peer, f"cannot be installed: {reason}")
                else:
                    ready.append(peer)
        return ready

    def _starts(self, peers: Sequence[Peer]) -> list[Peer]:
        """Start each alone: how long that takes, and its memory: idle, with silent streams, and after a load."""
        ready = list(peers)
        with self._stage("start", len(peers) * self._plan.starts) as step:
            for number in range(self._plan.starts):
                for peer in peers:
                    step(f"{peer.name}, {number + 1} of {self._plan.starts}")
                    if peer is DIRECT or peer not in ready:
                        continue
                    try:
                        with running(peer, self._place(peer), self._upstream) as gateway:
                            self._start(gateway, with_loads=number == 0)
                    except DidNotStart as failed:
                        self._leave_out(peer, str(failed))
                        ready.remove(peer)
        return ready

    def _start(self, gateway: Running, *, with_loads: bool) -> None:
        time.sleep(1.0)  # what it does after its first answer
        use = Use(gateway, self._upstream.pid)
        time.sleep(1.0)
        name, idle = gateway.peer.name, use.read(0.0)
        start = Start(name, gateway.listened, gateway.answered, gateway.memory, len(gateway.pids), idle["cpu"])
        self._results.starts.append(start)
        if not with_loads:
            return
        try:
            with_them = asyncio.run(_memory_with(gateway, self._plan.held))
        except Exception as failed:  # noqa: BLE001  # whatever a gateway does to so many streams
            self._fail(name, "silent streams", f"{type(failed).__name__}: {failed}")
        else:
            self._results.held.append(Held(name, self._plan.held, start.memory, with_them))
        self._sample(0, BY_NAME["json-64"], gateway)
        self._results.loaded[name] = gateway.memory  # here, as gateways that run beside each other share what they have in common

    def _all_running(self, peers: Sequence[Peer], stack: ExitStack) -> list[Running]:
        gateways = []
        with self._stage("start all", len(peers)) as step:
            for peer in peers:
                step(peer.name)
                try:
                    gateway = stack.enter_context(running(peer, self._place(peer), self._upstream))
                except DidNotStart as failed:
                    self._leave_out(peer, str(failed))
                    continue
                body = WARM.write(gateway.place.folder, peer.model)
                native.load(
                    gateway.port, peer.path, body, gateway.headers, connections=WARM.connections, seconds=self._plan.seconds / 2
                )
                gateways.append(gateway)
        return gateways

    def _load(self, gateways: Sequence[Running]) -> None:
        cells = [(s, g) for s in self._plan.scenarios for g in gateways if g.peer is ANTIPHON or not s.rpc]
        with self._stage("load", len(cells) * self._plan.rounds) as step:
            for number in range(self._plan.rounds):
                for scenario, gateway in cells:
                    step(f"{scenario.title}: {gateway.peer.name}, {number + 1} of {self._plan.rounds}")
                    self._results.samples.append(self._sample(number, scenario, gateway))

    def _sample(self, number: int, scenario: Scenario, gateway: Running) -> Sample:
        more: dict[str, Any] = {"tokens": scenario.tokens} if scenario.stream else {}
        if scenario.rpc:
            more["grpc"] = True
        body = scenario.write(gateway.place.folder, gateway.peer.model)
        use = Use(gateway, self._upstream.pid)
        found = native.load(
            gateway.port,
            scenario.rpc or gateway.peer.path,
            body,
            gateway.headers,
            connections=scenario.connections,
            seconds=self._plan.seconds,
            **more,
        )
        found |= {"callers_cpu": found.pop("cpu")}
        found |= use.read(found["callers_cpu"])
        if found["unfinished"]:
            _await_idle(gateway)
        return msgspec.convert({"round": number, "scenario": scenario.name, "gateway": gateway.peer.name, **found}, Sample)

    def _cancel(self, gateways: Sequence[Running]) -> None:
        with self._stage("cancel", len(gateways)) as step:
            for gateway in gateways:
                step(gateway.peer.name)
                for _ in range(self._plan.cancels):
                    try:
                        taken = cancel(gateway, self._upstream)
                    except OSError as failed:
                        self._fail(gateway.peer.name, "cancel", str(failed))
                        break
                    self._results.cancels.append(Cancel(gateway.peer.name, taken))
                    if taken is None:  # it takes long, and the next ones are alike
                        break

    def _features(self, names: Sequence[str]) -> None:
        with self._stage("features", len(names) * self._plan.pairs) as step:
            for name in names:
                found = features.measure(
                    name, self._folder, self._upstream, self._plan.pairs, 1.0, step=lambda name=name: step(name)
                )
                self._results.features.append(found)

    def _place(self, peer: Peer) -> Path:
        self._number += 1
        return self._folder / f"{peer.name}-{self._number}"

    def _leave_out(self, peer: Peer, reason: str) -> None:
        self._results.left_out[peer.name] = reason
        self._progress.console.print(f"without {peer.name}: {reason}", markup=False)

    def _fail(self, name: str, what: str, reason: str) -> None:
        self._results.failed.append(Failed(name, what, reason))
        self._progress.console.print(f"{name}, {what}: {reason}", markup=False)

    @contextmanager
    def _stage(self, name: str, steps: int) -> Iterator[Any]:
        """Show a line of progress: the function that is given says what comes next."""
        task: TaskID = self._progress.add_task(name, total=steps, what="")
        begun = 0

        def step(what: str) -> None:
            nonlocal begun
            self._progress.update(task, completed=begun, what=what)
            begun += 1

        yield step
        self._progress.update(task, completed=steps, what="")


async def _memory_with(gateway: Running, count: int) -> float:
    """Return the gateway's memory in MB while so many streams are open and silent."""
    scenario = Scenario("silent", "", count, 2, "mock-hang", stream=True)
    address = f"127.0.0.1:{gateway.port}"
    asked = post(address, gateway.peer.path, gateway.headers, scenario.body(gateway.peer.model))
    async with asyncio.timeout(120), open_streams(address, [asked] * count):
        await asyncio.sleep(2.0)
        return gateway.memory


def _await_idle(gateway: Running) -> None:
    """Wait until a gateway has dropped what its callers left: some go on for seconds, in the time of the next sample."""
    for _ in range(IDLE_PATIENCE):
        use = Use(gateway)
        time.sleep(1)
        if use.read(0)["cpu"] < IDLE:
            return


def cancel(gateway: Running, upstream: Upstream) -> float | None:
    """Leave a stream after its third token; return the milliseconds until the provider notices, or None if it does not."""
    scenario = Scenario("cancelled", "", 1, 400, "mock-d50", stream=True)
    before = upstream.stats()["left"]
    address = f"127.0.0.1:{gateway.port}"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as caller:
        caller.sendall(post(address, gateway.peer.path, gateway.headers, scenario.body(gateway.peer.model)))
        read = b""
        while read.count(b"@") < 3:
            data = caller.recv(65536)
            if not data:
                raise ConnectionError("the stream ended before it could be left")
            read += data
    left = time.clock_gettime(time.CLOCK_MONOTONIC)
    while time.clock_gettime(time.CLOCK_MONOTONIC) < left + CANCEL_PATIENCE:
        stats = upstream.stats()
        if stats["left"] > before:
            return max(0.0, stats["left_at"] / 1e3 - left * 1e3)
        time.sleep(0.005)
    return None


def machine() -> str:
    """Return what this machine is, in a line."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {name}, {memory:.0f} GiB, {system}; load {os.getloadavg()[0]:.1f} before"


def commit() -> str:
    """Return the commit that is measured, with a mark if files differ from it."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def measure(options: argparse.Namespace, plan: Plan, output: Path) -> Results:
    """Run the benchmark, and write its results, also if it is interrupted."""
    names = [name for name in options.only or PEERS if name not in options.without]
    peers = [PEERS[name] for name in names]
    results = Results(
        date=dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d"),
        machine=machine(),
        commit=commit(),
        rounds=plan.rounds,
        seconds=plan.seconds,
        versions={peer.name: peer.version for peer in peers if peer.version},
    )
    if options.quick:  # it installs nothing
        for peer in [
            each for each in peers if not options.only and (each.packages or each.node) and not (each.folder / "installed").exists()
        ]:
            results.left_out[peer.name] = "is not installed yet: make bench does it"
            peers.remove(peer)
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder,
        report.progress() as progress,
        native.upstream() as upstream,
    ):
        try:
            Bench(plan, Path(folder), upstream, results, progress).run(peers, options.features)
        finally:
            report.write("bench", results, report.markdown(results), report.pictures(results), output)
    return results


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three minutes, with those that are installed already")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=[], metavar="GATEWAY", help=", ".join(PEERS))
    parser.add_argument("--without", nargs="+", choices=PEERS, default=[], metavar="GATEWAY")
    parser.add_argument("--scenarios", nargs="+", choices=BY_NAME, metavar="SCENARIO", help=", ".join(BY_NAME))
    parser.add_argument("--features", nargs="*", choices=features.NAMES, default=features.NAMES, metavar="FEATURE")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each sample")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder of the results")
    parser.add_argument("--report", action="store_true", help="measure nothing, but write the tables again")
    parser.add_argument("--publish", action="store_true", help="write the tables and plots into the documentation, too")
    options = parser.parse_args()
    plan = SHORT if options.quick else FULL
    changes: dict[str, Any] = {"rounds": options.rounds, "seconds": options.seconds}
    changes["scenarios"] = tuple(BY_NAME[name] for name in options.scenarios) if options.scenarios else None
    plan = msgspec.structs.replace(plan, **{name: value for name, value in changes.items() if value is not None})
    if options.report:
        results = msgspec.json.decode((options.output / "bench.json").read_bytes(), type=Results)
        report.write("bench", results, report.markdown(results), report.pictures(results), options.output)
    else:
        results = measure(options, plan, options.output)
    if options.publish:
        report.publish("bench", report.markdown(results, report.IMAGES_OF_PAGE), report.pictures(results))
        readme = report.README.read_text(encoding="utf-8")
        report.README.write_text(report.replace(readme, "bench", report.brief(results)), encoding="utf-8")
    Console(width=132).print(report.markdown(results), markup=False, highlight=False)


if __name__ == "__main__":
    main()
