"""Loads a whole gateway with mixed traffic for half an hour, and sees that nothing grows: `make soak`.

    make soak ARGS="--minutes 2"

All at once, and recorded: JSON and gRPC calls, streams, callers that leave, callers that read slowly, large bodies, calls that are
refused, and providers that fail or break off. Every five seconds the gateway's memory, descriptors, threads and tasks are read.
After the first quarter, in which caches fill, memory has to stay flat; when the traffic has ended, descriptors, threads and tasks
have to be as before it. Plots and figures are in build/bench: soak.svg, soak.md, soak.json; `--publish` puts them into
docs/guide/benchmarks.md. The exit code is 1 if something grew.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import Progress

from tests.bench import native, plot, processes, report
from tests.bench.compare import OUTPUT, commit, machine
from tests.bench.gateways import Running, running
from tests.bench.native import Upstream
from tests.bench.peers import ours
from tests.bench.plot import Series
from tests.bench.scenarios import Scenario

EVERY: Final = 5.0
REST: Final = 20.0
"""Seconds after the traffic in which everything may end."""
GRACE: Final = 15.0
"""Seconds that the last calls may take."""

GENERATE: Final = "/antiphon.v1.ChatService/Generate"
STREAM: Final = "/antiphon.v1.ChatService/StreamGenerate"

LARGE: Final = 1_000_000
"""Characters of a large message."""

MEMORY_GROWTH: Final = 0.05
"""The share by which memory may be higher in the last quarter than in the second one."""
LONG_ENOUGH: Final = 10.0
"""Minutes from which this is looked at: until then caches fill, and allocators keep what they were given."""
MORE_DESCRIPTORS: Final = 16
MORE_THREADS: Final = 4
MORE_TASKS: Final = 8

SETTINGS: Final[dict[str, Any]] = {
    "sessions": {"automatic": True},  # each call is recorded
    "limits": {"per_key": {"requests_per_minute": 10**9, "concurrent_streams": 10**6}},
    "guards": [{"name": "projects", "kind": "blocklist", "patterns": [r"(?i)project\s+falcon"], "action": "block"}],
}


class Traffic(msgspec.Struct, frozen=True):
    """Callers of one kind."""

    name: str
    scenario: Scenario
    pause: float = 0.2
    """Seconds between two calls of a caller."""
    options: dict[str, float | bool] = {}
    """More options of `load`."""
    body: bytes = b""
    """Instead of the scenario's."""
    key: str = ""
    """Instead of the right one."""
    fails: bool = False
    """Whether its calls fail, as they should."""


