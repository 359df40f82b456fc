"""A grpc.aio server that accepts several calls at a time, and sends what belongs together in one operation.

grpc.aio accepts one call after the other, and needs several turns of the event loop for each. In a turn a busy server also serves
all streams that have something to do, so new calls would queue for a second and more while old ones go on. Here each method has
several tasks that accept its calls, each one after the other. Until its first call it has one, as most methods are never called.
Calls of unknown methods are left to grpc.aio.

It also sends initial metadata, a message and the status in operations of their own. Methods that send by a `Sender` get one here
that sends all of it in one.

There is no public way to that. What is used of grpc.aio is checked; if an update changes that, its server is used as it is.
"""

# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final, cast

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # has no types

from antiphon.rpc import wake_ups
from antiphon.rpc.sender import DirectSender, MethodHandler, Serve

log = structlog.get_logger(__name__)

READY: Final = 32
"""How many calls of a method may be accepted at the same time."""

PAUSE: Final = 0.01
"""Seconds that a stop waits at a time, at most `MOST_PAUSES` times, while `MANY` calls are accepted in it."""

MOST_PAUSES: Final = 10

MANY: Final = 8
"""The number of calls accepted in `PAUSE` from which more of them may be on their way through gRPC."""

_KINDS: Final = {
    (False, False): "_handle_unary_unary_rpc",
    (False, True): "_handle_unary_stream_rpc",
    (True, False): "_handle_stream_unary_rpc",
    (True, True): "_handle_stream_stream_rpc",
}
"""The functions of grpc.aio that call a handler, by whether its requests and its responses are streams."""

_USED: Final = {
    **dict.fromkeys(_KINDS.values(), ("method_handler", "rpc_state", "loop")),
    "_schedule_rpc_coro": ("rpc_coro", "rpc_state", "loop", "method_name"),
    "execute_batch": ("grpc_call_wrapper", "operations", "loop"),
}
"""The functions of grpc.aio that are used here, and their parameters."""

_CLASSES: Final = {
    "_HandlerCallDetails",
    "_RequestCallError",
    "_ServicerContext",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
}
"""The classes of grpc.aio that are used here."""


class _Acceptor(cygrpc.AioServer):  # type: ignore[misc]  # has no types
    """What `grpc.aio.Server` wraps."""

    def __init__(self, handlers: Sequence[grpc.GenericRpcHandler], options: Sequence[tuple[str, Any]]) -> None:
        # Kept, as asyncio looks it up with a system call each time.
        self._event_loop = loop = cygrpc.get_working_loop()
        super().__init__(loop, None, tuple(handlers), (), tuple(options), None)
        self._handlers = handlers
        self.is_stopped = False
        self._accepted = 0
        self._ended: asyncio.Future[Any] = loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        """Those that accept calls, and those of calls: the event loop itself would let them be collected."""

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Begin to accept the calls of a method; return what fails when the server stops. grpc.aio calls this once for a method.

        None: return the next call of an unknown method.
        """
        if method is None:
            return cast("asyncio.Future[Any]", super()._make_request_call_future(None))
        handler = self._find(method.decode())
        if isinstance(handler, MethodHandler):
            handle = partial(self._handle, handler.serve)
        else:
            handle = partial(getattr(cygrpc, _KINDS[handler.request_streaming, handler.response_streaming]), handler)
        self._start(self._accept(method, handle, READY - 1))
        return self._ended

    async def _accept(self, method: bytes, handle: Callable[..., Coroutine[Any, Any, None]], others: int) -> None:
        """Accept calls until the server stops; from the first one on, together with `others` more tasks.

        A call that has arrived when the server stops is still served.
        """
        name = method.decode()
        while True:
            try:
                self._serve(name, handle, await self._request_registered_call(method))
                for _ in range(others):
                    self._start(self._accept(method, handle, 0))
                others = 0
            except cygrpc._RequestCallError as error:  # of this one call, or of all as the server stops
                if not self.is_running():
                    self._end(error)
                    return
            except Exception as error:  # noqa: BLE001  # grpc.aio ends the server, and logs it
                self._end(error)
                return

    async def shutdown(self, grace: float | None) -> None:
        """Stop once the calls that have arrived are being served: gRPC would drop those that wait to be accepted."""
        for _ in range(MOST_PAUSES):
            before = self._accepted
            await asyncio.sleep(PAUSE)
            if self._accepted < before + MANY:
                break
        await super().shutdown(grace)
        self.is_stopped = True

    def _serve(self, method: str, handle: Callable[..., Coroutine[Any, Any, None]], state: Any) -> None:
        self._accepted += 1
        loop = self._event_loop
        self._start(cygrpc._schedule_rpc_coro(handle(state, loop), state, loop, method))

    def _handle(self, serve: Serve, state: Any, loop: asyncio.AbstractEventLoop) -> Coroutine[Any, Any, None]:
        """Return what handles a call in place of grpc.aio's functions."""
        return serve(cygrpc._ServicerContext(state, None, None, loop), DirectSender(state, loop, self))

    def _end(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _start(self, coroutine: Any) -> None:
        task = self._event_loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _find(self, method: str) -> Any:
        details = cygrpc._HandlerCallDetails(method, ())
        return next(filter(None, (each.service(details) for each in self._handlers)))


def aio_server(
    handlers: Sequence[grpc.GenericRpcHandler], options: Sequence[tuple[str, Any]], methods: Iterable[str]
) -> grpc.aio.Server:
    """Return what `grpc.aio.server` does, with `_Acceptor` inside. `methods` are those of the handlers, as "/service/method"."""
    with wake_ups.unblocked():
        if not _is_known():
            log.warning("grpc_changed", version=grpc.__version__)
            return grpc.aio.server(handlers=handlers, options=options)
        server = grpc.aio.server()
        acceptor = _Acceptor(handlers, options)
        acceptor.add_registered_method_handlers(dict.fromkeys(methods))
        cast(Any, server)._server = acceptor
        return server


def _is_known() -> bool:
    """Return whether grpc.aio has what is used here."""
    functions = {name: getattr(cygrpc, name, None) for name in _USED}
    return (
        set(dir(cygrpc)) >= _CLASSES
        and {"_request_registered_call", "_make_request_call_future"} <= set(dir(cygrpc.AioServer))
        and all(found and tuple(inspect.signature(found).parameters) == _USED[name] for name, found in functions.items())
    )
