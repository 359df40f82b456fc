"""One container of a pod, run as the kubelet does: started, probed, and started again when it ends."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.cluster.template import EDGE_PORT, GRPC_PORT
from tests.kubernetes import Command

BACKOFF = 10.0
"""Seconds before a container is started for the third time, doubled each time. The second start is immediate."""


class Container:
    """A container that runs for as long as its pod."""

    def __init__(self, specification: dict[str, Any], address: str, prefix: list[str], command: Command, log: Path) -> None:
        """Start it. `prefix` is put before each command, so that it runs in the pod's network."""
        self.ready = False
        self.started = asyncio.Event()
        """Set when the startup probe has passed."""
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self._specification = specification
        self._address = address
        self._prefix = prefix
        self._command = command
        self._log = log
        self._stopping = False
        self._task = asyncio.create_task(self._keep())

    async def run(self, arguments: list[str]) -> asyncio.subprocess.Process:
        """Start a command in the container's environment, such as a hook."""
        with self._log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *self._prefix,
                *arguments,
                cwd=self._command.folder,
                env=self._command.environment,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        """Kill the container's process and its descendants. It is then started again."""
        if self.process is not None and self.process.returncode is None:
            for pid in [self.process.pid, *descendants(self.process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Send SIGHUP to the container's process."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def workers(self) -> set[int]:
        """Return the ids of the processes that serve calls, if a supervisor has started them."""
        assert self.process is not None

        def serves(pid: int) -> bool:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                return b"antiphon.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return False

        return {pid for pid in descendants(self.process.pid) if serves(pid)}

    async def stop(self, grace: float) -> int:
        """Send SIGTERM, kill the process after `grace` seconds, and return the exit code."""
        self._stopping = True
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), grace)
        return await self.end()

    async def end(self) -> int:
        """Kill the process for good, and return the exit code."""
        self._stopping = True
        self.kill()
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()):
            raise error
        return 0 if self.process is None else await self.process.wait()

    async def _keep(self) -> None:
        while not self._stopping:
            self.process = await self.run(self._command.arguments)
            ended = asyncio.create_task(self.process.wait())
            probes = asyncio.create_task(self._watch())
            try:
                await ended
            finally:
                probes.cancel()
                await asyncio.wait([probes])
                self.ready = False
                self.started.clear()
            if not self._stopping:
                self.restarts += 1
                await asyncio.sleep(0 if self.restarts == 1 else BACKOFF * 2 ** (self.restarts - 2))

    async def _watch(self) -> None:
        async def never() -> bool:
            return False

        await self._probe("startupProbe", self._passed_startup, never, until_it_passes=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe("readinessProbe", self._turn_ready, self._turn_unready))
            group.create_task(self._probe("livenessProbe", never, self._restart))

    async def _probe(
        self,
        name: str,
        passed: Callable[[], Awaitable[bool]],
        failed: Callable[[], Awaitable[bool]],
        *,
        until_it_passes: bool = False,
    ) -> None:
        probe = self._specification[name]
        failures = 0
        while True:
            if await self._passes(probe):
                failures = 0
                await passed()
                if until_it_passes:
                    return
            else:
                failures += 1
                if failures >= probe["failureThreshold"]:
                    await failed()
            await asyncio.sleep(probe["periodSeconds"])

    async def _passed_startup(self) -> bool:
        self.started.set()
        return True

    async def _turn_ready(self) -> bool:
        self.ready = True
        return True

    async def _turn_unready(self) -> bool:
        self.ready = False
        return True

    async def _restart(self) -> bool:
        self.kill()
        return True

    async def _passes(self, probe: dict[str, Any]) -> bool:
        seconds = probe.get("timeoutSeconds", 1)
        with contextlib.suppress(aiohttp.ClientError, grpc.aio.AioRpcError, TimeoutError, OSError):
            if "httpGet" in probe:
                url = f"{probe['httpGet']['scheme'].lower()}://{self._address}:{EDGE_PORT}{probe['httpGet']['path']}"
                timeout = aiohttp.ClientTimeout(total=seconds)
                async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=False) as response:
                    return response.status == 200
            request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
            options = [("grpc.use_local_subchannel_pool", 1)]  # a new connection each time, as the kubelet makes it
            async with grpc.aio.insecure_channel(f"{self._address}:{GRPC_PORT}", options=options) as channel:
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
        return False


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes that a process has started, directly or indirectly."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
        return [found for child in children for found in (child, *descendants(child))]
    return []