def traffic() -> list[Traffic]:
    """Return all kinds of callers. Their pauses keep the gateway from being always behind."""
    paced, leaving = Scenario("paced", "", 24, 64, "mock-d50", stream=True), {"cancel_after": 3}
    typed = Scenario("grpc-paced", "", 8, 64, "mock-d50", stream=True, rpc=STREAM)
    return [
        Traffic("JSON", Scenario("json", "", 6, 32)),
        Traffic("gRPC", Scenario("grpc", "", 4, 32, rpc=GENERATE)),
        Traffic("streams", paced),
        Traffic("gRPC streams", typed),
        Traffic("streams without a pause", Scenario("burst", "", 2, 256, stream=True), 0.5),
        Traffic("callers that leave", paced._replace(name="leave", connections=6), options=leaving),
        Traffic("gRPC callers that leave", typed._replace(name="grpc-leave", connections=4), options=leaving),
        Traffic("slow readers", Scenario("slow", "", 4, 1000, "mock-d0-s100", stream=True), 0.5, {"slow": True}),
        Traffic("large bodies", Scenario("large", "", 2, 32), 1.0, body=_body("word " * (LARGE // 5))),
        Traffic("large replies", Scenario("reply", "", 2, 2000, "mock-d0-s200"), 1.0),
        Traffic("replies cut off", Scenario("cut", "", 2, 32, "mock-d5-cut", stream=True), 0.5, fails=True),
        Traffic("a failing provider", Scenario("fail", "", 2, 32, "mock-fail"), 0.5, fails=True),
        Traffic("wrong keys", Scenario("key", "", 2, 32), 0.5, key="sk-wrong", fails=True),
        Traffic("bodies that are no JSON", Scenario("text", "", 2, 32), 0.5, body=b'{"model": ', fails=True),
        Traffic(
            "calls that a guard blocks", Scenario("guard", "", 2, 32), 0.5, body=_body("Tell me of Project Falcon."), fails=True
        ),
    ]


def _body(text: str) -> bytes:
    return msgspec.json.encode({"model": "mock-d0", "messages": [{"role": "user", "content": text}], "max_tokens": 32})


def start(gateway: Running, folder: Path, each: Traffic, seconds: float) -> subprocess.Popen[bytes]:
    """Start the callers of one kind."""
    path = each.scenario.write(folder, "{}")
    if each.body:
        path.write_bytes(each.body)
    options: dict[str, float | bool] = {
        "connections": each.scenario.connections,
        "seconds": seconds,
        "grace": GRACE,
        "pause": each.pause,
    }
    if each.scenario.rpc:
        options["grpc"] = True
    if each.scenario.stream:
        options["tokens"] = each.scenario.tokens
    headers = [f"authorization: Bearer {each.key}"] if each.key else gateway.headers
    return native.start_load(gateway.port, each.scenario.rpc or gateway.peer.path, path, headers, **options, **each.options)


class Reading(msgspec.Struct, frozen=True):
    """What is read every few seconds; memory in bytes."""

    second: float
    worker: int
    edge: int
    descriptors: int
    threads: int
    tasks: int


class Watched:
    """The gateway's processes."""

    def __init__(self, gateway: Running) -> None:
        self._folder = gateway.place.folder
        self._pids = gateway.pids
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in self._pids}
        self._edges = [pid for pid, command in commands.items() if command[0].endswith(b"envoy")]
        self._workers = [pid for pid, command in commands.items() if b"antiphon.worker" in command]

    def read(self, second: float) -> Reading:
        """Return the figures of this moment."""
        tasks = 0
        for pid in self._workers:
            with suppress(OSError, ValueError):
                tasks += int((self._folder / f"tasks-{pid}").read_text())
        threads = sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in self._pids)
        worker, edge = processes.memory(self._workers), processes.memory(self._edges)
        return Reading(second, worker, edge, processes.descriptors(self._pids), threads, tasks)


class Results(msgspec.Struct):
    """Everything that was found."""

    date: str
    machine: str
    commit: str
    minutes: float
    before: Reading
    readings: list[Reading]
    """While there is traffic."""
    after: Reading
    calls: dict[str, dict[str, Any]]
    """What each kind of callers found."""

    @property
    def growth(self) -> dict[str, float]:
        """Return the share by which memory grew from the second quarter to the last, by process."""
        count = len(self.readings)
        early, late = self.readings[count // 4 : max(count // 2, 1)], self.readings[3 * count // 4 :]
        found = {}
        for name in ("worker", "edge"):
            first, last = (statistics.median(getattr(each, name) for each in part) for part in (early, late))
            found[name] = last / first - 1
        return found

    @property
    def wrong(self) -> list[str]:
        """Return what grew, and which calls did not do as they should, in words."""
        growth = self.growth if self.minutes >= LONG_ENOUGH else {}
        found = [f"the memory of the {name} grew by {share:.1%}" for name, share in growth.items() if share > MEMORY_GROWTH]
        for name, most in (("descriptors", MORE_DESCRIPTORS), ("threads", MORE_THREADS), ("tasks", MORE_TASKS)):
            before, after = getattr(self.before, name), getattr(self.after, name)
            if after > before + most:
                found.append(f"there are {after} {name} after the traffic, and were {before} before it")
        for each in traffic():
            calls = self.calls[each.name]
            good = calls["ok"] + calls["cancelled"]
            if not each.fails and (not good or calls["failed"] + calls["broken"] > good // 100):
                found.append(
                    f"{each.name}: {good} calls ended well, {calls['failed']} failed, {calls['broken']} broke: {calls['sample']}"
                )
        return found


def soak(folder: Path, upstream: Upstream, minutes: float, progress: Progress) -> Results:
    """Start a gateway, load it, and read its figures."""
    seconds = minutes * 60
    task = progress.add_task("soak", total=seconds + 2 * REST, what="starting")
    peer = ours("antiphon", **SETTINGS)
    more = {"PYTHONPATH": str(Path(__file__).parent / "inside"), "SOAK_FOLDER": str(folder / "gateway")}
    with running(replace(peer, environment={**peer.environment, **more}), folder / "gateway", upstream) as gateway:
        # What is made at the first calls of each kind is no growth.
        for process in [start(gateway, folder, each, 2.0) for each in traffic()]:
            native.finish(process, 60)
        time.sleep(REST)
        watched = Watched(gateway)
        before, began, readings = watched.read(0.0), time.monotonic(), []
        callers = {each.name: start(gateway, folder, each, seconds) for each in traffic()}
        try:
            while (second := time.monotonic() - began) < seconds:
                now = watched.read(second)
                readings.append(now)
                told = f"{now.worker / 1e6:.0f} and {now.edge / 1e6:.0f} MB, {now.descriptors} descriptors, {now.tasks} tasks"
                progress.update(task, completed=REST + second, what=told)
                time.sleep(min(EVERY, max(0.1, began + seconds - time.monotonic())))
            calls = {name: native.finish(process, GRACE + 30) for name, process in callers.items()}
        finally:
            for process in callers.values():
                process.kill()
                process.wait()
        progress.update(task, completed=REST + seconds, what="waiting until everything has ended")
        time.sleep(REST)
        after = watched.read(time.monotonic() - began)
        progress.update(task, completed=seconds + 2 * REST, what="")
    return Results(time.strftime("%Y-%m-%d", time.gmtime()), machine(), commit(), minutes, before, readings, after, calls)


def picture(results: Results) -> str:
    """Return the plots of everything that was read."""
    panels = []
    for number, (title, unit, names) in enumerate(
        (
            ("Memory (PSS)", "bytes", ("worker", "edge")),
            ("Descriptors of all processes", "short", ("descriptors",)),
            ("Threads of all processes", "short", ("threads",)),
            ("Tasks of the worker", "short", ("tasks",)),
        )
    ):
        place = {"x": 12 * (number % 2), "y": 9 * (number // 2), "w": 12, "h": 9}
        panel = {"title": title, "type": "timeseries", "gridPos": place, "fieldConfig": {"defaults": {"unit": unit}}}
        series = [Series(name, [(each.second, float(getattr(each, name))) for each in results.readings]) for name in names]
        panels.append((panel, series, ""))
    return plot.dashboard(f"{results.minutes:g} minutes of mixed traffic, {results.date}", panels, results.minutes * 60)


def markdown(results: Results, images: str = "") -> str:
    """Return what was found, in words and tables; the plots are looked for in the folder `images`."""
    lines = [
        f"{results.minutes:g} minutes of mixed traffic on {results.date} at `{results.commit}`: {results.machine}.",
        "",
        f"![figures of the gateway]({images}soak.svg)",
        "",
        "| callers | ended well | left by the caller | failed | broken |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {c['ok']:,} | {c['cancelled']:,} | {c['failed']:,} | {c['broken']:,} |"
            for name, c in results.calls.items()
        ),
        "",
        "| | before | at the end | after |",
        "| --- | --- | --- | --- |",
    ]
    last = results.readings[-1]
    for name in ("worker", "edge", "descriptors", "threads", "tasks"):
        figures = [getattr(each, name) for each in (results.before, last, results.after)]
        told = [f"{figure / 1e6:.0f} MB" if name in {"worker", "edge"} else str(figure) for figure in figures]
        lines.append(f"| {name} | {' | '.join(told)} |")
    growth = ", ".join(f"{name} {share:+.1%}" for name, share in results.growth.items())
    lines += ["", f"Memory from the second quarter to the last: {growth}."]
    lines += [f"\n**Wrong: {each}.**" for each in results.wrong] or ["", "Nothing grew."]
    return "\n".join([*lines, ""])


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder of the results")
    parser.add_argument("--publish", action="store_true", help="write the tables and plots into the documentation, too")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder,
        native.upstream() as upstream,
        report.progress() as progress,
    ):
        results = soak(Path(folder), upstream, options.minutes, progress)
    pictures = {"soak": picture(results)}
    report.write("soak", results, markdown(results), pictures, options.output)
    if options.publish:
        report.publish("soak", markdown(results, report.IMAGES_OF_PAGE), pictures)
    Console(width=132).print(markdown(results), markup=False, highlight=False)
    sys.exit(bool(results.wrong))


if __name__ == "__main__":
    main()
