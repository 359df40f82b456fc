"""A worker of `antiphon up`: the program `python -m antiphon.worker`, which the supervisor starts.

It does without the libraries of the command line: they would take 8 MB in each worker, and a fifth of a second of its start.
"""

from __future__ import annotations

import gc
import getopt
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from antiphon.up.program import report, start_lean


def main(arguments: Sequence[str]) -> int:
    """Run a worker with the options of `antiphon.up.launch.worker_command`, and those of its child. Return the exit code.

    `--heartbeat` is the descriptor to write heartbeats to, `--gate` the one at whose end serving begins (`antiphon.up.child.Gate`).
    """
    start_lean()
    from antiphon.config import ConfigError
    from antiphon.config.file import load
    from antiphon.serve import serve

    options = dict(getopt.getopt(arguments, "", ["config=", "socket=", "worker=", "heartbeat=", "gate="])[0])
    gc.collect()  # of the imports, before they are frozen; here a start still waits for other things
    path = Path(options["--config"]) if "--config" in options else None
    heartbeat = int(options["--heartbeat"]) if "--heartbeat" in options else None
    if "--gate" in options:
        gate = int(options["--gate"])
        os.read(gate, 1)
        os.close(gate)
    try:
        serve(load(path), os.environ, socket=Path(options["--socket"]), worker=int(options["--worker"]), heartbeat=heartbeat)
    except (ConfigError, OSError) as error:
        return report(error, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
