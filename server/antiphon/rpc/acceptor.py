"""A grpc.aio server that has several calls ready to be served.

grpc.aio asks its core for one call at a time, and needs several turns of the event loop for each, up to thirty. In a turn a busy
server also serves all streams that have something to do, so new calls would queue for a second and more while old ones go on. Here
the core may fill `READY` calls in advance, and each needs two turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, cast

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # has no types

READY: Final = 32
"""How many calls may be ready to be served."""


PAUSE: Final = 0.01
"""Seconds that a stop waits at a time until no more calls are ready, at most `MOST_PAUSES` times."""

MOST_PAUSES: Final = 100


class _Acceptor(cygrpc.AioServer):  # type: ignore[misc]  # has no types
    """What `grpc.aio.Server` wraps."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ready: deque[asyncio.Task[Any]] = deque()
        """What was asked of the core. It fills the oldest first."""

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Task[Any]:
        """Return a task whose result is the next call. `method` is None, as no method is registered."""
        while len(self._ready) <= READY:
            task = super()._make_request_call_future(method)
            task.add_done_callback(_retrieve)
            self._ready.append(task)
        return self._ready.popleft()

    async def shutdown(self, grace: float | None) -> None:
        """Stop once the calls that have arrived are being served: grpc.aio would drop those that are ready."""
        for _ in range(MOST_PAUSES):
            await asyncio.sleep(PAUSE)  # also those that the core has, and this process does not know yet
            if not any(task.done() for task in self._ready):
                break
        await super().shutdown(grace)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take the exception that ends all tasks when the server stops: grpc.aio takes that of one alone."""
    if not task.cancelled():
        task.exception()


def aio_server(handlers: Sequence[grpc.GenericRpcHandler], options: Sequence[tuple[str, Any]]) -> grpc.aio.Server:
    """Return what `grpc.aio.server` does, with `_Acceptor` inside. There is no public way to that."""
    server = grpc.aio.server()
    acceptor = _Acceptor(cygrpc.get_working_loop(), None, tuple(handlers), (), tuple(options), None)
    cast(Any, server)._server = acceptor  # noqa: SLF001
    return server
