"""The health check of a container, `python -m antiphon.up.health`: whether the gateway on this machine can answer.

It asks the Envoy of each of this user's runs, so it needs no shell, configuration or key. The gateway is healthy if Envoy listens
and at least one worker passes its health checks: the supervisor restarts the others by itself. Uses the standard library only, as
it runs every few seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from antiphon.up import run_folder
from antiphon.up.admin import ADMIN_SOCKET
from antiphon.up.readiness import missing, worker_socket


def problem() -> str | None:
    """Return why the gateway cannot answer, or None if it can."""
    folders = [socket.parent for socket in Path(run_folder.parent()).glob(f"antiphon-*/{ADMIN_SOCKET}")]
    if not folders:
        return "no gateway runs here"
    for folder in folders:
        workers = len(list(folder.glob(worker_socket("*"))))
        not_ready = missing(folder, workers)
        if workers and len(not_ready) < workers and "Envoy" not in not_ready:
            return None
    return f"not healthy: {', '.join(not_ready)}" if not_ready else "no worker has begun to listen"


def main() -> int:
    """Print the problem, if any; return the exit code, 0 or 1."""
    found = problem()
    if found:
        sys.stderr.write(f"{found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
