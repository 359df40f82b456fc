"""Whether the gateway that runs on this machine answers, for the health check of a container: `python -m antiphon.up.health`.

Asks the Envoy of each of this user's runs, so that it needs neither a shell, nor the configuration, nor a key. It is healthy if
Envoy listens and at least one worker passes its checks: the supervisor starts the others again by itself. Of the standard library
alone, as it runs every few seconds.
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
        lacking = missing(folder, workers)
        if workers and len(lacking) < workers and "Envoy" not in lacking:
            return None
    return f"not healthy: {', '.join(lacking)}" if lacking else "no worker has begun to listen"


def main() -> int:
    """Print what is wrong, and return the exit code."""
    found = problem()
    if found:
        sys.stderr.write(f"{found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
