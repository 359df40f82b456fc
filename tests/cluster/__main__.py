"""The cluster test: three replicas as Kubernetes runs them, under mixed load, while everything that can go wrong does.

`make cluster`, or `python -m tests.cluster [--minutes 10]`. It leaves report.txt, report.json, calls.jsonl and the logs of the
replicas in a folder, and ends with 1 if something was not as it has to be. tests/cluster/README.md says what it does.
"""

import argparse
import asyncio
import shutil
import sys
from pathlib import Path

from rich.console import Console

from tests.cluster import sandbox
from tests.cluster.run import run
from tests.pgbouncer import BINARY

MODULE = "tests.cluster"


def missing() -> str:
    """Return why the test cannot be run here; empty if it can."""
    return sandbox.missing() or ("" if BINARY else "pgbouncer not installed")


def main() -> int:
    """Run it in a sandbox; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="at least; below 5 the most telling faults come once each")
    parser.add_argument("--folder", type=Path, default=Path("dist/cluster"), help="what it leaves; made anew")
    parser.add_argument("--only", default="", help="the faults whose name has this in it, such as Redis")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if not sandbox.inside():
        if reason := missing():
            console.print(f"The cluster test cannot be run here: {reason}")
            return 2
        shutil.rmtree(options.folder, ignore_errors=True)
        return sandbox.run(MODULE, sys.argv[1:])
    sandbox.prepare()
    return 0 if asyncio.run(run(options.minutes, options.folder, console, options.only)) else 1


if __name__ == "__main__":
    sys.exit(main())
