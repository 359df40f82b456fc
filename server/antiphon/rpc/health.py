"""The servicer of grpc.health.v1: whether this server accepts calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from antiphon.rpc.context import Context


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """Answers SERVING for every service while the server is ready, else NOT_SERVING; sends watchers each change.

    For its own service, grpc.health.v1.Health, it always answers SERVING, so a liveness probe can ask whether the process responds.

    Callers on a unix socket are the edge on this machine. They see NOT_SERVING only once no calls are accepted any more: until then
    the edge still has calls to pass on, and its own callers are last_sent to leave by other means.
    """

    def __init__(self, services: Collection[str]) -> None:
        """Answer for the names in `services`; "" is the server as a whole."""
        self._services = frozenset(services)
        self._serving_edge = self._serving_others = True
        self._stopped = False
        self._changed = asyncio.Event()

    def set_not_ready(self) -> None:
        """Answer NOT_SERVING until `set_ready` is called."""
        self._set(edge=False, others=False)

    def set_ready(self) -> None:
        """Answer SERVING from now on."""
        self._set(edge=True, others=True)

    def set_draining(self) -> None:
        """Answer NOT_SERVING from now on; the edge still gets the answer that it had before."""
        self._set(edge=self._serving_edge, others=False)

    def stop(self) -> None:
        """Answer NOT_SERVING to everybody from now on, and end the streams of watchers after that."""
        self._stopped = True
        self._set(edge=False, others=False)

    def _set(self, *, edge: bool, others: bool) -> None:
        self._serving_edge, self._serving_others = edge, others
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, request: health_pb2.HealthCheckRequest, context: Context) -> Any:
        if request.service not in self._services and not self._stopped:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if request.service == health.SERVICE_NAME:
            return health_pb2.HealthCheckResponse.SERVING
        serving = self._serving_edge if context.peer().startswith("unix:") else self._serving_others
        return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Return the current status. Aborts with NOT_FOUND for an unknown service."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=self._status(request, context))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """Send the current status, and each change of it, until the server stops."""
        last_sent = None
        while True:
            changed, status = self._changed, self._status(request, context)
            if status != last_sent:
                yield health_pb2.HealthCheckResponse(status=status)
                last_sent = status
            if self._stopped:
                return
            await changed.wait()
