"""Drains an Envoy before it is stopped, where no supervisor does it, such as in a pod. Envoy serves calls all the time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

from antiphon.up.admin import ADMIN_SOCKET, ask, turn_unready

INTERVAL: Final = 0.25
"""Seconds between two checks of whether calls are still running."""

_ACTIVE: Final = "http.edge.downstream_rq_active"


def drain(folder: Path, delay: float, wait: float) -> None:
    """Turn the Envoy in `folder` unready, and return once its callers have had time to leave.

    This takes `delay` seconds, and then up to `wait` more while calls are running. Raises `OSError` if Envoy does not answer.
    """
    path = folder / ADMIN_SOCKET
    try:
        _active(path)
        turn_unready(folder)
        time.sleep(delay)
        end = time.monotonic() + wait
        while time.monotonic() < end and _active(path):
            time.sleep(INTERVAL)
    except (OSError, ValueError) as error:
        raise OSError(f"{path}: Envoy does not answer: {error}") from error


def _active(path: Path) -> int:
    """Return how many calls are running. Raises `OSError`, `ValueError`."""
    stats = json.loads(ask(path, f"/stats?format=json&filter=^{_ACTIVE}$"))["stats"]
    return sum(int(stat["value"]) for stat in stats if stat.get("name") == _ACTIVE)
