"""grpc.health.v1: whether this server takes calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from antiphon.rpc.context import Context

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it comes without types
    """Answers SERVING for every service, and NOT_SERVING once the server is about to stop, which watchers are sent.

    Callers by a unix socket, which is the edge on this machine, are told only when the server takes no calls any more: until then
    the edge still has callers of its own, who are told to leave by other means.
    """

    def __init__(self, services: Collection[str]) -> None:
        """`services` are the names that may be asked for; "" is the server as a whole."""
        self._services = frozenset(services)
        self._leaving = asyncio.Event()
        self._stopping = asyncio.Event()

    def leave(self) -> None:
        """Answer NOT_SERVING from now on, but to the edge."""
        self._leaving.set()

    def stop(self) -> None:
        """Answer NOT_SERVING from now on, to all."""
        self._leaving.set()
        self._stopping.set()

    def _over(self, context: Context) -> asyncio.Event:
        """Return what is set when the caller is to be told NOT_SERVING."""
        return self._stopping if context.peer().startswith("unix:") else self._leaving

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """How it is now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=_NOT_SERVING if self._over(context).is_set() else _SERVING)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """How it is now, and when that changes."""
        over = self._over(context)
        known = request.service in self._services
        if not over.is_set():
            yield health_pb2.HealthCheckResponse(status=_SERVING if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            await over.wait()
        yield health_pb2.HealthCheckResponse(status=_NOT_SERVING)
        await self._stopping.wait()  # a watch that ends is begun anew at once
