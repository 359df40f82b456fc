"""grpc.health.v1: whether this server takes calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from antiphon.rpc.context import Context


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it comes without types
    """Answers SERVING for every service, and NOT_SERVING once the server stops, which watchers are sent before their calls end."""

    def __init__(self, services: Collection[str]) -> None:
        """`services` are the names that may be asked for; "" is the server as a whole."""
        self._services = frozenset(services)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Answer NOT_SERVING from now on."""
        self._stopping.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """How it is now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        status = health_pb2.HealthCheckResponse.NOT_SERVING if self._stopping.is_set() else health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """How it is now, and when that changes."""
        known = request.service in self._services
        now = health_pb2.HealthCheckResponse.SERVING if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if not self._stopping.is_set():
            yield health_pb2.HealthCheckResponse(status=now)
            await self._stopping.wait()
        yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
