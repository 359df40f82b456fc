"""Measures what callers see of outages of providers: `make bench-outages`, ten minutes.

    make bench-outages ARGS="--only outages --setups 'two replicas' --faults killed slow"

A steady load goes to two deployments, through a gateway of two workers, and through two replicas that share Redis and PostgreSQL.
Then one deployment is killed, fails every call or 30 % of them, answers 429, is slow or flaps; then both fail. After that: loops of
tool calls with signatures and encrypted reasoning, callers that leave at any moment, and what a choice costs. Tables, plots and
figures are in build/bench: outages.md, outages-*.svg, outages.json; `--publish` puts them into docs/guide/outages.md. The exit code
is 1 if something is not as wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from tests.bench import native
from tests.bench import report as files
from tests.bench.compare import OUTPUT, commit, machine
from tests.bench.outages import cancels, cost, outage, report
from tests.bench.outages.fleet import SETUPS, fleet, two_deployments
from tests.bench.outages.provider import pair
from tests.bench.outages.report import Loops, Results
from tests.e2e.many_loops import run_loops
from tests.strict.pair import StrictPair

PAGE: Final = files.ROOT / "docs" / "guide" / "outages.md"
PARTS: Final = ("outages", "loops", "cancels", "cost")
LOOPS, TURNS = 200, 5
CALLS: Final = 60
"""Calls of each kind that are left."""


async def outages(results: Results, folder: Path, options: argparse.Namespace, progress: Progress) -> None:
    """Play every outage with each of the setups."""
    faults = [fault for fault in outage.FAULTS if fault.name in options.faults]
    task = progress.add_task("outages", total=len(options.setups) * len(faults), what="")
    for setup in options.setups:
        async with pair() as (east, west):
            config = two_deployments(east.base_url, west.base_url)
            for fault in faults:
                progress.update(task, what=f"{setup}, {fault.name}")
                (place := folder / fault.name.replace(" ", "-")).mkdir(exist_ok=True)
                async with fleet(setup, place, config) as gateways:  # each outage meets gateways that know of no other one
                    addresses = [gateway.rest for gateway in gateways]
                    results.outages.append(await outage.play(setup, fault, addresses, (east, west)))
                progress.advance(task)


async def loops(results: Results, folder: Path, progress: Progress) -> None:
    """Run loops of tool calls over two replicas."""
    task = progress.add_task("loops", total=1, what="over two replicas")
    turns = 0
    async with StrictPair() as strict:
        config = {"providers": strict.providers(), "models": {"default": strict.model("anthropic")}}
        try:
            async with fleet("two replicas", folder, config) as gateways:
                turns = await run_loops(gateways, strict, LOOPS, TURNS)
        finally:  # a refused request ends the loops
            results.loops = Loops(LOOPS, turns, strict.out_of_order, strict.refused)
    progress.advance(task)


async def leave(results: Results, folder: Path, progress: Progress) -> None:
    """Make calls of each kind, and leave them."""
    task = progress.add_task("cancels", total=len(cancels.KINDS), what="")
    taken = []
    async with (
        pair() as (east, west),
        fleet("two workers", folder, cancels.configuration(east.base_url, west.base_url)) as (gateway,),
    ):
        for kind in cancels.KINDS:
            progress.update(task, what=kind.name)
            found, each = await cancels.measure(kind, gateway, (east, west), CALLS)
            results.cancels.append(found)
            taken += each
            progress.advance(task)
    results.cancelled_p99 = sorted(taken)[int(len(taken) * 0.99)]


async def costs(results: Results, folder: Path, rounds: int, progress: Progress) -> None:
    """Measure what a choice costs."""
    task = progress.add_task("cost", total=rounds, what="")
    with native.upstream() as upstream:
        async with fleet("one worker", folder, cost.configuration(upstream)) as (gateway,):
            results.costs = await asyncio.to_thread(cost.measure, gateway, folder, rounds, step=lambda: progress.advance(task))


async def measure(results: Results, options: argparse.Namespace, progress: Progress) -> None:
    """Do what the command line asks for, and add to the results what was found."""
    with tempfile.TemporaryDirectory(prefix="outages-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        for part in options.only:
            (place := folder / part).mkdir()
            match part:
                case "outages":
                    await outages(results, place, options, progress)
                case "loops":
                    await loops(results, place, progress)
                case "cancels":
                    await leave(results, place, progress)
                case _:
                    await costs(results, place, options.rounds, progress)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [fault.name for fault in outage.FAULTS]
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--setups", nargs="+", choices=SETUPS, default=SETUPS, metavar="SETUP", help=", ".join(SETUPS))
    parser.add_argument(
        "--faults", nargs="+", choices=names, default=names, metavar="FAULT", help=", ".join(names).replace("%", "%%")
    )
    parser.add_argument("--rounds", type=int, default=cost.ROUNDS, help="of the cost of a choice")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder of the results")
    parser.add_argument("--publish", action="store_true", help="write the tables and plots into the documentation, too")
    options = parser.parse_args()
    results = Results(time.strftime("%Y-%m-%d", time.gmtime()), machine(), commit())
    try:
        with files.progress() as progress:
            asyncio.run(measure(results, options, progress))
    finally:  # also of what was interrupted
        pictures = report.pictures(results)
        files.write("outages", results, report.markdown(results), pictures, options.output)
    if options.publish:
        files.publish("outages", report.markdown(results, files.IMAGES_OF_PAGE), pictures, PAGE)
    Console(width=160).print(report.markdown(results), markup=False, highlight=False)
    sys.exit(bool(results.wrong))


if __name__ == "__main__":
    main()
