"""A pod: a network namespace, its init containers in order, its sidecars and its server, and how it is stopped."""

import asyncio
import time
from pathlib import Path

from tests.cluster.container import Container
from tests.cluster.network import Namespace, Network
from tests.cluster.template import SERVER, Template


class Pod:
    """One replica. `start` begins it, and `delete` or `crash` ends it."""

    def __init__(self, name: str, template: Template, network: Network, folder: Path) -> None:
        self.name = name
        self.terminating = False
        self.exit_code: int | None = None
        """The exit code of the server; set when the pod was deleted."""
        self.containers: dict[str, Container] = {}
        self._template = template
        self._network: Namespace = network.namespace()
        self._folder = folder / name
        self._folders = template.pod_folders(self._folder)
        self._ready_since: float | None = None

    @property
    def address(self) -> str:
        return self._network.address

    @property
    def network(self) -> Namespace:
        return self._network

    @property
    def ready(self) -> bool:
        """Return whether its probes say that it takes calls. It may be terminating all the same."""
        found = len(self.containers) == len(self._template.sidecars) + 1 and all(
            container.ready for container in self.containers.values()
        )
        if not found:
            self._ready_since = None
        elif self._ready_since is None:
            self._ready_since = time.monotonic()
        return found

    @property
    def available(self) -> bool:
        """Return whether it has been ready for `minReadySeconds`."""
        return self.ready and self._ready_since is not None and time.monotonic() - self._ready_since >= self._template.min_ready

    @property
    def state(self) -> str:
        """Return its state in a word, for people."""
        return "terminating" if self.terminating else "ready" if self.ready else "not ready"

    async def start(self) -> None:
        """Run the init containers, then the sidecars, and the server when they have started."""
        for name, specification in self._template.containers.items():
            if name == SERVER or name in self._template.sidecars:
                command = self._folders.command(specification)
                log = self._folder / f"{name}.log"
                container = Container(specification, self.address, self._network.enter(), command, log)
                self.containers[name] = container
                await container.started.wait()
            else:
                await self._run_to_end(name, specification)

    async def migrate(self) -> None:
        """Run the container of the migration Job in this pod's network."""
        await self._run_to_end("migrate", self._template.migration)

    async def delete(self) -> None:
        """End the pod as the kubelet does: the hook, SIGTERM to the server, then to the sidecars, all within the grace period."""
        self.terminating = True
        end = time.monotonic() + self._template.grace
        server = self.containers[SERVER]
        hook = await server.run(self._folders.hook(self._template.containers[SERVER]))
        await hook.wait()
        self.exit_code = await server.stop(end - time.monotonic())
        for name in self._template.sidecars:
            await self.containers[name].stop(max(end - time.monotonic(), 2))
        self._network.close()

    async def crash(self) -> None:
        """End the pod at once, as when its machine is lost."""
        self.terminating = True
        await asyncio.gather(*(container.end() for container in self.containers.values()))
        self._network.close()

    async def _run_to_end(self, name: str, specification: dict[str, object]) -> None:
        command = self._folders.command(specification)
        with (self._folder / f"{name}.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *self._network.enter(),
                *command.arguments,
                cwd=command.folder,
                env=command.environment,
                stdout=output,
                stderr=output,
            )
        assert await process.wait() == 0, (self._folder / f"{name}.log").read_text()
