"""The controllers: they keep the number of pods, put ready pods into the Service, and do rolling updates."""

import asyncio
import contextlib
from itertools import count
from pathlib import Path
from typing import Self

from tests.cluster.network import Network
from tests.cluster.pod import Pod
from tests.cluster.service import Service
from tests.cluster.template import Template
from tests.waiting import until

INTERVAL = 0.1
"""Seconds between two checks of the pods."""

PATIENCE = 180.0
"""Seconds within which a pod must be ready. The machine may be busy."""


class Deployment:
    """The pods. As a context manager they run during the block, and are killed at the end."""

    def __init__(self, template: Template, network: Network, service: Service, folder: Path) -> None:
        self.pods: list[Pod] = []
        """The existing pods, including terminating ones."""
        self.exit_codes: list[int] = []
        """The exit codes of the servers that were asked to end."""
        self._template = template
        self._network = network
        self._service = service
        self._folder = folder
        self._numbers = count(1)
        self._rolling = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> Self:
        first = self._create(start=False)
        await first.migrate()
        self._spawn(first.start())
        self._controller = asyncio.create_task(self._control())
        await self.wait_until_settled()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [self._controller, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.gather(*(pod.crash() for pod in self.pods))

    @property
    def active(self) -> list[Pod]:
        """Return the pods that are not terminating."""
        return [pod for pod in self.pods if not pod.terminating]

    async def wait_until_settled(self) -> None:
        """Wait until exactly the wanted pods exist, all are ready, and the Service includes them all."""

        def is_settled() -> bool:
            self._raise()
            wanted = {pod.address for pod in self.pods}
            whole = len(self.pods) == self._template.replicas and all(pod.ready and not pod.terminating for pod in self.pods)
            return whole and wanted == set(self._service.addresses)

        await until(is_settled, PATIENCE)

    async def roll(self) -> None:
        """Replace all pods, as with maxSurge 1 and maxUnavailable 0: a new pod is available before an old one is deleted."""
        self._rolling = True
        try:
            for old in self.active:
                new = self._create()
                await until(lambda: new.available, PATIENCE)  # noqa: B023 - awaited here
                self._spawn(self._delete(old))
        finally:
            self._rolling = False
        await self.wait_until_settled()

    async def crash(self, pod: Pod) -> None:
        """Lose a pod at once. The Service learns of it after its usual delay, and another pod is created."""
        await pod.crash()
        self.pods.remove(pod)

    def _create(self, *, start: bool = True) -> Pod:
        pod = Pod(f"antiphon-{next(self._numbers)}", self._template, self._network, self._folder)
        self.pods.append(pod)
        if start:
            self._spawn(pod.start())
        return pod

    async def _delete(self, pod: Pod) -> None:
        await pod.delete()
        assert pod.exit_code is not None
        self.exit_codes.append(pod.exit_code)
        self.pods.remove(pod)

    async def _control(self) -> None:
        while True:
            while not self._rolling and len(self.active) < self._template.replicas:
                self._create()
            self._service.route_to([pod.address for pod in self.active if pod.ready])
            await asyncio.sleep(INTERVAL)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        async def run() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - `wait_until_settled` raises it
                self._errors.append(error)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _raise(self) -> None:
        with contextlib.suppress(IndexError):
            raise self._errors[0]
