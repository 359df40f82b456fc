"""The cluster test: three replicas as Kubernetes runs them, under mixed load, while faults are made one after the other.

`make cluster`, or `python -m tests.cluster [--minutes 10]`. It writes report.txt, report.json, calls.jsonl and the logs of the
replicas into a folder, and its exit code is 1 if a requirement was not met. tests/cluster/README.md describes it.
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
    """Return the reason why the test cannot run on this machine; empty if it can."""
    return sandbox.missing() or ("" if BINARY else "pgbouncer not installed")


def main() -> int:
    """Run the test in a sandbox, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes",
        type=float,
        default=10,
        help="run at least so long; below 5, only the most important faults are made, once each",
    )
    parser.add_argument("--folder", type=Path, default=Path("dist/cluster"), help="the folder for the results; it is replaced")
    parser.add_argument("--only", default="", help="only the faults whose name contains this text, such as Redis")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if not sandbox.inside():
        if reason := missing():
            console.print(f"The cluster test cannot run here: {reason}")
            return 2
        shutil.rmtree(options.folder, ignore_errors=True)
        return sandbox.run(MODULE, sys.argv[1:])
    sandbox.prepare()
    return 0 if asyncio.run(run(options.minutes, options.folder, console, options.only)) else 1


if __name__ == "__main__":
    sys.exit(main())
