"""The progress of a run: a live table on a terminal, else a line every ten seconds."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from tests.cluster.deployment import Deployment
from tests.cluster.faults import Faults
from tests.cluster.journal import Journal, Outcome
from tests.cluster.report import FAILURES

_LIVE, _PLAIN = 0.5, 10.0
"""Seconds between two looks."""


class Display:
    """Shows the progress of a run."""

    def __init__(self, console: Console, journal: Journal, deployment: Deployment, faults: Faults) -> None:
        self._console = console
        self._journal = journal
        self._deployment = deployment
        self._faults = faults
        self._began = time.monotonic()

    @asynccontextmanager
    async def show(self) -> AsyncIterator[None]:
        """Show the progress during the block."""
        task = asyncio.create_task(self._live() if self._console.is_terminal else self._plain())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _live(self) -> None:
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._table(), refresh=True)
                await asyncio.sleep(_LIVE)

    async def _plain(self) -> None:
        while True:
            failed = sum(call.outcome in FAILURES for call in self._journal.calls)
            pods = ", ".join(f"{pod.name} {pod.state}" for pod in self._deployment.pods)
            self._console.print(
                f"{self._seconds:5.0f} s  {len(self._journal.calls)} calls, {failed} failed; {self._faults.status}; {pods}"
            )
            await asyncio.sleep(_PLAIN)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _table(self) -> RenderableType:
        table = Table(title=f"{self._seconds:.0f} s: {self._faults.status}", title_justify="left")
        columns = [Outcome.GOING, Outcome.DONE, Outcome.REFUSED, Outcome.FAILED, Outcome.CUT, Outcome.CUT_SILENTLY]
        table.add_column("client")
        for outcome in columns:
            table.add_column(outcome.value, justify="right")
        counted = Counter((call.kind, call.outcome) for call in self._journal.calls)
        for kind in sorted({kind for kind, _ in counted}):
            table.add_row(kind, *(str(counted[kind, outcome] or "") for outcome in columns))
        pods = Table(title="pods", title_justify="left")
        for name in ("name", "address", "state", "restarts"):
            pods.add_column(name)
        for pod in self._deployment.pods:
            restarts = ", ".join(f"{name} {one.restarts}" for name, one in pod.containers.items() if one.restarts)
            pods.add_row(pod.name, pod.address, pod.state, restarts)
        return Group(table, pods)
