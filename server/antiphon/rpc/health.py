"""grpc.health.v1: whether this server takes calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from antiphon.rpc.context import Context


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it comes without types
    """Answers SERVING for every service while the server is ready, else NOT_SERVING; watchers are sent each change.

    For its own service it answers SERVING at all times: that is how a probe asks whether the process is alive, ready or not.

    Callers by a unix socket, which is the edge on this machine, are told of a stop only when no calls are taken any more: until
    then the edge still has callers of its own, who are told to leave by other means.
    """

    def __init__(self, services: Collection[str]) -> None:
        """`services` are the names that may be asked for; "" is the server as a whole."""
        self._services = frozenset(services)
        self._to_edge = self._to_others = True
        self._stopped = False
        self._changed = asyncio.Event()

    def hold_back(self) -> None:
        """Answer NOT_SERVING until `ready`."""
        self._tell(edge=False, others=False)

    def ready(self) -> None:
        """Answer SERVING from now on."""
        self._tell(edge=True, others=True)

    def leave(self) -> None:
        """Answer NOT_SERVING from now on, but to the edge, if it was told SERVING."""
        self._tell(edge=self._to_edge, others=False)

    def stop(self) -> None:
        """Answer NOT_SERVING from now on, to all; that is the last that watchers are sent."""
        self._stopped = True
        self._tell(edge=False, others=False)

    def _tell(self, *, edge: bool, others: bool) -> None:
        self._to_edge, self._to_others = edge, others
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, request: health_pb2.HealthCheckRequest, context: Context) -> Any:
        if request.service not in self._services and not self._stopped:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if request.service == health.SERVICE_NAME:
            return health_pb2.HealthCheckResponse.SERVING
        serving = self._to_edge if context.peer().startswith("unix:") else self._to_others
        return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """How it is now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=self._status(request, context))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """How it is now, and when that changes."""
        told = None
        while True:
            changed, status = self._changed, self._status(request, context)
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status)
                told = status
            if self._stopped:
                return
            await changed.wait()
