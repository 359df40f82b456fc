"""The faults that are made while the cluster is under load, one after the other, each in its own window of time.

A window ends when the pods are ready again and every call that began before the fault was over has ended. Calls between two windows
are calm: no fault affects them.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import NamedTuple

import grpc

from antiphon.v1 import models_pb2, models_pb2_grpc
from tests.cluster.deployment import Deployment
from tests.cluster.journal import Call, Journal
from tests.cluster.load import KEY
from tests.cluster.pod import Pod
from tests.cluster.stores import Stores
from tests.cluster.template import ENVOY, GRPC_PORT, SERVER, Template
from tests.cluster.upstream import PORT, QUICK, TALK, Upstream
from tests.waiting import until

CALM = 10.0
"""Seconds between two windows."""

AWAY = 12.0
"""Seconds for which something is unreachable.

It is longer than readiness probes take to notice, and shorter than liveness probes wait.
"""

CALM_NAME = "calm"

LONG = 5.0
"""The number of minutes from which all faults are made."""

_PATIENCE = 180.0


@dataclass
class Window:
    """The time of one fault, in seconds of `time.monotonic`."""

    name: str
    planned: bool
    """True if an operator does it on purpose: then no call may fail because of it."""
    began: float
    over: float = 0.0
    """When the fault itself was over."""
    ended: float = 0.0
    """When all its effects were over."""

    def touches(self, call: Call) -> bool:
        """Return whether a call, or an earlier try of its turn, overlaps the window."""
        return call.since <= (self.ended or call.ended) and call.ended >= self.began


class Step(NamedTuple):
    """One fault, or one change that an operator makes."""

    name: str
    do: Callable[[], Awaitable[None]]
    planned: bool = False


@dataclass
class Faults:
    """Makes the faults."""

    deployment: Deployment
    template: Template
    stores: Stores
    journal: Journal
    windows: list[Window] = field(default_factory=list)
    status: str = "the load begins"
    """The current activity, for people."""
    _victims: Iterator[int] = field(default_factory=count)
    _models: Iterator[int] = field(default_factory=lambda: count(1))

    async def run(self, minutes: float, only: str = "") -> None:
        """Make faults for at least `minutes`; `only` selects those whose name contains this text.

        With less than five minutes, each of the most important is made once. Otherwise all are, with two rolling restarts, and then
        the unplanned ones are repeated until the time is over.
        """
        end = time.monotonic() + minutes * 60
        roll = Step("rolling restart", self.deployment.roll, planned=True)
        reload = [Step("configuration changed", self._reload, planned=True)] if self.template.reloads else []
        hang_up = [Step("reload by SIGHUP", self._hang_up, planned=True)] if self.template.reloads else []
        important = [
            Step("server killed", self._kill_server),
            Step("Redis killed", self._kill_redis),
            Step("PostgreSQL restarted", self._restart_postgres),
            Step("replica cut off", self._cut_off),
        ]
        others = [
            Step("Envoy killed", self._kill_envoy),
            Step("pod lost", self._lose_pod),
            Step("PostgreSQL killed", self._kill_postgres),
            Step("PgBouncer killed", self._kill_pooler),
            Step("replica without stores", self._part_from_stores),
            Step("replica without provider", self._part_from_provider),
        ]
        short = [roll, *important, *reload]
        long = [roll, *important, *reload, *others, *hang_up, roll]
        for step in long if minutes >= LONG else short:
            if only in step.name:
                await self._do(step)
        again = cycle([*important, *others])
        while time.monotonic() < end:
            step = next(again)
            if only in step.name:
                await self._do(step)
        self.status = "the load ends"

    async def _do(self, step: Step) -> None:
        async with self._window(step.name, planned=step.planned):
            await step.do()

    @asynccontextmanager
    async def _window(self, name: str, *, planned: bool) -> AsyncIterator[None]:
        self.status = "calm"
        await asyncio.sleep(CALM)
        self.status = name
        number = sum(window.name.startswith(name) for window in self.windows) + 1
        window = Window(name if number == 1 else f"{name} ({number})", planned, time.monotonic())
        self.windows.append(window)
        yield
        window.over = time.monotonic()
        self.status = f"{name}: over"
        await self.deployment.wait_until_settled()
        settled = time.monotonic()
        await until(lambda: not self.journal.has_calls_from_before(settled), _PATIENCE)
        window.ended = time.monotonic()

    def _victim(self) -> Pod:
        """Return another pod each time."""
        pods = self.deployment.active
        return pods[next(self._victims) % len(pods)]

    async def _kill_server(self) -> None:
        await self._kill_container(SERVER)

    async def _kill_envoy(self) -> None:
        await self._kill_container(ENVOY)

    async def _kill_container(self, name: str) -> None:
        container = self._victim().containers[name]
        before = container.restarts
        container.kill()
        await until(lambda: container.restarts > before, _PATIENCE)

    async def _lose_pod(self) -> None:
        await self.deployment.crash(self._victim())

    async def _cut_off(self) -> None:
        """Cut a replica off the network until it has left the Service, and for `AWAY` seconds after that."""
        pod = self._victim()
        await pod.network.unplug()
        await until(lambda: not pod.ready, _PATIENCE)
        await asyncio.sleep(AWAY)
        await pod.network.plug()

    async def _part_from_stores(self) -> None:
        ports = (self.stores.pooler.port, self.stores.redis.port)
        await self._part(*ports)

    async def _part_from_provider(self) -> None:
        await self._part(PORT)

    async def _part(self, *ports: int) -> None:
        network = self._victim().network
        for port in ports:
            await network.block(port)
        await asyncio.sleep(AWAY)
        for port in ports:
            await network.unblock(port)

    async def _restart_postgres(self) -> None:
        await asyncio.to_thread(self.stores.postgres.restart)

    async def _kill_postgres(self) -> None:
        await asyncio.to_thread(self.stores.postgres.kill)
        await asyncio.sleep(AWAY / 4)
        await asyncio.to_thread(self.stores.postgres.start)

    async def _kill_pooler(self) -> None:
        await asyncio.to_thread(self.stores.pooler.kill)
        await asyncio.to_thread(self.stores.pooler.start)

    async def _kill_redis(self) -> None:
        await asyncio.to_thread(self.stores.redis.kill)
        await asyncio.sleep(AWAY)
        await asyncio.to_thread(self.stores.redis.start)

    async def _hang_up(self) -> None:
        """Reload every replica by SIGHUP without a change, and wait until all its workers are replaced."""
        for container in [pod.containers[SERVER] for pod in self.deployment.active]:
            before = container.workers()
            container.hang_up()
            await until(lambda: container.workers().isdisjoint(before), _PATIENCE)  # noqa: B023 - awaited here

    async def _reload(self) -> None:
        """Add a model to the configuration, and wait until each replica lists it."""
        model = f"model-{next(self._models)}"
        self.template.configure({"providers": provider(model)})
        for pod in self.deployment.active:
            async with grpc.aio.insecure_channel(f"{pod.address}:{GRPC_PORT}") as channel:
                stub = models_pb2_grpc.ModelServiceStub(channel)

                async def listed() -> bool:
                    metadata = [("authorization", f"Bearer {KEY}")]
                    # This client does not watch gRPC health, so one of its calls may fail as the old process ends.
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        answer = await stub.ListModels(models_pb2.ListModelsRequest(), metadata=metadata, timeout=10)  # noqa: B023
                        return any(found.name == model for found in answer.models)
                    return False

                await until(listed, _PATIENCE)


def provider(*more: str) -> dict[str, object]:
    """Return the section `providers` of antiphon.yaml, with `more` models."""
    return {"scripted": {"base_url": Upstream.base_url, "models": [QUICK, TALK, *more]}}
